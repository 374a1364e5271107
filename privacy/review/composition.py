"""A study's events as a verdict tells them, and what follows from them for persons, groups and attackers."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from coterie.privacy.accountant import REPLACE_ONE, epsilon
from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.errors import CoterieError
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, PoissonGaussian, copies_of
from coterie.privacy.plan import COUNTS, SECURE, Plan, plan_from_dict
from coterie.privacy.renyi import ORDERS, conversion
from coterie.privacy.review.accountants import Recomputed, recomputed
from coterie.privacy.review.divergence import direct_curve
from coterie.privacy.review.profile import Profile, profile
from coterie.privacy.review.verdict import Study, Verdict
from coterie.privacy.schedule import countings, summed, trainings

__all__ = [
    "MOST_PARTNERS",
    "Composition",
    "by_partners",
    "composition",
    "matches_plan",
    "plan_of",
    "replaced",
    "standing",
    "worst_profile",
]

MOST_PARTNERS = 20  # that a person is reckoned to be a customer of

_T = TypeVar("_T", int, float)
_ALWAYS = ("form", "signature", "tree", "entries")  # without these nothing in the file is anybody's word


@dataclass(frozen=True)
class Composition:
    """What a study did and may do to one customer of each group.

    Args:
        charged: Events that were charged, by group.
        allowed: Events that the consent allows, by group.
        delta: The plan's.
        plan: The plan.
        void: Whether some noise was not secret: no figure then means anything.
    """

    charged: Mapping[str, tuple[Event, ...]]
    allowed: Mapping[str, tuple[Event, ...]]
    delta: float
    plan: Plan
    void: bool


def standing(verdict: Verdict, names: Sequence[str], *, good: str, bad: str) -> tuple[str, str]:
    """Return `good` where checks hold, otherwise `bad`, and words for the reader about the first that does not.

    Args:
        verdict: What a review found.
        names: The checks that matter, beside those without which nothing does.
        good: What to return where all hold.
        bad: What to return otherwise; a check that was not asked does not hold.
    """
    statuses = {check.name: check.status for check in verdict.checks}
    for name in (*_ALWAYS, *names):
        status = statuses.get(name, "open")
        if status != "holds":
            return bad, f' (claimed; the check "{name}" {"fails" if status == "fails" else "was not decided"})'
    return good, ""


def plan_of(verdict: Verdict, study: Study) -> Plan | None:
    """Return a study's plan, or None where the bundle lacks it or it was not believed."""
    table = verdict.plans.get(study.plan)
    try:
        return plan_from_dict(table) if table is not None and study.delta is not None else None
    except (CoterieError, ValueError, TypeError, KeyError):
        return None


def composition(verdict: Verdict, study: Study) -> Composition | None:
    """Return a study's events, or None where they cannot be told.

    Args:
        verdict: What a review found, with the accountants' figures.
        study: One of its studies.
    """
    plan = plan_of(verdict, study)
    groups = {group.group: group for group in study.groups}
    if plan is None or set(groups) != {TRAINING, HOLDOUT}:
        return None
    if plan.matches and plan.discloses:
        return None  # a Disclosure: no figure is less wrong than another
    if any(group.recomputed is None or group.claimed is None for group in study.groups):
        return None  # no figures: plan or consent did not hold, or the accountants were not asked
    charged = {name: _repeated(group.events) for name, group in groups.items()}
    allowed = {name: _repeated(group.allowed) for name, group in groups.items()}
    void = not any(check.name == "randomness" and check.status == "holds" for check in verdict.checks)
    return Composition(MappingProxyType(charged), MappingProxyType(allowed), plan.privacy.delta, plan, void)


def matches_plan(found: Composition) -> tuple[str, ...]:
    """Return in which respects what is charged is less, or something else, than what the plan does; none is right.

    Args:
        found: The study's events.
    """
    training, privacy, wrong = found.plan.training, found.plan.privacy, []
    if found.plan.matches:
        return _matched(found)
    secure = privacy.trust == SECURE
    steps = 1 if summed(found.plan) else training.local_steps
    kind = DistributedGaussian if secure else PoissonGaussian
    for event in found.allowed[TRAINING][:1]:
        if not isinstance(event, kind) or not math.isclose(event.sample_rate, training.sample_rate):
            wrong.append("an update is charged at another rate than the plan's")
        elif event.steps != steps:
            wrong.append("an update is charged for another number of steps than the plan's")
    among = [
        event for group in found.allowed.values() for event in set(group) if isinstance(event, DistributedGaussian)
    ]
    if any(event.shares != privacy.threshold - privacy.colluders for event in among):
        wrong.append("the noise of another number of honest partners is counted on than the plan promises")
    counted = countings(found.plan) + training.spare if countings(found.plan) else 0
    if len(found.allowed[TRAINING]) != counted + trainings(found.plan) + training.spare:
        wrong.append("the consent allows another number of updates than the plan needs")
    if len(found.allowed[HOLDOUT]) != len(found.plan.metrics.rounds) + training.spare:
        wrong.append("the consent allows another number of histograms than the plan needs")
    return tuple(wrong)


