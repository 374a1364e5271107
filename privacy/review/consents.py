"""Consents and charges held against the signed plan: what a study may do, and whether it did nothing else."""

import datetime
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from coterie.privacy.calibration import HOLDOUT, NO_HISTOGRAM, NO_UPDATE, TRAINING
from coterie.privacy.canonical import digest
from coterie.privacy.charges import Charge, Entry
from coterie.privacy.compliance import breaches, misplaced
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, PoissonGaussian, event_from_dict
from coterie.privacy.plan import COUNTS, SECURE, Plan
from coterie.privacy.policy import Policy
from coterie.privacy.review.divergence import direct_curve
from coterie.privacy.review.openings import Sums
from coterie.privacy.schedule import COUNT, EVALUATE, MATCH, TRAIN, countings, round_of, summed, trainings

__all__ = ["Consented", "Unit", "charge_faults", "consent_faults", "curve_faults", "declared_events", "release_name"]

_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_GROUPS = {COUNT: TRAINING, TRAIN: TRAINING, EVALUATE: HOLDOUT}
_PLACES = {COUNT: 1, TRAIN: 0, EVALUATE: 0, MATCH: -1}  # of a step's event among its group's


@dataclass
class Consented:
    """A study as the replay knows it.

    Args:
        entry: Entry of the first consent.
        at: Its time.
        body: Its body.
        plan: The plan, once its signature was checked; None where the bundle lacks it.
        events: What may be charged to each group, and how many times; updates and histograms come first, lists for a
            match last.
        charged: What was charged, by group.
        made: How many charges of each kind of step: two kinds may have one event.
        keys: (step, attempt) of every charge.
        ends: How many charges were settled and lost.
        settled: (step, attempt, `release_name` of the release) of settled charges.
        paid: (step, attempt) of settled charges.
        sums: Its secure sums; none under another trust.
        sound: Whether plan and policy permit all that was consented to.
    """

    entry: int
    at: str
    body: dict[str, Any]
    plan: Plan | None
    events: dict[str, tuple[tuple[Event, int], ...]]
    charged: dict[str, Counter[Event]] = field(default_factory=lambda: {TRAINING: Counter(), HOLDOUT: Counter()})
    made: Counter[str] = field(default_factory=Counter)
    keys: set[tuple[str, int]] = field(default_factory=set)
    ends: Counter[str] = field(default_factory=Counter)
    settled: set[tuple[str, int, bytes]] = field(default_factory=set)
    paid: set[tuple[str, int]] = field(default_factory=set)
    sums: Sums = field(default_factory=Sums)
    sound: bool = True

    def took(self, charge: Charge) -> None:
        """Write down that the study charged."""
        self.keys.add((charge.step, charge.attempt))
        self.sums.reserved(charge)
        self.charged.setdefault(charge.group, Counter())[charge.event] += 1
        self.made[_kind(charge.step)] += 1


def _kind(step: str) -> str:
    """Return what a step is counted as: each group pays for a list of a match by itself."""
    kind = step.partition("/")[0]
    return step if kind == MATCH else kind


class Unit:
    """The unit of privacy that all consents rest on: the first one fixes it for life."""

    def __init__(self) -> None:
        self._column = self._division = ""

    def faults(self, body: Mapping[str, Any]) -> list[str]:
        """Return how the next consent's unit differs from that of those before."""
        column, division, faults = str(body["customer"]), str(body.get("division", "")), []
        if column != (self._column or column):
            faults.append("has another unit of privacy than the first consent")
        if division and division != (self._division or division):
            faults.append("divides customers otherwise than an earlier consent")
        self._column, self._division = self._column or column, self._division or division
        return faults


def release_name(digest: str) -> bytes:
    """Return the first 16 bytes of a release's digest: enough to name it, in a tenth of the memory."""
    try:
        return bytes.fromhex(digest.removeprefix("sha256:")[:32])
    except ValueError:  # a coordinator's word, which is compared and nothing else
        return digest.encode()


