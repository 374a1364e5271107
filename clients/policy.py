"""The partner's own rules, and consent computed from them.

Policy beats plan: the coordinator can only ask for less than the policy allows. A missing policy refuses
everything. `consent` never opens data; it reports every reason at once.
"""

import datetime
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coterie.privacy.calibration import HOLDOUT, TRAINING, Mechanisms, calibrate
from coterie.privacy.canonical import digest
from coterie.privacy.errors import CoterieError, Fault, PlanFault
from coterie.privacy.events import Event
from coterie.privacy.ledger import Ledger, Limit
from coterie.privacy.plan import Plan
from coterie.privacy.renyi import Filter, curve
from coterie.privacy.schema import integer, number, one_of, read, text

__all__ = [
    "Budget",
    "ConsentRefused",
    "Policy",
    "Reason",
    "codes",
    "consent",
    "limits",
    "policy_digest",
    "read_policy",
]


class ConsentRefused(CoterieError):
    """A plan breaks the policy; carries a fault for every reason."""


@dataclass(frozen=True)
class Reason:
    """Why a plan is refused.

    Args:
        code: A key of `privacy.release.CODES`.
        fault: The same for the partner's operator, with names and limits.
    """

    code: str
    fault: Fault


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What all studies together may spend of one customer's privacy.

    Args:
        study_epsilon: Most that one study may ask for.
        lifetime_epsilon: Most over all studies, for ever.
        delta: Delta of the lifetime and purpose budgets, and most that one study may ask for.
        purposes: Most per purpose, over all its studies; a purpose not named has the lifetime budget.
    """

    study_epsilon: float = field(metadata=number(0, 100, ends="(]"))
    lifetime_epsilon: float = field(metadata=number(0, 1000, ends="(]"))
    delta: float = field(metadata=number(0, 1e-3, ends="(]"))
    purposes: dict[str, float] = field(default_factory=dict, metadata=number(0, 1000, ends="(]"))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A partner's rules; see `docs/policy.md` for each key.

    Args:
        coordinator: Public key whose plans are read at all.
        purposes: Purposes permitted.
        columns: Columns permitted as features; the label and customer columns need no entry.
        special: Columns of special sensitivity permitted; none unless named here.
        families: Model families permitted.
        trust: Trust models permitted.
        minimum_partners: Least roster.
        minimum_customers: Least training customers for this partner to take part.
        budget: What may be spent.
    """

    coordinator: str = field(metadata=text(100))
    purposes: tuple[str, ...] = field(metadata=text(100))
    columns: tuple[str, ...] = field(metadata=text(100))
    special: tuple[str, ...] = field(default=(), metadata=text(100))
    families: tuple[str, ...] = field(metadata=one_of("logistic", "mlp"))
    trust: tuple[str, ...] = field(metadata=one_of("local"))
    minimum_partners: int = field(metadata=integer(1, 1000))
    minimum_customers: int = field(metadata=integer(10, 1_000_000_000))
    budget: Budget


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        FileFault: It is missing or breaks the schema.
    """
    return read(Policy, path)


def policy_digest(path: Path) -> str:
    """Return the digest of the policy's content, whatever its layout."""
    return digest(tomllib.loads(path.read_text(encoding="utf-8")))


def limits(policy: Policy, purpose: str) -> tuple[Limit, ...]:
    """Return the budgets across studies that a charge for `purpose` must keep."""
    lifetime = Limit(Filter(policy.budget.lifetime_epsilon, policy.budget.delta))
    own = policy.budget.purposes.get(purpose)
    return (lifetime,) if own is None else (lifetime, Limit(Filter(own, policy.budget.delta), purpose))


def consent(
    plan: Plan, policy: Policy, *, ledger: Ledger, today: datetime.date, partner: tuple[str, str]
) -> tuple[Mechanisms | None, tuple[Reason, ...]]:
    """Decide about a plan.

    Args:
        plan: A verified plan.
        policy: The partner's rules.
        ledger: What is spent so far.
        today: The partner's date.
        partner: The partner's own name and public key.

    Returns:
        The study's mechanisms, and no reason; or every reason to refuse.
    """
    reasons = [*_identity(plan, today, partner), *_scope(plan, policy), *_asked(plan, policy)]
    if reasons:
        return None, tuple(reasons)
    try:
        mechanisms = calibrate(plan)
    except PlanFault as error:
        return None, tuple(Reason("study-budget", fault) for fault in error.faults)
    reasons = _left(plan, policy, ledger, mechanisms)
    return (None, tuple(reasons)) if reasons else (mechanisms, ())


def _identity(plan: Plan, today: datetime.date, partner: tuple[str, str]) -> list[Reason]:
    name, key = partner
    reasons = []
    if today > plan.expires:
        reasons.append(_reason("expired", "plan.expires", "lies in the past", "ask for a new plan"))
    entry = plan.partner(name)
    if entry is None or entry.key != key:
        fix = "give the coordinator your name and public key again"
        reasons.append(_reason("roster", "plan.partners", "does not hold this partner with its own key", fix))
    return reasons


def _scope(plan: Plan, policy: Policy) -> list[Reason]:
    reasons = []
    if plan.purpose not in policy.purposes:
        reasons.append(_reason("purpose", "plan.purpose", f"{plan.purpose} is not permitted", "permit it in purposes"))
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
    if plan.cohort.minimum_customers < policy.minimum_customers:
        rule = f"is below the policy's {policy.minimum_customers}"
        reasons.append(_reason("cohort", "plan.cohort.minimum_customers", rule, "raise it in the plan"))
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
