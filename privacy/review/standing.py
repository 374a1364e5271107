"""Where studies and budgets stand at the end of a replay, with epsilon recomputed by two accountants."""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from coterie.privacy.accountant import ACCOUNTANT, ADD_REMOVE, UNIT, Guarantee
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.canonical import canonical
from coterie.privacy.charges import Limit, year_of
from coterie.privacy.errors import PlanFault
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, PoissonGaussian
from coterie.privacy.modelcard import model_card
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.review.accountants import Recomputed, recomputed
from coterie.privacy.review.consents import Consented
from coterie.privacy.review.findings import Findings
from coterie.privacy.review.replay import Replay
from coterie.privacy.review.spent import runs_left
from coterie.privacy.review.verdict import Budget, GroupSpent, Study
from coterie.privacy.statement import share_of

__all__ = ["budgets_of", "check_cards", "matches_asked", "studies_of", "sums_asked"]

_GRAIN = 0.002  # what versions of an accountant may differ by in the noise that they find, which is in thousandths
_ROUNDING = 1e-6  # of an epsilon: what the last digit of a calibration may differ by


def studies_of(replay: Replay, *, accounting: bool) -> tuple[Study, ...]:
    """Return every study that was consented to; where accounting is asked for, hold it against its plan."""
    unsettled: dict[str, int] = {}
    for charge in replay.open.values():
        unsettled[charge.plan] = unsettled.get(charge.plan, 0) + 1
    return tuple(
        dataclasses.replace(
            _study(name, study, unsettled.get(name, 0), replay.findings if accounting else None),
            matched=replay.matches.of(name),
        )
        for name, study in replay.studies.items()
    )


def sums_asked(replay: Replay) -> bool:
    """Return whether any study has secure sums, by its plan, or by what its consent and its entries tell.

    A partner that leaves a plan out must not thereby be asked less: what cannot be decided without it is said.
    """
    asked = False
    for study in replay.studies.values():
        summed = any(isinstance(event, DistributedGaussian) for kinds in study.events.values() for event, _ in kinds)
        summed |= bool(study.sums.steps or study.sums.told)
        asked |= summed or (study.plan is not None and study.plan.privacy.trust == SECURE)
        if summed and study.plan is None:
            says = "its plan is not known, so over which partners its sums may be opened was not checked"
            replay.findings.open("openings", study.entry, says)
    return asked


def matches_asked(replay: Replay) -> bool:
    """Return whether any study matches customers, by its plan, or by what its consent and its entries tell."""
    plans = (study.plan for study in replay.studies.values())
    declared = any("overlap" in study.body for study in replay.studies.values())
    return replay.matches.any or declared or any(plan is not None and plan.matching is not None for plan in plans)


def budgets_of(replay: Replay) -> tuple[Budget, ...]:
    """Return every budget of the policy in force at the end, by group."""
    spent, last = replay.spent, replay.last
    kinds = _kinds(replay)
    found = []
    divided = [(name,) for name in spent.policy.segments.names] if spent.policy and spent.policy.segments else [()]
    for limit in spent.all_limits(year_of(last)) if last else ():
        for group, segments in itertools.product((TRAINING, HOLDOUT), divided):
            curve = spent.at(limit, group, segments)
            runs = tuple((name, runs_left(limit, curve, events[group])) for name, events in kinds.items())
            share = spent.share(limit, group, segments)
            found.append(_budget(limit, "/".join((group, *segments)), share, tuple(float(v) for v in curve), runs))
    return tuple(found)


def check_cards(cards: Sequence[Any], replay: Replay, studies: Sequence[Study]) -> None:
    """Hold every model's card against plan, record and recomputed epsilon."""
    told_of = {str(card.get("plan")) for card in cards if isinstance(card, dict)}
    for received in replay.receipts.models:
        plan = replay.studies[received.plan].plan if received.plan in replay.studies else None
        if received.plan not in told_of and not (plan is not None and plan.matches):  # a match makes no model
            replay.findings.open("cards", received.entry, "the card of its model is not in the bundle")
    models = {model.plan: model for model in replay.receipts.models}
    known = {study.plan: study for study in studies}
    for number, card in enumerate(cards, start=1):
        named = str(card.get("plan")) if isinstance(card, dict) else ""
        plan = replay.studies[named].plan if named in replay.studies else None
        record, model = replay.receipts.records.get(named), models.get(named)
        claimed = [group.claimed for group in known[named].groups] if named in known else []
        if plan is None or record is None or model is None or None in claimed:
            replay.findings.open("cards", 0, f"card {number} is of no model that could be checked")
            continue
        bound = _told(card.get("guarantee"), max(found.first for found in claimed if found is not None), plan)
        if canonical(model_card(plan, record, bound)) != canonical(card):
            replay.findings.fail("cards", model.entry, "the model's card says something else than plan and record do")


def _told(told: object, epsilon: float, plan: Plan) -> Guarantee:
    """Return the guarantee that a card must tell: its own epsilon where it is the recomputed one to the last digits."""
    fields = told if isinstance(told, dict) else {}
    value = fields.get("epsilon")
    near = isinstance(value, int | float) and math.isclose(value, epsilon, rel_tol=_ROUNDING)
    same = float(value) if near and value is not None else epsilon
    return Guarantee(same, plan.privacy.delta, UNIT, ADD_REMOVE, plan.privacy.trust, ACCOUNTANT)