def _matched(found: Composition) -> tuple[str, ...]:
    """Return what of a match is charged otherwise than its plan has it: one list, paid for by both groups."""
    counted = found.plan.matching is not None and found.plan.matching.outcome == COUNTS
    lists = 1 + found.plan.training.spare if counted else 0
    right = all(
        len(events) == lists and all(isinstance(event, DiscreteGaussian) for event in events)
        for events in found.allowed.values()
    )
    wrong = [] if right else ["the consent allows another number of lists, or other noise, than the match needs"]
    if len({frozenset(Counter(events).items()) for events in found.charged.values()}) > 1:
        wrong.append("a list was charged to one group of customers alone")
    return tuple(wrong)


def by_partners(found: Composition) -> tuple[tuple[int, float], ...]:
    """Return (k, epsilon) for a person at k = 1 ... n partners, in the worst mixture of groups; 20 at most are told.

    Args:
        found: The study's events; what it may charge is taken, at every partner.
    """
    groups = (found.allowed[TRAINING], found.allowed[HOLDOUT])
    partners = min(len(found.plan.partners), MOST_PARTNERS)
    return tuple((k, _several(groups, found.delta, k)) for k in range(1, partners + 1))


def replaced(found: Composition) -> Recomputed:
    """Return the worst epsilon when one customer is replaced by another, of the same group or of the other.

    Args:
        found: The study's events; what it may charge is taken.
    """
    return _replaced(found.allowed[TRAINING], found.allowed[HOLDOUT], found.delta)


def worst_profile(found: Composition) -> Profile:
    """Return what an attacker can do to any customer: figure by figure the worse of both groups.

    Args:
        found: The study's events; what was charged is taken.
    """
    one, other = (_profile(found.charged[group]) for group in (TRAINING, HOLDOUT))
    return dataclasses.replace(
        one,
        epsilons=_worse(one.epsilons, other.epsilons),
        deltas=_worse(one.deltas, other.deltas),
        found=_worse(one.found, other.found),
        accuracy=max(one.accuracy, other.accuracy),
        beliefs=_worse(one.beliefs, other.beliefs),
    )


def _repeated(events: Iterable[tuple[Event, int]]) -> tuple[Event, ...]:
    return tuple(event for event, count in events for _ in range(count))


def _worse(one: Sequence[tuple[_T, float]], other: Sequence[tuple[_T, float]]) -> tuple[tuple[_T, float], ...]:
    return tuple((at, max(a, b)) for (at, a), (_, b) in zip(one, other, strict=True))


@functools.lru_cache(maxsize=256)
def _profile(events: tuple[Event, ...]) -> Profile:
    return profile(events)


@functools.lru_cache(maxsize=1024)
def _several(groups: tuple[tuple[Event, ...], tuple[Event, ...]], delta: float, partners: int) -> float:
    training, holdout = groups
    mixtures = [_at(training, trained) + _at(holdout, partners - trained) for trained in range(partners + 1)]
    worst = 0.0
    for most, mixture in sorted(((_most(mixture, delta), mixture) for mixture in mixtures), key=lambda one: -one[0]):
        if most <= worst:
            break  # no further mixture can be worse: its epsilon is at most this
        worst = max(worst, epsilon(mixture, delta))
    return worst


def _at(events: tuple[Event, ...], partners: int) -> tuple[Event, ...]:
    """Return what a person pays who is in one group at so many partners: the noise of a secure sum is shared."""
    if not partners:
        return ()
    # The steps of secure sums at once: a study may have very many of them.
    steps = Counter(event for event in events if isinstance(event, DistributedGaussian))
    summed = (copies_of(dataclasses.replace(e, steps=e.steps * n * partners), partners) for e, n in steps.items())
    return (*summed, *tuple(event for event in events if event not in steps) * partners)


def _most(events: tuple[Event, ...], delta: float) -> float:
    """Return a bound on epsilon that costs nothing to compute (Canonne, Kamath, Steinke 2020, proposition 12)."""
    bounds = zip(direct_curve(events), ORDERS, strict=True)
    return min(divergence + conversion(order, delta) for divergence, order in bounds)


@functools.lru_cache(maxsize=64)
def _replaced(training: tuple[Event, ...], holdout: tuple[Event, ...], delta: float) -> Recomputed:
    within = [recomputed(events, delta, relation=REPLACE_ONE) for events in (training, holdout)]
    # Across groups it leaves one and enters the other: an add and a remove. A histogram's noise is symmetric, so that
    # both of its directions cost the same and the composition of either kind covers this one.
    return max(*within, recomputed((*training, *holdout), delta), key=lambda one: one.first)
