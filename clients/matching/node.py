"""A partner's answers in a match; the order is that of every release (`clients/node.py`).

commit      the budget is asked, identifiers are opened, the charge is reserved for both customer groups, dummies are
            drawn, the list is made, kept and settled; without noise it is a Disclosure, which the ledger names
agree       the lists of all partners are fixed, once, within the quota of evaluations
take, give  pieces of lists, each once; again with the same bytes
count       by the partner who counts
end         what came out is sealed, and the secrets of the match are destroyed
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, TypeVar

from coterie.clients.agreed import Agreed
from coterie.clients.consent import disclosed
from coterie.clients.identifierrows import IdentifierList
from coterie.clients.matching.ending import keep_outcome
from coterie.clients.matching.lists import final_lists, hand, take
from coterie.clients.matching.making import make_list
from coterie.clients.matching.store import Kept, MatchStore
from coterie.clients.matchwire import Agree, Asked, Commit, End, Give, Take
from coterie.clients.refusals import TaskRefused, refused
from coterie.clients.work import Work
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.charges import Charge
from coterie.privacy.errors import FileFault
from coterie.privacy.events import Nothing
from coterie.privacy.matching.channel import Address
from coterie.privacy.matching.errors import GroupMissing, MatchError, blame
from coterie.privacy.matching.leaving import (
    ManifestAccepted,
    MatchCommitted,
    MatchEnded,
    MatchParcel,
    OverlapCounts,
    ParcelTaken,
)
from coterie.privacy.matching.manifest import Manifest, manifest, settled
from coterie.privacy.matching.overlap import overlap
from coterie.privacy.matching.own import Own, new_secrets
from coterie.privacy.matching.relay import begun
from coterie.privacy.matching.sodium import sodium
from coterie.privacy.matching.tokens import exchange_legs
from coterie.privacy.matching.venn import cells
from coterie.privacy.matchterms import match_terms
from coterie.privacy.plan import COUNTS, ROWS, Matching, Plan
from coterie.privacy.release import Matching as Leaving
from coterie.privacy.release import release_digest
from coterie.privacy.schedule import MATCH

__all__ = ["MatchNode"]

T = TypeVar("T", ParcelTaken, MatchParcel, OverlapCounts, MatchEnded)
_GROUPS = (TRAINING, HOLDOUT)


class MatchNode:
    """One partner's answers in matches.

    Args:
        work: Its workspace at work.
    """

    def __init__(self, work: Work) -> None:
        self._work, self._ledger, self._name = work, work.ledger, work.name

    def answer(self, asked: Asked) -> Leaving:
        """Answer a question of a match.

        Raises:
            TaskRefused: The plan has no match, the question is not one that it has now, or budget, quota, data or
                protocol do not carry it.
        """
        agreed = self._work.agreed(asked.plan)
        if agreed.plan.matching is None:
            raise refused("task", "the plan", "matches nothing", "ask as the plan says")
        with self._protocol():
            if isinstance(asked, Commit):
                return self._commit(agreed, agreed.plan.matching, asked.attempt)
            store = MatchStore(self._work.workspace, asked.plan)
            if isinstance(asked, End):
                return self._end(agreed, store)
            own, kept = self._own(agreed, store)
            if isinstance(asked, Agree):
                return self._agree(agreed, asked, store, (own, kept))
            fixed = self._fixed(own, kept)
            if isinstance(asked, Take):
                return self._take(asked, store, (own, fixed, kept))
            if isinstance(asked, Give):
                return self._give(asked, store, (own, fixed, kept))
            return self._count(store, own, kept)

    def _commit(self, agreed: Agreed, matching: Matching, attempt: int) -> MatchCommitted:
        """Fix the own list, once; a charge that a crash left without one is lost."""
        plan, store = agreed.plan, MatchStore(self._work.workspace, agreed.plan.digest())
        if not 1 <= attempt <= 1 + plan.training.spare or store.ended() is not None:
            raise refused("task", "the list", "is not one that the plan has, or not any more", "ask as the plan says")
        sodium()  # without it nothing can be made, and nothing is to be charged for
        event = agreed.overlap if matching.outcome == COUNTS else None
        if event is None:
            return self._disclosed(agreed, matching, store, attempt)
        charges = [self._work.charge(agreed, f"{MATCH}/{group}", attempt, (group, event)) for group in _GROUPS]
        kept = store.load()
        if kept is not None and kept.commitment.attempt == attempt:
            release = MatchCommitted(kept.commitment, event)
            if self._paid(charges) == {release_digest(release)}:
                return release
        self._in_turn(charges)
        for charge in charges:
            self._work.charging.afford(charge, agreed.policy, agreed.overlaps)
        return self._counted_list(agreed, store, charges)

    def _counted_list(self, agreed: Agreed, store: MatchStore, charges: Sequence[Charge]) -> MatchCommitted:
        """Charge for a list, draw its dummies, and make it."""
        if calibrate(agreed.plan).overlap != agreed.overlap or agreed.overlap is None:
            fix = "work with the version that consented, or have the plan proposed anew"
            raise refused("fault", "the match", "has other noise today than was charged when it was consented to", fix)
        identifiers = self._work.open_identifiers(agreed)
        rows = self._work.keep(charges[0], identifiers.counts)
        reserve = self._work.charging.reserve
        held = [reserve(charge, agreed.policy, agreed.overlaps, rows=rows) for charge in charges]
        kept = self._make(agreed.plan, store, identifiers, charges[0])
        release = MatchCommitted(kept.commitment, agreed.overlap)
        for reservation in held:
            self._ledger.settle(reservation, release_digest(release))
        return release

    def _disclosed(self, agreed: Agreed, matching: Matching, store: MatchStore, attempt: int) -> MatchCommitted:
        """Make a list without noise; the ledger names it before it leaves."""
        plan, kept = agreed.plan, store.load()
        about = self._work.charge(agreed, f"{MATCH}/disclosure", attempt, (TRAINING, Nothing()))
        if kept is None:
            if any(entry.body["plan"] == plan.digest() for entry in self._ledger.entries("disclosure")):
                raise _older()
            self._within_year(agreed)
            kept = self._make(plan, store, self._work.open_identifiers(agreed), about)
        release = MatchCommitted(kept.commitment, Nothing())
        if not self._ledger.paid_for(release_digest(release)):
            self._within_year(agreed)  # again: after a crash, other plans may have come between
            body: dict[str, Any] = {"plan": plan.digest(), "purpose": plan.purpose, "outcome": matching.outcome}
            body |= {"identifier": matching.identifier, "partners": [one.name for one in plan.partners]}
            rows = self._work.keep(about, {"items": kept.items, "points": kept.commitment.size})
            self._ledger.record("disclosure", {**body, "release": release_digest(release), "rows": rows})
        return release

    def _within_year(self, agreed: Agreed) -> None:
        """Hold a match without noise to the policy's disclosures of a year."""
        rules = agreed.policy.matching
        if rules is None or disclosed(self._ledger, apart=agreed.plan.digest()) >= rules.disclosures:
            fix = "wait for another year, or decide on more in matching.disclosures"
            raise refused("quota", "the match", "is a disclosure beyond those of a year", fix)

    def _make(self, plan: Plan, store: MatchStore, identifiers: IdentifierList, charge: Charge) -> Kept:
        stream = self._work.random.stream(f"{self._name}/{charge.key}")
        terms = match_terms(plan, rules=identifiers.version)
        own = Own(self._name, self._work.workspace.identity, terms, new_secrets(terms, stream))
        store.begin()
        return make_list(store, own, identifiers, attempt=charge.attempt, stream=stream)

    def _agree(self, agreed: Agreed, asked: Agree, store: MatchStore, at: tuple[Own, Kept]) -> ManifestAccepted:
        """Fix the lists of all partners, once, within the quota of evaluations."""
        own, kept = at
        fixed = manifest(own, kept.commitment, commitments=asked.commitments)
        before = [e.body for e in self._ledger.entries("manifest") if e.body["plan"] == asked.plan]
        settled(fixed, str(before[-1]["manifest"]) if before else "")
        release, asks = ManifestAccepted(asked.plan, self._name, fixed.digest), fixed.evaluations(self._name)
        if not before:
            self._within_quota(agreed, asks)
            body = {"plan": asked.plan, "manifest": fixed.digest, "evaluations": asks}
            self._ledger.record("manifest", {**body, "release": release_digest(release)})
        if not kept.manifest:
            legs = begun(own, fixed) + (exchange_legs(own, fixed) if own.terms.outcome == ROWS else ())
            store.save(replace(kept, manifest=fixed.commitments, legs=legs))
        return release

    def _within_quota(self, agreed: Agreed, asks: int) -> None:
        """Hold what a match asks for to the policy's evaluations of a year: each is a guess at a customer."""
        year, rules = f"{self._ledger.year}-", agreed.policy.matching
        made = sum(int(e.body["evaluations"]) for e in self._ledger.entries("manifest") if e.at.startswith(year))
        if rules is None or made + asks > rules.evaluations:
            most = rules.evaluations if rules else 0
            rule = f"asks for {asks} evaluations after {made} of this year, beyond the {most} of matching.evaluations"
            raise refused("quota", "the match", rule, "wait for another year, or decide on more")

    def _take(self, asked: Take, store: MatchStore, at: tuple[Own, Manifest, Kept]) -> ParcelTaken:
        own, fixed, kept = at
        points = take(store, own, fixed, kept=kept, parcel=asked.parcel)
        where = asked.parcel.address
        release = ParcelTaken(asked.plan, self._name, where.list, where.hop, where.index, where.towards)
        return self._told(release, where, {"points": points})

    def _give(self, asked: Give, store: MatchStore, at: tuple[Own, Manifest, Kept]) -> MatchParcel:
        own, fixed, kept = at
        stream = self._work.random.stream(f"{self._name}/{asked.plan}/{asdict(asked.address)}")
        parcel = hand(store, own, fixed, kept=kept, address=asked.address, stream=stream)
        return self._told(MatchParcel(parcel), asked.address, {})

    def _count(self, store: MatchStore, own: Own, kept: Kept) -> OverlapCounts:
        """Count, as the partner whom the plan names; of what depends on noise, nothing is refused."""
        if own.terms.outcome != COUNTS or own.terms.teller != self._name:
            raise refused("task", "the task", "is not one that the plan has for this partner", "ask as the plan says")
        lists = final_lists(store, own, kept)
        missing = sorted(set(own.terms.names) - set(lists))
        if missing:
            raise blame("", f"asks for counts before the lists of {', '.join(missing)} are whole")
        found = overlap(own.terms, cells(lists, own.terms.names))
        return self._told(OverlapCounts(own.terms.plan, self._name, found.to_dict()), None, {})

    def _end(self, agreed: Agreed, store: MatchStore) -> MatchEnded:
        plan, before = agreed.plan.digest(), store.ended()
        if before is None:
            own, kept = self._own(agreed, store)
            fixed = self._fixed(own, kept)
            self._counted_first(own)
            before = keep_outcome(self._work, agreed, store, own=own, manifest=fixed, kept=kept)
        store.end(before)
        return self._told(MatchEnded(plan, self._name, before), None, {})

    def _counted_first(self, own: Own) -> None:
        """Refuse to destroy what is to be counted: it would have been paid for in vain."""
        if own.terms.outcome == COUNTS and own.terms.teller == self._name:
            told = self._ledger.entries("match")
            if not any((e.body["plan"], e.body["what"]) == (own.terms.plan, OverlapCounts.kind) for e in told):
                raise blame("", "asks for the end of a match before it was counted")

    def _own(self, agreed: Agreed, store: MatchStore) -> tuple[Own, Kept]:
        kept = store.load()
        if kept is None:
            raise refused("match", "the match", "has no list of this partner", "ask for it first")
        terms = match_terms(agreed.plan, rules=kept.commitment.rules)
        return Own(self._name, self._work.workspace.identity, terms, kept.secrets), kept

    def _fixed(self, own: Own, kept: Kept) -> Manifest:
        if not kept.manifest:
            raise blame("", "asks before the lists of all partners are fixed")
        return Manifest(own.terms, kept.manifest)

    def _in_turn(self, charges: Sequence[Charge]) -> None:
        """Refuse an attempt that was lost, or follows no lost one; it is, unless both groups paid for its list."""
        steps, attempt = {charge.step for charge in charges}, charges[0].attempt
        paid: dict[int, int] = {}
        for held in self._ledger.charges_of(charges[0].plan):
            if held.charge.step in steps:
                paid[held.charge.attempt] = paid.get(held.charge.attempt, 0) + (held.settled is not None)
        if attempt in paid:
            raise refused("lost", f"{MATCH} {attempt}", "was lost in a crash", "declare spare attempts in the plan")
        if len(steps) in paid.values() or set(paid) != set(range(1, attempt)):
            raise refused("task", "the task's attempt", "follows no lost one", "ask for the first attempt")

    def _paid(self, charges: Sequence[Charge]) -> set[str | None]:
        """Return what some charges paid for; None stands for nothing."""
        held = {r.charge.key: r.settled for r in self._ledger.charges_of(charges[0].plan)}
        return {held.get(charge.key) for charge in charges}

    def _told(self, release: T, where: Address | None, more: Mapping[str, int]) -> T:
        """Write down, once, that a message leaves; never another one in its place."""
        digest = release_digest(release)
        if self._ledger.paid_for(digest):
            return release
        place = {"list": where.list, "hop": where.hop, "index": where.index} if where else {}
        place |= {"towards": where.towards} if where and where.towards else {}
        about = {"plan": release.plan, "what": release.kind, **place}
        if any(about.items() <= _plain(e.body).items() for e in self._ledger.entries("match")):
            raise _older()
        self._ledger.record("match", {"release": digest, **about, **more})
        return release

    @contextmanager
    def _protocol(self) -> Iterator[None]:
        """Turn what the protocol refuses into the one word that leaves; who is to blame is noted for the operator."""
        try:
            yield
        except (GroupMissing, FileFault) as error:
            raise TaskRefused("fault", *error.faults) from None
        except MatchError as error:
            self._work.notes.write("refusals.log", error.faults)
            raise TaskRefused("match", *error.faults) from None


def _older() -> TaskRefused:
    return refused("match", "the match's state", "is older than the ledger", "ask for another epoch")


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if isinstance(value, str | int)}
