"""Charging: from a question to a paid release, by the partner's ledger and outbox.

answered  a question that was answered gets the same bytes; a lost attempt stays lost
afford    the budget is asked before data is opened
reserve   the charge is durable before noise is drawn
settle    the release is kept, then bound to its charge; only then may the door let it pass
"""

from collections.abc import Mapping
from pathlib import Path

from coterie.clients.outbox import Outbox, Paid
from coterie.clients.refusals import Notes, TaskRefused, refused
from coterie.clients.taint import refuse_tainted
from coterie.privacy.charges import Charge, Reservation
from coterie.privacy.errors import BudgetExhausted
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.policy import Policy, limits
from coterie.privacy.release import release_digest

__all__ = ["Charging"]


class Charging:
    """The ledger and the outbox of one workspace.

    Args:
        ledger: Open.
        outbox: Folder of releases as they were made.
        notes: Where refusals are written for the operator.
    """

    def __init__(self, ledger: Ledger, outbox: Path, notes: Notes) -> None:
        self._ledger = ledger
        self._outbox = Outbox(outbox)
        self._notes = notes

    def answered(self, charge: Charge, model: str) -> Paid | None:
        """Return the release of a question that was answered before, or None for a new one.

        Args:
            charge: What the answer would cost.
            model: Digest of the weights that the question is about.

        Raises:
            TaskRefused: The attempt was lost, follows no lost one, or was about another model; or the ledger lacks
                what the outbox holds.
        """
        held = self._ledger.charges_of(charge.plan)
        attempts = {r.charge.attempt: r for r in held if r.charge.step == charge.step}
        earlier = attempts.get(charge.attempt)
        if earlier is None:
            if self._outbox.holds(charge):
                fix = "restore the newest ledger; an older one would give the budget back"
                raise refused("fault", "the ledger", "lacks a charge whose release is in the outbox", fix)
            _refuse_out_of_turn(charge, attempts)
            return None
        if earlier.settled is None:
            raise refused("lost", charge.step, "was lost in a crash", "declare spare attempts in the plan")
        release = self._outbox.again(earlier.charge, earlier.settled)
        if release.model != model:
            raise refused("replay", charge.step, "was answered for another model", "ask with the same model")
        return release

    def afford(self, charge: Charge, policy: Policy, declared: int) -> None:
        """Ask whether the budget would carry a charge; arguments as `Ledger.reserve`.

        Raises:
            TaskRefused: It would not.
        """
        try:
            self._ledger.would_carry(charge, limits(policy, charge.purpose, self._ledger.year), declared=declared)
        except BudgetExhausted as error:
            raise self._exhausted(error) from None

    def reserve(self, charge: Charge, policy: Policy, declared: int, *, rows: str) -> Reservation:
        """Charge, durably; arguments as `Ledger.reserve`, but that no charge goes without its commitment to rows.

        Raises:
            TaskRefused: The budget does not carry it.
        """
        try:
            kept = limits(policy, charge.purpose, self._ledger.year)
            return self._ledger.reserve(charge, kept, declared=declared, rows=rows)
        except BudgetExhausted as error:
            raise self._exhausted(error) from None

    def settle(self, reservation: Reservation, release: Paid) -> None:
        """Keep a release and bind it to its charge.

        Raises:
            ReleaseRefused: It shares memory with customers' rows.
        """
        # Here the arrays are still the ones that were computed; on the wire they are copies, and carry no mark.
        refuse_tainted(release)
        self._outbox.keep(reservation.charge, release)
        self._ledger.settle(reservation, release_digest(release))

    def _exhausted(self, error: BudgetExhausted) -> TaskRefused:
        self._notes.write("refusals.log", error.faults)
        return TaskRefused("budget", *error.faults)


def _refuse_out_of_turn(charge: Charge, attempts: Mapping[int, Reservation]) -> None:
    """Refuse an attempt that no earlier one calls for.

    What a partner releases by itself is asked for again only where it was lost. A sum may fail through others: there a
    later attempt is charged in full whatever became of the earlier ones, of which this partner may have missed some.
    """
    if isinstance(charge.event, DistributedGaussian):
        in_turn = all(attempt < charge.attempt for attempt in attempts)
    else:
        in_turn = all(r.settled is None for r in attempts.values()) and len(attempts) == charge.attempt - 1
    if not in_turn:
        raise refused("task", "the task's attempt", "follows no lost one", "ask for the first attempt")
