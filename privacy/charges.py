"""Charges: what a ledger's entries say, and when a further one does not fit. Data and pure functions alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.privacy.errors import BudgetExhausted, Fault, LedgerFault
from coterie.privacy.events import Event, event_from_dict
from coterie.privacy.renyi import Filter

__all__ = [
    "Charge",
    "Entry",
    "Limit",
    "Reservation",
    "charge_of",
    "refuse_beyond",
    "refuse_beyond_declared",
    "reservation_of",
    "spans_of",
    "year_of",
]


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Args:
        seq: 1, 2, 3, ...
        at: When it was written, ISO 8601 in UTC, by the partner's clock.
        kind: A key of `entries.SHAPES`.
        body: What happened, as plain JSON values.
        salt: 16 random bytes in hexadecimal: hashes of entries leave the partner, and must not be guessed open.
    """

    seq: int
    at: str
    kind: str
    body: Mapping[str, Any]
    salt: str = ""


@dataclass(frozen=True)
class Charge:
    """What is to be paid before a release may be made.

    Args:
        plan: Digest of the plan.
        purpose: Its purpose.
        step: Which release of the plan, e.g. "train/3".
        attempt: 1, or more after a lost attempt.
        group: Customer group that it touches; groups are disjoint for life.
        event: What it costs.
        random: Name of the random source of its noise.
        segments: Which of the partner's customer segments it touches; empty for all of them.
    """

    plan: str
    purpose: str
    step: str
    attempt: int
    group: str
    event: Event
    random: str
    segments: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What makes the charge unique: a release is paid once per plan, step and attempt."""
        return f"{self.plan}/{self.step}/{self.attempt}"


@dataclass(frozen=True)
class Limit:
    """A budget over all studies, over those of one purpose, or over what one calendar year charged.

    Args:
        budget: The filter.
        purpose: Only charges of this purpose count; None for all.
        year: Only charges of this year, by the ledger's time in UTC, count; None for all.
    """

    budget: Filter
    purpose: str | None = None
    year: int | None = None

    @property
    def name(self) -> str:
        """How the limit is called in an error."""
        if self.year is not None:
            return f"budget of the year {self.year}"
        return "lifetime budget" if self.purpose is None else f"budget of purpose {self.purpose}"

    @property
    def span(self) -> str:
        """Which charges count: one of `spans_of` them."""
        if self.year is not None:
            return f"year/{self.year}"
        return "life" if self.purpose is None else f"purpose/{self.purpose}"


@dataclass(frozen=True)
class Reservation:
    """A charge that the ledger holds.

    Args:
        seq: Its entry.
        charge: What was charged.
        settled: Digest of the release that it paid for, or None.
        lost: Whether a crash left it without a release.
    """

    seq: int
    charge: Charge
    settled: str | None
    lost: bool


def refuse_beyond_declared(charge: Charge, earlier: Sequence[Charge], declared: int) -> None:
    """Raise BudgetExhausted, to keep the study within the composition that it declared before it started."""
    kind = charge.step.partition("/")[0]
    same = [c for c in earlier if (c.plan, c.group, c.step.partition("/")[0]) == (charge.plan, charge.group, kind)]
    if len(same) >= declared or any(c.event != charge.event for c in same):
        raise BudgetExhausted(
            Fault(
                "the study's budget",
                f"declared {declared} releases on group {charge.group}, {len(same)} are spent: 0 more fit",
                "plan a new study; spare attempts are declared as training.spare",
            )
        )


def refuse_beyond(limit: Limit, charge: Charge, asked: Sequence[float], spent: Sequence[float]) -> None:
    """Raise BudgetExhausted where a budget across studies would be exceeded."""
    if not limit.budget.admits(spent, asked):
        left = max(0.0, limit.budget.epsilon - limit.budget.spent_epsilon(spent))
        raise BudgetExhausted(
            Fault(
                limit.name,
                f"has epsilon {left:.3g} of {limit.budget.epsilon:.3g} left for group {charge.group}, "
                f"enough for {limit.budget.runs_left(spent, asked)} more releases like this",
                "ask for a smaller study, or decide on a larger budget in policy.toml",
            )
        )


def spans_of(purpose: str, at: str) -> tuple[str, ...]:
    """Return the spans in which a charge counts: for life, for its purpose, for the year of its entry."""
    return ("life", f"purpose/{purpose}", f"year/{year_of(at)}")


def year_of(at: str) -> int:
    """Return the calendar year of an entry's time."""
    return int(at[:4])


def charge_of(entry: Entry) -> Charge:
    """Return the charge that a "reserve" entry holds; raise LedgerFault where it holds none."""
    body = entry.body
    try:
        return Charge(
            plan=str(body["plan"]),
            purpose=str(body["purpose"]),
            step=str(body["step"]),
            attempt=int(body["attempt"]),
            group=str(body["group"]),
            event=event_from_dict(body["event"]),
            random=str(body["random"]),
            segments=tuple(str(segment) for segment in body.get("segments", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise LedgerFault(Fault(f"entry {entry.seq}", "is not a reservation", "restore the ledger")) from None


def reservation_of(entry: Entry) -> int:
    """Return the reservation that an entry is about."""
    seq = entry.body.get("reserve")
    if not isinstance(seq, int):
        raise LedgerFault(Fault(f"entry {entry.seq}", "names no reservation", "restore the ledger"))
    return seq
