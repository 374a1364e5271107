"""Matches as one partner's ledger tells them: what was paid or permitted, which lists were fixed, what was handed on.

A ledger cannot show that points were multiplied by the right key, or which identifiers a list held. It can show that
a list was paid for in both groups of customers, or permitted as a Disclosure, before the lists of all were fixed; that
they were fixed once, for ever; that nothing was handed on before; and that the policy's quotas of a year were kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.charges import Charge, Entry, year_of
from coterie.privacy.plan import COUNTS, Matching, Plan
from coterie.privacy.policy import MatchRules, Policy
from coterie.privacy.review.consents import Consented, release_name
from coterie.privacy.review.matched import Disclosed, Matched
from coterie.privacy.schedule import COUNTED, MATCH

__all__ = ["KINDS", "Matches"]

KINDS = frozenset({"disclosure", "manifest", "match"})
"""Kinds of entries that only a match writes."""

TAKEN, PARCEL, COUNTS_TOLD, ENDED = "parcel-taken", "match-parcel", "overlap-counts", "match-ended"

_GROUPS = (TRAINING, HOLDOUT)
_PIECES = frozenset({TAKEN, PARCEL})
_WHERE = ("list", "hop", "index")


@dataclass
class _Match:
    """One study's match while its ledger is read.

    Args:
        paid: What each group's settled charge of an attempt paid for.
        shown: Releases that were disclosed.
        manifest: The lists that were accepted; None before.
        pieces: Release of each piece, by what was done with it, its list, hop, index, and towards whom.
        points: Points of others that were evaluated, by list and index.
        counts: The release of noisy counts; "" before.
        ended: Whether the partner says that its secrets are destroyed.
    """

    paid: dict[int, dict[str, bytes]] = field(default_factory=dict)
    shown: set[bytes] = field(default_factory=set)
    manifest: Entry | None = None
    pieces: dict[tuple[str, str, int, int, str], str] = field(default_factory=dict)
    points: dict[tuple[str, int], int] = field(default_factory=dict)
    counts: str = ""
    ended: bool = False

    @property
    def evaluated(self) -> int:
        """How many points of others were evaluated."""
        return sum(self.points.values())

    @property
    def listed(self) -> bool:
        """Whether a list of the partner's own was disclosed, or one release of it was paid for in both groups."""
        whole = (paid for paid in self.paid.values() if set(paid) == set(_GROUPS))
        return bool(self.shown) or any(len(set(paid.values())) == 1 for paid in whole)


