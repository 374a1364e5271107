"""The coordinator's part in secure sums: it relays, checks and opens, and learns sums over the cohort alone.

An epoch is two round trips, a sum three: vectors, signatures under the list of survivors, shares. Whoever stays silent
or sends what is not the protocol's is out until the next epoch, by name; the sum goes on with the others while they are
enough. One call makes one sum, of whatever adds up.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from flwr.app import RecordDict

from coterie.clients.sumwire import (
    DEAL,
    KEYS,
    REVEAL,
    SIGN,
    encode_deal,
    encode_keys,
    encode_reveal,
    encode_sign,
    encode_sum,
)
from coterie.clients.task import DealAsked, KeysAsked, RevealAsked, SignAsked, SumTask
from coterie.clients.wire import EVALUATE, TRAIN, WireFault, decode_release
from coterie.models.propensity import Weights
from coterie.privacy import schedule
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.record import Receipt
from coterie.privacy.release import Release, release_digest, weights_digest
from coterie.privacy.secagg import opening
from coterie.privacy.secagg.epoch import LEAST, Epoch
from coterie.privacy.secagg.errors import PeerFault
from coterie.privacy.secagg.messages import DealtShares, MaskedVector, RevealedShares, RoundKeys, SurvivorsSigned
from coterie.privacy.secagg.transcript import MaskTask, claim_of
from coterie.privacy.sums import epoch_of
from coterie.server.cohort import Cohort
from coterie.server.conduct import Conduct
from coterie.server.registry import Refusal

__all__ = ["SecureSums", "SumFailed"]

M = TypeVar("M", RoundKeys, DealtShares, MaskedVector, SurvivorsSigned, RevealedShares)


class SumFailed(CoterieError):
    """Too few partners brought a set-up or a sum to its end; what was sent stays charged, and nothing is opened."""


class SecureSums:
    """One epoch of secure sums over a grid.

    Args:
        conduct: What asks.
        cohort: The partners that consented.
        number: Which epoch of the study.
        steps: The sums that it is for.
        round_: The round at work, for what is written down.
    """

    def __init__(self, conduct: Conduct, cohort: Cohort, *, number: int, steps: tuple[str, ...], round_: int) -> None:
        self._conduct, self._cohort, self._round = conduct, cohort, round_
        self._epoch: Epoch = epoch_of(conduct.plan, number, steps)
        self._alive = tuple(sorted(cohort.nodes))
        self._keys: tuple[RoundKeys, ...] = ()
        self._dealt: tuple[DealtShares, ...] = ()
        self._told: set[str] = set()
        self.receipts: list[Receipt] = []

    def set_up(self) -> None:
        """Collect keys and shares.

        Raises:
            SumFailed: From fewer partners than the threshold.
        """
        plan, number, steps = self._epoch.plan, self._epoch.number, self._epoch.steps
        asked = encode_keys(KeysAsked(plan, number, steps))
        keys = self._answers(KEYS, dict.fromkeys(self._alive, asked), RoundKeys, self._keys_right)
        self._keys = tuple(keys[name] for name in sorted(keys))
        self._enough(keys, "keys")
        listed = opening.key_list_digest(self._keys)

        def right(message: DealtShares) -> None:
            opening.check_dealt(self._epoch, message, keys=listed, holders=len(self._keys))

        content = encode_deal(DealAsked(plan, number, self._keys))
        dealt = self._answers(DEAL, dict.fromkeys(keys, content), DealtShares, right)
        self._dealt = tuple(dealt[name] for name in sorted(dealt))
        self._enough(dealt, "shares")
        self._alive = tuple(sorted(dealt))

    def leave_out(self, partners: set[str]) -> None:
        """Go on without partners that dropped out of an earlier sum of this epoch."""
        self._alive = tuple(name for name in self._alive if name not in partners)

    def total(
        self, step: str, attempt: int, weights: Weights, *, size: int, event: DistributedGaussian
    ) -> opening.Opened:
        """Make one sum over the partners that are still in the epoch.

        Args:
            step: One of the epoch's.
            attempt: 1, or more after one that was not opened.
            weights: The model that it is about.
            size: How many coordinates the sum has.
            event: What every vector of it costs.

        Raises:
            SumFailed: Too few partners took part to the end.
        """
        task = MaskTask(step, attempt, weights_digest(weights), self._alive)
        masked = self._masked(task, weights, size=size, event=event)
        self._alive = tuple(sorted(masked))
        self._enough(masked, "vectors")
        revealed = self._revealed(task, masked)
        self._enough(revealed, "shares that open it")
        try:
            opened = opening.open_sum(self._epoch, self._keys, self._dealt, masked, revealed, task.cohort)
        except PeerFault as fault:
            self._blame(fault, "reveal")
            raise _failed(step, "could not be opened") from None
        for one in opened.blamed:
            self._blame(one, "reveal")
        self.receipts += [Receipt(n, step, attempt, release_digest(message)) for n, message in sorted(masked.items())]
        return opened

    def _masked(
        self, task: MaskTask, weights: Weights, *, size: int, event: DistributedGaussian
    ) -> dict[str, MaskedVector]:
        plan, number = self._epoch.plan, self._epoch.number

        def content(partner: str) -> RecordDict:
            dealt = () if partner in self._told else self._dealt
            return encode_sum(SumTask(plan, task.step, task.attempt, weights, number, task.cohort, dealt))

        def right(message: MaskedVector) -> None:
            opening.check_masked(self._epoch, task, message, size=size)

        kind = EVALUATE if task.step.startswith(f"{schedule.EVALUATE}/") else TRAIN
        asked = {partner: content(partner) for partner in task.cohort}
        masked = self._answers(kind, asked, MaskedVector, right, event=event)
        self._told |= set(masked)
        return masked

    def _revealed(self, task: MaskTask, masked: Mapping[str, MaskedVector]) -> dict[str, RevealedShares]:
        """Have the survivors agree on who survived, and then reveal what opens their sum."""
        plan, number = self._epoch.plan, self._epoch.number
        claims = tuple(claim_of(masked[name]) for name in sorted(masked))
        vectors = {claim.partner: claim.vector for claim in claims}
        listed = opening.key_list_digest(self._keys)
        transcript = opening.transcript_digest(self._epoch, task, keys=listed, survivors=vectors)

        def right_word(message: SurvivorsSigned) -> None:
            opening.check_signed(self._epoch, task, message, transcript=transcript)

        def right_shares(message: RevealedShares) -> None:
            opening.check_revealed(self._epoch, task, message, transcript=transcript)

        content = encode_sign(SignAsked(plan, number, claims))
        signed = self._answers(SIGN, dict.fromkeys(masked, content), SurvivorsSigned, right_word)
        self._enough(signed, "signatures")
        content = encode_reveal(RevealAsked(plan, number, tuple(signed[name] for name in sorted(signed))))
        return self._answers(REVEAL, dict.fromkeys(signed, content), RevealedShares, right_shares)

    def _keys_right(self, message: RoundKeys) -> None:
        opening.check_keys(self._epoch, message)

    def _answers(
        self,
        kind: str,
        asked: Mapping[str, RecordDict],
        wanted: type[M],
        right: Callable[[M], None],
        *,
        event: DistributedGaussian | None = None,
    ) -> dict[str, M]:
        """Ask, and keep what is each partner's own right answer; write down whose is not."""
        label = kind.removeprefix("query.")
        found: dict[str, M] = {}
        for partner, content in self._conduct.gather(self._cohort, asked, kind, (label, self._round)).items():
            try:
                release: Release = decode_release(content, summed=event)
                if not isinstance(release, wanted) or release.partner != partner:
                    raise WireFault(Fault("the reply", "is of another kind, or another partner's", "see its version"))
                right(release)
            except (WireFault, PeerFault) as error:
                refusal = Refusal(partner, label, self._round, "rejected", error.faults[0].rule)
                self._conduct.refusals.append(refusal)
                continue
            found[partner] = release
        return found

    def _enough(self, found: Mapping[str, object], what: str) -> None:
        if len(found) < max(self._epoch.threshold, LEAST):
            missing = ", ".join(sorted(set(self._cohort.nodes) - set(found))) or "nobody"
            raise _failed(f"epoch {self._epoch.number}", f"has too few {what}; missing: {missing}")

    def _blame(self, fault: PeerFault, label: str) -> None:
        partner = fault.partner or "the coordinator"
        self._conduct.refusals.append(Refusal(partner, label, self._round, "rejected", fault.faults[0].rule))


def _failed(place: str, rule: str) -> SumFailed:
    return SumFailed(Fault(place, rule, "it is tried anew while the plan has spare attempts"))