def declared_events(body: Mapping[str, Any]) -> dict[str, tuple[tuple[Event, int], ...]]:
    """Return what a consent lets a study charge to each group, and how many times."""
    trained = [(event_from_dict(body["update"]), int(body["updates"]))]
    if "counting" in body:
        trained.append((event_from_dict(body["counting"]), int(body.get("countings", 0))))
    held_out = [(event_from_dict(body["histogram"]), int(body["histograms"]))]
    if "overlap" in body:  # one list is about the customers of both groups
        listed = (event_from_dict(body["overlap"]), int(body.get("overlaps", 0)))
        trained, held_out = [*trained, listed], [*held_out, listed]
    return {TRAINING: tuple(trained), HOLDOUT: tuple(held_out)}


def consent_faults(entry: Entry, plan: Plan, policy: Policy, *, partner: tuple[str, str]) -> list[str]:
    """Return what a consent says or does that plan and policy do not.

    Args:
        entry: The consent.
        plan: Its plan, whose signature was checked.
        policy: The policy that it names.
        partner: Name and public key of the ledger's partner.
    """
    body, contract, cohort = entry.body, plan.contract, plan.cohort
    day = datetime.date.fromisoformat(entry.at[:10])
    reasons = [*misplaced(plan, *partner, day), *breaches(plan, policy, partner[0])]
    faults = [f"the policy did not permit the plan ({reason.code})" for reason in reasons]
    told = (body["name"], body["purpose"], body["customer"], body["contract"], body["expires"])
    if told != (plan.name, plan.purpose, contract.customer, contract.digest(), plan.expires.isoformat()):
        faults.append("says something else of the plan than the plan does")
    if tuple(body.get("segments", ())) != (cohort.segments or ()):
        faults.append("names other segments than the plan does")
    division = digest(asdict(policy.segments)) if policy.segments and cohort.segments else None
    if body.get("division") != division:
        faults.append("divides customers otherwise than the policy does")
    return [*faults, *_mechanism_faults(body, plan)]


