"""The coordinator's part in a match: it relays sealed pieces from partner to partner, and learns no point of them.

Every list goes a way of its own (`MatchTerms.path`), all at once: a partner is asked one thing at a time, so that
while one evaluates, another hands on. Nobody may be missing. Repeated questions have the same answers, so that after an
interruption a list goes on from the last stretch that was finished.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flwr.app import RecordDict

from coterie.clients.matchwire import MATCH, Agree, Asked, Commit, Count, End, Give, Take, encode_match
from coterie.clients.wire import WireFault, decode_release
from coterie.privacy.errors import Fault
from coterie.privacy.matching.channel import Parcel
from coterie.privacy.matching.commitment import Commitment
from coterie.privacy.matching.errors import MatchError
from coterie.privacy.matching.leaving import (
    ManifestAccepted,
    MatchCommitted,
    MatchEnded,
    MatchParcel,
    OverlapCounts,
    ParcelTaken,
)
from coterie.privacy.matching.manifest import Manifest, verified
from coterie.privacy.matching.overlap import Overlap, check_overlap
from coterie.privacy.matching.ways import Stretch, stretches
from coterie.privacy.matchterms import match_terms
from coterie.privacy.overlaps import overlap_file
from coterie.privacy.plan import COUNTS
from coterie.privacy.record import Receipt
from coterie.privacy.release import Matching, release_digest
from coterie.privacy.schedule import COUNTED
from coterie.privacy.schedule import MATCH as MATCH_STEP
from coterie.server.cohort import Cohort
from coterie.server.conduct import Conduct, Seen
from coterie.server.registry import Progress, Refusal, Registry, with_news
from coterie.server.rounds import StudyAborted

__all__ = ["Match"]

M = TypeVar("M", bound=Matching)
_AHEAD = 2  # pieces of a list that wait at the coordinator while their receiver is busy


@dataclass
class _Flight:
    """One list on one stretch of its way.

    Args:
        stretch: From whom to whom.
        count: How many pieces it has.
        asked: Pieces that the sender gave.
        taken: Pieces that the receiver took.
        waiting: Given, and not taken yet.
    """

    stretch: Stretch
    count: int
    asked: int = 0
    taken: int = 0
    waiting: deque[Parcel] = field(default_factory=deque)


class Match:
    """One match over a grid.

    Args:
        conduct: What asks.
        cohort: The partners that consented.
        registry: Where progress is published.
        progress: Where the study stands.
        unless_stopped: Raises where the study was asked to stop.
    """

    def __init__(
        self,
        conduct: Conduct,
        cohort: Cohort,
        registry: Registry,
        progress: Progress,
        unless_stopped: Callable[[], None],
    ) -> None:
        self._conduct, self._cohort, self._registry = conduct, cohort, registry
        self._unless_stopped = unless_stopped
        self._plan = conduct.plan
        self._names = tuple(partner.name for partner in conduct.plan.partners)
        self.progress = progress

    def run(self) -> Progress:
        """Take the match to its end, from wherever it stands.

        Raises:
            StudyAborted: A partner is missing, refused, or sent what is not the protocol's; the fault names it.
        """
        if self.progress.matched:
            return self.progress
        missing = sorted(set(self._names) - set(self._cohort.nodes))
        if missing:
            raise self._aborted(f"needs all partners; no consent of: {', '.join(missing)}")
        if not self.progress.ending:
            self._whole()
        self._ended()
        self._publish(replace(self.progress, matched=self.progress.ending))
        self._conduct.show(Seen("matched", 0))
        return self.progress

    def _whole(self) -> None:
        """Take the match as far as its end: from there on partners have ended, and nothing before is asked again."""
        committed = self._commitments()
        manifest = self._manifest(tuple(one.commitment for one in committed.values()))
        self._relay(manifest)
        counted = self._counted(manifest)
        receipts = [r for one in committed.values() for r in _receipts(one)]
        if counted is not None:
            receipts.append(Receipt(counted.partner, COUNTED, 1, release_digest(counted)))
            self._registry.keep_overlap(overlap_file(counted))
        counts = dict(counted.overlap) if counted else {}
        self._publish(replace(self.progress, ending=manifest.digest, overlap=counts), receipts)

    def _commitments(self) -> dict[str, MatchCommitted]:
        """Collect every partner's list, fixed; ask again where an attempt was lost and the plan has spare ones."""
        found: dict[str, MatchCommitted] = {}
        for attempt in range(1, 2 + self._plan.training.spare):
            asked = dict.fromkeys(set(self._cohort.nodes) - set(found), Commit(self._plan.digest(), attempt))
            found |= self._answers(asked, (MatchCommitted,), needed=False)
            if len(found) == len(self._names):
                return {name: found[name] for name in self._names}
        raise self._aborted(f"has no list of: {', '.join(sorted(set(self._names) - set(found)))}")

    def _manifest(self, commitments: tuple[Commitment, ...]) -> Manifest:
        try:
            manifest = verified(match_terms(self._plan, rules=commitments[0].rules), commitments)
        except MatchError as fault:
            raise self._aborted(f"has a list that is not the plan's: {fault.faults[0]}") from None
        asked = Agree(self._plan.digest(), commitments)
        for name, word in self._answers(dict.fromkeys(self._cohort.nodes, asked), (ManifestAccepted,)).items():
            if word.manifest != manifest.digest:
                raise self._aborted(f"{name} works with other lists than were shown to it")
        return manifest

    def _relay(self, manifest: Manifest) -> None:
        """Take every list along all its way."""
        terms = manifest.terms

        def flight(stretch: Stretch) -> _Flight:
            return _Flight(stretch, terms.chunks(manifest.of(stretch.list).size))

        ways = {name: deque(stretches(terms, name)[self._flown(name) :]) for name in self._names}
        flights = {name: flight(way[0]) for name, way in ways.items() if way}
        while flights:
            self._unless_stopped()
            self._tick(flights)
            for name in [name for name, one in flights.items() if one.taken == one.count]:
                ways[name].popleft()
                self._landed(name)
                del flights[name]
                if ways[name]:
                    flights[name] = flight(ways[name][0])

    def _tick(self, flights: Mapping[str, _Flight]) -> None:
        """Ask every partner at most one thing, and take the answers."""
        plan = self._plan.digest()
        asked: dict[str, tuple[_Flight, Asked]] = {}
        for flight in flights.values():
            sender, receiver = flight.stretch.sender, flight.stretch.receiver
            if flight.waiting and receiver not in asked:
                asked[receiver] = (flight, Take(plan, flight.waiting[0]))
            if flight.asked < flight.count and len(flight.waiting) < _AHEAD and sender not in asked:
                asked[sender] = (flight, Give(plan, flight.stretch.address(flight.asked)))
        answers = self._answers({name: one for name, (_, one) in asked.items()}, (MatchParcel, ParcelTaken))
        for name, answer in answers.items():
            flight, question = asked[name]
            place = f"the list of {flight.stretch.list}"
            if isinstance(answer, MatchParcel) and isinstance(question, Give):
                if answer.parcel.address != question.address or answer.parcel.receiver != flight.stretch.receiver:
                    raise self._aborted(f"{name} gave another piece of {place} than was asked for")
                flight.waiting.append(answer.parcel)
                flight.asked += 1
            elif isinstance(answer, ParcelTaken) and isinstance(question, Take):
                flight.waiting.popleft()
                flight.taken += 1
                self._conduct.show(Seen("relayed", 0, name, f"{place}, piece {flight.taken} of {flight.count}"))
            else:
                raise self._aborted(f"{name} answered something else than was asked, for {place}")

    def _flown(self, name: str) -> int:
        return dict(self.progress.flown).get(name, 0)

    def _landed(self, name: str) -> None:
        flown = dict(self.progress.flown)
        flown[name] = flown.get(name, 0) + 1
        self._publish(replace(self.progress, flown=tuple(sorted(flown.items()))))

    def _publish(self, progress: Progress, receipts: Iterable[Receipt] = ()) -> None:
        self.progress = with_news(progress, self._conduct.refusals, tuple(receipts))
        self._registry.publish(self.progress)

    def _counted(self, manifest: Manifest) -> OverlapCounts | None:
        terms = manifest.terms
        if terms.outcome != COUNTS:
            return None
        counts = self._answers({terms.teller: Count(self._plan.digest())}, (OverlapCounts,))[terms.teller]
        try:
            check_overlap(terms, Overlap.from_dict(counts.overlap))
        except MatchError as fault:
            raise self._aborted(f"got counts that cannot be: {fault.faults[0]}") from None
        return counts

    def _ended(self) -> None:
        """Have everybody keep what came out; tokens that are not of one key are found out here."""
        ended = self._answers(dict.fromkeys(self._cohort.nodes, End(self._plan.digest())), (MatchEnded,))
        if len({word.canaries for word in ended.values()}) > 1:
            raise self._aborted("was evaluated under different keys: what came out is of no use")

    def _answers(self, asked: Mapping[str, Asked], wanted: tuple[type[M], ...], *, needed: bool = True) -> dict[str, M]:
        """Ask, and return each partner's own answer.

        Raises:
            StudyAborted: An answer that is needed did not come, or is not what was asked for.
        """
        contents: dict[str, RecordDict] = {name: encode_match(one) for name, one in asked.items()}
        found: dict[str, M] = {}
        event = self._conduct.mechanisms.overlap
        for name, content in self._conduct.gather(self._cohort, contents, MATCH, (MATCH_STEP, 0)).items():
            try:
                release = decode_release(content, listed=event)
            except WireFault as error:
                self._reject(name, error.faults[0].rule)
                continue
            own = isinstance(release, wanted) and (release.partner, release.plan) == (name, self._plan.digest())
            if not isinstance(release, wanted) or not own:
                self._reject(name, "is of another kind, plan or partner than was asked for")
                continue
            found[name] = release
        missing = sorted(set(asked) - set(found))
        if needed and missing:
            raise self._aborted("; ".join(self._why(name, asked[name]) for name in missing))
        return found

    def _why(self, name: str, asked: Asked) -> str:
        """Say what a partner did not answer, and its last word about it."""
        words = [one.why or one.code for one in self._conduct.refusals if (one.partner, one.step) == (name, MATCH_STEP)]
        what = f"answer to {type(asked).__name__.lower()}"
        if isinstance(asked, Take):
            address = asked.parcel.address
            what = f"take piece {address.index} of the list of {address.list} from {asked.parcel.sender}"
        if isinstance(asked, Give):
            what = f"give piece {asked.address.index} of the list of {asked.address.list}"
        return f"{name} did not {what}: {words[-1] if words else 'silent'}"

    def _reject(self, name: str, rule: str) -> None:
        self._conduct.refusals.append(Refusal(name, MATCH_STEP, 0, "rejected", rule))

    def _aborted(self, rule: str) -> StudyAborted:
        self._publish(self.progress)
        fix = "see reports/refusals.log at the partner; then resume, or plan anew"
        return StudyAborted(Fault("the match", rule, fix))


def _receipts(one: MatchCommitted) -> list[Receipt]:
    """Return receipts for what a charge paid for; a Disclosure is paid by none."""
    if one.event.kind == "nothing":
        return []
    groups = ("holdout", "training")
    digest = release_digest(one)
    return [Receipt(one.partner, f"{MATCH_STEP}/{group}", one.commitment.attempt, digest) for group in groups]
