"""What one more study would cost: the last plan again, with other epsilons, held against what is left.

For each epsilon the noise is calibrated as a plan's is, and the study's Rényi curve is measured at the order of each
budget's filter. Nothing in between is guessed: a page offers exactly these epsilons.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from coterie.privacy.calibration import Mechanisms, calibrate
from coterie.privacy.charges import spans_of
from coterie.privacy.errors import CoterieError
from coterie.privacy.plan import Plan, plan_from_dict
from coterie.privacy.policy import Policy
from coterie.privacy.renyi import Filter
from coterie.privacy.review.divergence import direct_curve
from coterie.privacy.review.spent import gate
from coterie.privacy.review.verdict import Budget, Verdict
from coterie.privacy.schema import parse

__all__ = ["Outlook", "Row", "epsilons_up_to", "in_order", "outlook"]

_PARTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Row:
    """One budget that a further study would draw on.

    Args:
        name: As in `Budget`.
        group: Likewise.
        share: Part of its capacity that is used.
        costs: Part of its capacity that one study takes, for each epsilon.
    """

    name: str
    group: str
    share: float
    costs: tuple[float, ...]


@dataclass(frozen=True)
class Outlook:
    """What further studies like the last one would take.

    Args:
        study: Name of the last study.
        purpose: Its purpose.
        own: Its epsilon.
        epsilons: Epsilons of a further study, ascending; the policy permits each.
        rows: Budgets that it would count in.
    """

    study: str
    purpose: str
    own: float
    epsilons: tuple[float, ...]
    rows: tuple[Row, ...]


def outlook(verdict: Verdict, *, seen: Callable[[int, int], None] | None = None) -> Outlook | None:
    """Work out what further studies like the last one would take; about two seconds for each epsilon.

    Args:
        verdict: A review's.
        seen: Called with epsilons done and epsilons in all.

    Returns:
        None where the bundle holds no policy, or no plan to go by.
    """
    charging = (s for s in reversed(verdict.studies) if any(count for group in s.groups for _, count in group.allowed))
    study = next((s for s in charging if s.plan in verdict.plans), None)
    if study is None or verdict.policy is None or not verdict.budgets:
        return None
    try:
        plan = plan_from_dict(verdict.plans[study.plan])
        policy = parse(Policy, verdict.policy, place="policy")
    except (CoterieError, ValueError, TypeError, KeyError):
        return None
    asked = epsilons_up_to(policy.budget.study_epsilon, plan.privacy.epsilon)
    found: list[tuple[float, Mechanisms]] = []
    for done, epsilon in enumerate(asked, start=1):
        made = _calibrated(plan, epsilon)
        if made is not None:
            found.append((epsilon, made))
        if seen is not None:
            seen(done, len(asked))
    spans = {*spans_of(study.purpose, study.at)[:2], *(b.span for b in verdict.budgets if b.span.startswith("year/"))}
    rows = tuple(
        _row(budget, [made for _, made in found]) for budget in in_order(verdict.budgets) if budget.span in spans
    )
    if not found or not rows:
        return None
    return Outlook(study.name, study.purpose, plan.privacy.epsilon, tuple(epsilon for epsilon, _ in found), rows)


def epsilons_up_to(most: float, own: float) -> tuple[float, ...]:
    """Return the epsilons to offer: parts of the most that a study may ask for, and the last study's own."""
    parts = {float(f"{most * part:.3g}") for part in _PARTS[:-1]} | {most}
    return tuple(sorted(epsilon for epsilon in parts | {own} if 0 < epsilon <= most))


def in_order(budgets: Iterable[Budget]) -> list[Budget]:
    """Return budgets as a page lists them: for life, by year, by purpose; each for training customers first."""
    kinds = {"life": 0, "year": 1, "purpose": 2}
    return sorted(budgets, key=lambda b: (kinds.get(b.span.partition("/")[0], 3), b.span, b.group != "training"))


def _calibrated(plan: Plan, epsilon: float) -> Mechanisms | None:
    """Return the study's mechanisms at another epsilon, or None where no noise is enough."""
    try:
        return calibrate(dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, epsilon=epsilon)))
    except CoterieError:
        return None


def _row(budget: Budget, made: Sequence[Mechanisms]) -> Row:
    index, capacity = gate(Filter(budget.epsilon, budget.delta))
    costs = [float(direct_curve(mechanisms.events(budget.group))[index]) for mechanisms in made]
    parts = tuple(cost / capacity if capacity > 0 else float("inf") for cost in costs)
    return Row(budget.name, budget.group, budget.share, parts)