def _mechanism_faults(body: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return how the declared mechanisms differ from the plan's, but for their noise, which needs an accountant."""
    update, histogram = event_from_dict(body["update"]), event_from_dict(body["histogram"])
    counting = event_from_dict(body["counting"]) if "counting" in body else None
    training, privacy, faults = plan.training, plan.privacy, _match_faults(body, plan)
    if plan.matches:
        return faults
    steps = 1 if summed(plan) else training.local_steps
    if not _of_trust(privacy.trust, update, histogram, counting):
        faults.append("declares other mechanisms than the plan has")
    elif _told(update, counting, histogram) != (
        *(training.sample_rate, steps),
        *((1.0, 1) if counting is not None else ()),
        *((1.0, 1) if privacy.trust == SECURE else (1,)),
    ):
        faults.append("declares another sample rate or other steps than the plan has")
    shares = {event.shares for event in (update, histogram, counting) if isinstance(event, DistributedGaussian)}
    if shares - {privacy.threshold - privacy.colluders}:
        faults.append("counts on the noise of other than the plan's threshold less its colluders")
    counted = countings(plan) + training.spare if countings(plan) else 0
    if (counting is not None, int(body.get("countings", 0))) != (counted > 0, counted):
        faults.append("declares another number of counts of items than the plan has, with spare attempts")
    if int(body["updates"]) != trainings(plan) + training.spare:
        faults.append("declares another number of updates than the plan has rounds and spare attempts")
    if int(body["histograms"]) != len(plan.metrics.rounds) + training.spare:
        faults.append("declares another number of histograms than the plan has measured rounds and spare attempts")
    return faults


def _match_faults(body: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return how what a consent declares of a match differs from the plan."""
    counted = plan.matches and plan.matching is not None and plan.matching.outcome == COUNTS
    overlap = event_from_dict(body["overlap"]) if "overlap" in body else None
    right = isinstance(overlap, DiscreteGaussian) and overlap.count == 1 if counted else overlap is None
    faults = [] if right else ["declares another mechanism for its match than the plan has"]
    if int(body.get("overlaps", 0)) != (1 + plan.training.spare if counted else 0):
        faults.append("declares another number of lists for a match than the plan has, with spare attempts")
    told = (event_from_dict(body["update"]), event_from_dict(body["histogram"]), "counting" in body)
    none = (int(body["updates"]), int(body["histograms"])) == (0, 0)
    if plan.matches and (told != (NO_UPDATE, NO_HISTOGRAM, False) or not none):
        faults.append("declares updates or histograms for a plan that trains nothing")
    return faults


def _of_trust(trust: str, update: Event, histogram: Event, counting: Event | None) -> bool:
    """Return whether events are of the kinds that a trust has."""
    if trust == SECURE:
        summed_kinds = (update, histogram, *([counting] if counting is not None else []))
        return all(isinstance(event, DistributedGaussian) for event in summed_kinds)
    own = isinstance(update, PoissonGaussian) and isinstance(histogram, DiscreteGaussian)
    return own and isinstance(counting, PoissonGaussian | None)


def _told(*events: Event | None) -> tuple[float, ...]:
    """Return the rates and steps that events tell, one after the other."""
    told: list[float] = []
    for event in events:
        if isinstance(event, PoissonGaussian | DistributedGaussian):
            told += [event.sample_rate, event.steps]
        elif isinstance(event, DiscreteGaussian):
            told.append(event.count)
    return tuple(told)


def curve_faults(study: Consented) -> list[str]:
    """Return which of the curves that a consent tells are not its events'."""
    faults = []
    for group, curve in ((TRAINING, "update_curve"), (HOLDOUT, "histogram_curve")):
        told, own = study.body.get(curve), direct_curve([study.events[group][0][0]])
        if told is not None and not (len(told) == len(own) and np.allclose(told, own, rtol=1e-6, atol=1e-12)):
            faults.append(f"holds another Rényi curve for group {group} than its event")
    return faults


def charge_faults(charge: Charge, at: str, study: Consented) -> list[str]:
    """Return what a charge does that its study's consent and plan do not allow.

    Args:
        charge: The charge.
        at: Time of its entry.
        study: What was consented to and charged so far.
    """
    declared = _declared(charge, study)
    if isinstance(declared, str):
        return [declared]
    (event, most), plan = declared, study.plan
    faults = []
    if charge.event != event or charge.purpose != study.body["purpose"]:
        faults.append("charges another event or purpose than was consented to")
    if charge.segments != tuple(study.body.get("segments", ())):
        faults.append("charges other segments than were consented to")
    if (charge.step, charge.attempt) in study.keys:
        faults.append("charges a step and attempt a second time")
    if study.made[_kind(charge.step)] >= most:
        faults.append("charges more often than was consented to")
    if at[:10] > study.body["expires"]:
        faults.append("charges after the plan had expired")
    if plan is not None and (not _planned(charge.step, plan) or charge.attempt > 1 + plan.training.spare):
        faults.append("charges a round or an attempt that the plan does not have")
    return faults


def _declared(charge: Charge, study: Consented) -> tuple[Event, int] | str:
    """Return the event that a consent declares for a charge's step and how many like it, or what is wrong."""
    kind, _, number = charge.step.partition("/")
    groups = {HOLDOUT, TRAINING} if kind == MATCH else {_GROUPS.get(kind)}
    named = number == charge.group if kind == MATCH else _NUMBER.fullmatch(number) is not None
    if charge.group not in groups or not named or charge.attempt < 1:
        return "charges another group than its step touches"
    for key, only, what in (("overlap", MATCH, "a list for a match"), ("counting", COUNT, "a count of items")):
        if kind == only and key not in study.body:
            return f"charges {what}, of which the consent knows none"
    return study.events[charge.group][_PLACES[kind]]


def _planned(step: str, plan: Plan) -> bool:
    """Return whether a plan has a release of this name."""
    return plan.matches if step.partition("/")[0] == MATCH else round_of(plan, step) is not None