def _budget(
    limit: Limit, group: str, share: float, curve: tuple[float, ...], runs: tuple[tuple[str, int], ...]
) -> Budget:
    filter_ = limit.budget
    return Budget(
        limit.name, limit.span, group, filter_.epsilon, filter_.delta, filter_.spent_epsilon(curve), share, runs
    )


def _kinds(replay: Replay) -> dict[str, dict[str, dict[Event, int]]]:
    """Return what a whole study would charge each group, by the study's name; the newest of each name."""
    return {
        str(study.body["name"]): {group: _counted(kinds) for group, kinds in study.events.items()}
        for study in replay.studies.values()
        if any(count for kinds in study.events.values() for _, count in kinds)
    }


def _counted(kinds: tuple[tuple[Event, int], ...]) -> Counter[Event]:
    """Return how often each event may be charged; two kinds of steps may have one event."""
    counted: Counter[Event] = Counter()
    for event, count in kinds:
        counted[event] += count
    return counted


def _study(name: str, study: Consented, unsettled: int, findings: Findings | None) -> Study:
    plan, body = study.plan, study.body
    groups = tuple(_group(study, group, plan, findings) for group in (TRAINING, HOLDOUT))
    return Study(
        plan=name,
        name=str(body["name"]),
        purpose=str(body["purpose"]),
        entry=study.entry,
        at=study.at,
        expires=str(body["expires"]),
        epsilon=plan.privacy.epsilon if plan and not (plan.matches and plan.discloses) else None,
        delta=plan.privacy.delta if plan else None,
        trust=plan.privacy.trust if plan else "",
        unit=plan.privacy.unit if plan else "",
        partners=tuple(partner.name for partner in plan.partners) if plan else (),
        groups=groups,
        settled=study.ends["settled"],
        lost=study.ends["lost"],
        unsettled=unsettled,
        segments=tuple(body.get("segments", ())),
        openings=study.sums.summary() if plan is not None and plan.privacy.trust == SECURE else None,
    )


def _group(study: Consented, group: str, plan: Plan | None, findings: Findings | None) -> GroupSpent:
    kinds, charged = study.events[group], study.charged[group]
    found = claimed = None
    exact = plan is not None and plan.matches and plan.discloses  # no epsilon, not even 0, is true of it
    if plan is not None and study.sound and findings is not None and not exact:
        share = share_of(plan, group)
        _calibrated(plan, kinds, (study.entry, group), findings)
        # A consent that is not sound may declare any number of events: only here is one that the plan bounds.
        allowed = tuple(event for event, count in kinds for _ in range(count))
        claimed = _asked(allowed, plan.privacy.delta)
        _hold(claimed, plan.privacy.epsilon * share, (study.entry, group), findings)
        events = tuple(e for e, count in charged.items() for _ in range(count))
        found = claimed if Counter(events) == Counter(allowed) else _asked(events, plan.privacy.delta)
        if not found.agrees:
            findings.fail("accountants", study.entry, f"the accountants disagree on what was spent on group {group}")
    return GroupSpent(
        group, tuple(charged.items()), kinds, charged.total(), sum(count for _, count in kinds), found, claimed
    )


def _calibrated(plan: Plan, kinds: tuple[tuple[Event, int], ...], where: tuple[int, str], findings: Findings) -> None:
    """Hold the declared noise against what the plan itself leads to: more would be charged for less than was spent."""
    entry, group = where
    try:
        own_kinds = calibrate(plan).kinds(group)
    except PlanFault:
        findings.fail("accountants", entry, "no noise keeps the plan's epsilon")
        return
    # The plan's kinds are in the other order: the last is updates, or histograms, which the consent names first.
    for (event, _), (expected, _) in zip(kinds, reversed(own_kinds), strict=False):
        _same_noise(event, expected, where, findings)


def _same_noise(event: Event, expected: Event, where: tuple[int, str], findings: Findings) -> None:
    entry, group = where
    if _units(event) != _units(expected):
        says = f"declares another sensitivity or number of honest partners for group {group} than the plan leads to"
        findings.fail("accountants", entry, says)
    declared, own = (_noise(one) for one in (event, expected))
    if abs(declared - own) > _GRAIN:
        findings.fail("accountants", entry, f"declares other noise for group {group} than the plan leads to")


def _units(event: Event) -> tuple[int, int] | None:
    """Return what of a secure sum's event all partners must have in common, to the last unit."""
    return (event.shares, event.sensitivity) if isinstance(event, DistributedGaussian) else None


def _noise(event: Event) -> float:
    if isinstance(event, PoissonGaussian | DistributedGaussian):
        return event.noise_multiplier
    return event.sigma if isinstance(event, DiscreteGaussian) else 0.0


def _hold(claimed: Recomputed, budget: float, where: tuple[int, str], findings: Findings) -> None:
    """Hold what a study may spend against what its plan promises."""
    entry, group = where
    if not claimed.agrees:
        findings.fail("accountants", entry, f"the accountants disagree on what may be spent on group {group}")
    if max(claimed.first, claimed.low) > budget * (1 + _ROUNDING):
        findings.fail("accountants", entry, f"what may be charged to group {group} exceeds the plan's epsilon")


@functools.lru_cache(maxsize=256)
def _asked(events: tuple[Event, ...], delta: float) -> Recomputed:
    return recomputed(events, delta)
