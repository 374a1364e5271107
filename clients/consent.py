"""Consent: a partner's decision about a plan, computed from its policy.

Deciding never opens data, and reports every reason at once. What leaves of it are data-free words; the texts stay
with the partner's operator.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coterie.clients.policy import Policy, limits
from coterie.privacy.calibration import HOLDOUT, TRAINING, Mechanisms, calibrate
from coterie.privacy.contract import Contract
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.events import Event
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.privacy.renyi import curve

__all__ = ["Reason", "Standing", "codes", "consent", "objections"]


@dataclass(frozen=True)
class Reason:
    """Why a plan is refused.

    Args:
        code: A key of `privacy.release.CODES`.
        fault: The same for the partner's operator, with names and limits.
    """

    code: str
    fault: Fault


@dataclass(frozen=True)
class Standing:
    """What a partner brings to a decision.

    Args:
        name: Its name.
        key: Its public identity key.
        today: Its date.
        approves: Whether its operator approved a contract.
    """

    name: str
    key: str
    today: datetime.date
    approves: Callable[[Contract], bool]


def consent(
    plan: Plan, policy: Policy, *, standing: Standing, ledger: Ledger
) -> tuple[Mechanisms | None, tuple[Reason, ...]]:
    """Decide about a plan.

    Args:
        plan: A verified plan.
        policy: The partner's rules.
        standing: Who and when the partner is.
        ledger: What is spent so far.

    Returns:
        The study's mechanisms, and no reason; or every reason to refuse.
    """
    reasons = [*objections(plan, policy, standing), *_unit(plan, ledger)]
    if reasons:
        return None, tuple(reasons)
    try:
        mechanisms = calibrate(plan)
    except PlanFault as error:
        return None, tuple(Reason("study-budget", fault) for fault in error.faults)
    reasons = _left(plan, policy, ledger, mechanisms)
    return (None, tuple(reasons)) if reasons else (mechanisms, ())


def objections(plan: Plan, policy: Policy, standing: Standing) -> list[Reason]:
    """Return every reason against a plan but its budget; asked again before every task."""
    return [*_identity(plan, standing), *_scope(plan, policy), *_asked(plan, policy)]


def _unit(plan: Plan, ledger: Ledger) -> list[Reason]:
    """Hold the unit of privacy to the column of the first consent: groups and filters rest on it."""
    columns = {str(entry.body["customer"]) for entry in ledger.entries() if entry.kind == "consent"}
    if columns <= {plan.contract.customer}:
        return []
    rule = "is not the column of earlier studies"
    return [_reason("customer", "plan.contract.customer", rule, "keep the column, or begin a new workspace")]


def _identity(plan: Plan, standing: Standing) -> list[Reason]:
    reasons = []
    if standing.today > plan.expires:
        reasons.append(_reason("expired", "plan.expires", "lies in the past", "ask for a new plan"))
    entry = plan.partner(standing.name)
    if entry is None or entry.key != standing.key:
        fix = "give the coordinator your name and public key again"
        reasons.append(_reason("roster", "plan.partners", "does not hold this partner with its own key", fix))
    if not standing.approves(plan.contract):
        fix = "look at it, then: coterie partner import FOLDER TABLE --plan PLAN"
        reasons.append(_reason("contract", "plan.contract", "was not approved by the partner's operator", fix))
    return reasons


def _scope(plan: Plan, policy: Policy) -> list[Reason]:
    reasons = []
    if plan.purpose not in policy.purposes:
        reasons.append(_reason("purpose", "plan.purpose", f"{plan.purpose} is not permitted", "permit it in purposes"))
    contract = plan.contract
    if contract.customer != policy.customer:
        reasons.append(_reason("customer", "plan.contract.customer", "is not the policy's customer", "plan with it"))
    if contract.label not in policy.labels:
        reasons.append(_reason("label", "plan.contract.label", "is not permitted", "permit it in labels"))
    names = {column.name for column in plan.contract.columns}
    reasons += [
        _reason("column", f"plan.contract.columns.{name}", "is not permitted", "permit it in columns")
        for name in sorted(names - set(policy.columns))
    ]
    special = {column.name for column in plan.contract.columns if column.sensitivity == "special"}
    reasons += [
        _reason("special-column", f"plan.contract.columns.{name}", "is of special sensitivity", "permit it in special")
        for name in sorted(special - set(policy.special))
    ]
    if plan.model.family not in policy.families:
        reasons.append(_reason("family", "plan.model.family", "is not permitted", "permit it in families"))
    return reasons


def _asked(plan: Plan, policy: Policy) -> list[Reason]:
    reasons = []
    budget, privacy = policy.budget, plan.privacy
    if privacy.trust not in policy.trust:
        reasons.append(_reason("trust", "plan.privacy.trust", "is not permitted", "permit it in trust"))
    if len(plan.partners) < policy.minimum_partners:
        rule = f"names fewer partners than {policy.minimum_partners}"
        reasons.append(_reason("partners", "plan.partners", rule, "ask for a larger federation"))
    if plan.cohort.minimum_customers > policy.minimum_customers:
        rule = f"exceeds the policy's {policy.minimum_customers}, which is what is kept"
        reasons.append(_reason("cohort", "plan.cohort.minimum_customers", rule, "lower it, or raise the policy's"))
    if privacy.delta > budget.delta:
        rule = f"{privacy.delta:g} exceeds the policy's {budget.delta:g}"
        reasons.append(_reason("delta", "plan.privacy.delta", rule, "lower it in the plan"))
    if privacy.epsilon > budget.study_epsilon:
        rule = f"{privacy.epsilon:g} exceeds the policy's {budget.study_epsilon:g} for a study"
        reasons.append(_reason("study-budget", "plan.privacy.epsilon", rule, "lower it in the plan"))
    return reasons


def _left(plan: Plan, policy: Policy, ledger: Ledger, mechanisms: Mechanisms) -> list[Reason]:
    reasons = []
    for limit in limits(policy, plan.purpose):
        for group in (TRAINING, HOLDOUT):
            asked = curve(_unspent(plan, ledger, mechanisms, group))
            spent = ledger.spent(group, limit.purpose)
            if not limit.budget.admits(spent, asked):
                runs = limit.budget.runs_left(spent, asked)
                left = max(0.0, limit.budget.epsilon - limit.budget.spent_epsilon(spent))
                rule = (
                    f"{limit.name} has epsilon {left:.3g} of {limit.budget.epsilon:g} left for group {group}: "
                    f"{runs} more runs like this"
                )
                fix = "ask for a smaller study, or decide on a larger budget"
                reasons.append(_reason("budget", "policy.budget", rule, fix))
    return reasons


def _unspent(plan: Plan, ledger: Ledger, mechanisms: Mechanisms, group: str) -> tuple[Event, ...]:
    """Return what the study may still charge: all of it, or the rest of one that is resumed."""
    digest = plan.digest()
    charged = [r for r in ledger.reservations() if r.charge.plan == digest and r.charge.group == group]
    return mechanisms.events(group)[len(charged) :]


def _reason(code: str, place: str, rule: str, fix: str) -> Reason:
    return Reason(code, Fault(place, rule, fix))


def codes(reasons: Sequence[Reason]) -> tuple[str, ...]:
    """Return the data-free codes of some reasons, sorted, each once."""
    return tuple(sorted({reason.code for reason in reasons}))