class Matches:
    """The matches of a ledger while it is read.

    Args:
        name: The partner's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._known: dict[str, _Match] = {}
        self._years: dict[int, set[str]] = {}  # plans that disclosed something, by year
        self._evaluations: dict[int, int] = {}
        self.disclosures: list[Disclosed] = []

    @property
    def any(self) -> bool:
        """Whether the ledger tells of any match."""
        return bool(self._known)

    def of(self, plan: str) -> Matched | None:
        """Return what the ledger tells of a study's match; None where it tells nothing."""
        found = self._known.get(plan)
        if found is None:
            return None
        entry = found.manifest
        return Matched(
            manifest=str(entry.body["manifest"]) if entry else "",
            entry=entry.seq if entry else 0,
            evaluations=int(entry.body["evaluations"]) if entry else 0,
            evaluated=found.evaluated,
            parcels=sum(place[0] == PARCEL for place in found.pieces),
            counts=bool(found.counts),
            ended=found.ended,
        )

    def released(self, plan: str) -> frozenset[tuple[str, bytes]]:
        """Return (step, name of the release) of all that a match may have sent beside what its charges paid for."""
        found = self._known.get(plan)
        if found is None:
            return frozenset()
        steps = {(f"{MATCH}/{group}", name) for group in _GROUPS for name in found.shown}
        return frozenset(steps | ({(COUNTED, release_name(found.counts))} if found.counts else set()))

    def settled(self, charge: Charge, release: str) -> list[str]:
        """Take note of a settled charge, and return what is wrong with it: one list is paid for by both groups."""
        if charge.step.partition("/")[0] != MATCH:
            return []
        paid = self._match(charge.plan).paid.setdefault(charge.attempt, {})
        paid[charge.group] = release_name(release)
        return ["pays for another list than the charge to the other group"] if len(set(paid.values())) > 1 else []

    def take(self, entry: Entry, study: Consented | None, policy: Policy | None) -> list[str]:
        """Read an entry of one of `KINDS`, and return what is wrong with it.

        Args:
            entry: The entry.
            study: The study that it names, or None where nobody consented to one.
            policy: What is in force, or None where that is not known.
        """
        found = self._match(str(entry.body["plan"]))
        rules = policy.matching if policy else None
        if entry.kind == "disclosure":
            faults = self._disclosure(entry, found, study=study, rules=rules)
        elif entry.kind == "manifest":
            faults = self._manifest(entry, found, rules=rules)
        else:
            faults = self._message(entry, found, study=study)
        if study is None:
            return ["is about a match that was never consented to", *faults]
        if study.plan is not None and study.plan.matching is None:
            faults.append("is about a match that the plan does not have")
        if entry.at[:10] > study.body["expires"]:
            faults.append("goes on with a match after the plan had expired")
        return faults

    def left(self, open_: Mapping[int, Charge]) -> list[tuple[str, str]]:
        """Return (plan, what is wrong) of lists that left while one group of customers paid for them.

        Args:
            open_: Charges that are open at the end of the ledger.
        """
        waiting = {(charge.plan, charge.attempt) for charge in open_.values()}
        says = "a list for a match was paid for by one group of customers alone"
        return [
            (plan, says)
            for plan, found in self._known.items()
            for attempt, paid in found.paid.items()
            if len(paid) == 1 and (plan, attempt) not in waiting
        ]

    def _match(self, plan: str) -> _Match:
        return self._known.setdefault(plan, _Match())

    def _disclosure(
        self, entry: Entry, found: _Match, *, study: Consented | None, rules: MatchRules | None
    ) -> list[str]:
        body, faults, year = entry.body, list[str](), year_of(entry.at)
        known = study.body if study else {}
        one = (str(body["outcome"]), str(body["identifier"]), tuple(str(name) for name in body["partners"]))
        name, purpose = str(known.get("name", "")), str(body["purpose"])
        self.disclosures.append(Disclosed(entry.seq, entry.at, str(body["plan"]), name, purpose, *one))
        if rules is None or one[0] not in rules.outcomes or one[1] not in rules.identifiers:
            faults.append("discloses customers without the permit of the policy in force")
        if purpose != known.get("purpose", purpose) or (study and self._other(study, one)):
            faults.append("discloses something else, or to others, than the plan says")
        plans = self._years.setdefault(year, set())
        plans.add(str(body["plan"]))
        if rules is not None and len(plans) > rules.disclosures:
            faults.append("discloses more matches in a year than the policy permits")
        shown = release_name(str(body["release"]))
        if found.manifest is not None and shown not in found.shown:
            faults.append("discloses another list after the lists of the match were fixed")
        found.shown.add(shown)
        return faults

    def _manifest(self, entry: Entry, found: _Match, *, rules: MatchRules | None) -> list[str]:
        body, faults, year = entry.body, list[str](), year_of(entry.at)
        if found.manifest is not None:
            same = found.manifest.body == body  # a reply that was made again after a crash, byte for byte
            return [] if same else ["accepts other lists for a match whose lists were fixed before"]
        found.manifest = entry
        if not found.listed:
            faults.append("accepts the lists of a match before its own was paid for by both groups, or disclosed")
        self._evaluations[year] = self._evaluations.get(year, 0) + int(body["evaluations"])
        if rules is None or self._evaluations[year] > rules.evaluations:
            faults.append("takes on more evaluations in a year than the policy permits")
        return faults

    def _message(self, entry: Entry, found: _Match, *, study: Consented | None) -> list[str]:
        body, plan = entry.body, study.plan if study else None
        faults = [] if found.manifest else ["goes on with a match whose lists it had not accepted"]
        if body["what"] in _PIECES:
            return [*faults, *self._piece(entry, found, plan=plan)]
        if any(name in body for name in (*_WHERE, "towards", "points")):
            faults.append("tells of a piece of a list where there is none")
        if body["what"] == COUNTS_TOLD:
            if plan is not None and plan.matching is not None and not self._counts(plan, plan.matching):
                faults.append("releases counts of a match that it was not to count")
            if found.counts not in {"", body["release"]}:
                faults.append("releases counts of a match a second time")
            found.counts = found.counts or str(body["release"])
        found.ended |= body["what"] == ENDED
        return faults

    def _piece(self, entry: Entry, found: _Match, *, plan: Plan | None) -> list[str]:
        body, faults = entry.body, list[str]()
        if not all(name in body for name in _WHERE):
            return ["takes or hands on a piece of a list without saying which"]
        whose, index = str(body["list"]), int(body["index"])
        if plan is not None and whose not in {partner.name for partner in plan.partners}:
            faults.append("takes or hands on a list of somebody who is not in the roster")
        place = (str(body["what"]), whose, int(body["hop"]), index, str(body.get("towards", "")))
        known = found.pieces.setdefault(place, str(body["release"]))
        if known != body["release"]:
            faults.append("takes or hands on one piece of a list a second time, as another one")
        if found.ended:
            faults.append("takes or hands on a piece of a list after its secrets were said to be destroyed")
        if body["what"] == TAKEN and whose != self._name:  # once: who counts may take a piece it evaluated once more
            points = found.points.setdefault((whose, index), int(body.get("points", 0)))
            found.points[whose, index] = max(points, int(body.get("points", 0)))
        if found.manifest is not None and found.evaluated > found.manifest.body["evaluations"]:
            faults.append("evaluates more points than the lists have that it accepted")
        return faults

    def _counts(self, plan: Plan, matching: Matching) -> bool:
        """Return whether this partner is the one that counts."""
        return matching.outcome == COUNTS and self._name == (matching.teller or plan.partners[0].name)

    def _other(self, study: Consented, told: tuple[str, str, tuple[str, ...]]) -> bool:
        """Return whether a disclosure is other than the plan's; nobody can tell where the plan is not known."""
        outcome, identifier, partners = told
        if study.plan is None:
            return False
        matching, roster = study.plan.matching, {partner.name for partner in study.plan.partners}
        asked = (matching.outcome, matching.identifier) if matching else ("", "")
        return asked != (outcome, identifier) or set(partners) != roster
