"""Consent: a partner's decision about a plan, computed from its policy and its operator's word.

Deciding never opens data, and reports every reason at once; only a plan that nothing else speaks against waits for its
approval. What leaves of it are data-free words; the texts stay with the partner's operator.
"""

import dataclasses
import datetime
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.clients.vault import CONSENTS, IDENTIFIERS
from coterie.clients.workspace import Workspace
from coterie.privacy.calibration import HOLDOUT, TRAINING, Mechanisms, calibrate
from coterie.privacy.canonical import digest
from coterie.privacy.compliance import Reason, breaches, misplaced, unapproved
from coterie.privacy.contract import Contract
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.events import Event, event_to_dict
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import COUNTS, Plan
from coterie.privacy.policy import Policy, limits
from coterie.privacy.renyi import curve

__all__ = [
    "Standing",
    "codes",
    "consent",
    "consent_body",
    "decision_on",
    "disclosed",
    "division",
    "objections",
    "unspent",
]


@dataclass(frozen=True)
class Standing:
    """What a partner brings to a decision.

    Args:
        name: Its name.
        key: Its public identity key.
        today: Its date.
        approves: Whether its operator approved a contract.
        holds: Whether it holds the catalogue with a digest.
        consents: Whether it holds a table of its customers' consents.
        identifies: Whether it holds a table of their identifiers, and its operator has them matched.
    """

    name: str
    key: str
    today: datetime.date
    approves: Callable[[Contract], bool]
    holds: Callable[[str], bool]
    consents: Callable[[], bool]
    identifies: Callable[[], bool] = lambda: False

    @staticmethod
    def of(workspace: Workspace, ledger: Ledger) -> "Standing":
        """Return what the partner of a workspace brings today."""

        def holds(dataset: str) -> bool:
            # The ledger alone says which tables there are; whether this one can be opened is seen when it is.
            return any(entry.body["dataset"] == dataset for entry in ledger.entries("vault"))

        return Standing(
            workspace.name,
            workspace.identity.public,
            ledger.today,
            workspace.approves,
            workspace.holds,
            lambda: holds(CONSENTS),
            lambda: holds(IDENTIFIERS) and workspace.identifies(),
        )


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
    reasons = [*objections(plan, policy, standing), *_unit(plan, policy, ledger), *_too_often(plan, policy, ledger)]
    if reasons:
        return None, tuple(reasons)
    try:
        mechanisms = calibrate(plan)
    except PlanFault as error:
        return None, tuple(Reason("study-budget", fault) for fault in error.faults)
    reasons = _left(plan, policy, ledger, mechanisms) or unapproved(plan, policy, decision_on(plan.digest(), ledger))
    return (None, tuple(reasons)) if reasons else (mechanisms, ())


def disclosed(ledger: Ledger, *, apart: str = "") -> int:
    """Return how many matches were disclosures in the year of now, but for that of the plan with this digest."""
    year = f"{ledger.year}-"
    return sum(e.at.startswith(year) and e.body["plan"] != apart for e in ledger.entries("disclosure"))


def _too_often(plan: Plan, policy: Policy, ledger: Ledger) -> list[Reason]:
    """Hold a match without noise to how many there may be in a year: two of nearly equal lists tell the difference."""
    if plan.matching is None or plan.matching.outcome == COUNTS or policy.matching is None:
        return []
    most = policy.matching.disclosures
    if disclosed(ledger, apart=plan.digest()) < most:
        return []
    rule = f"would be a disclosure beyond the {most} of a year that the policy has"
    return [_reason("quota", "plan.matching.outcome", rule, "wait, or decide on more in matching.disclosures")]


def decision_on(plan: str, ledger: Ledger) -> str:
    """Return the operator's newest word on the plan with this digest, "" where there is none."""
    words = [str(entry.body["decision"]) for entry in ledger.entries("approval") if entry.body["plan"] == plan]
    return words[-1] if words else ""


def objections(plan: Plan, policy: Policy, standing: Standing) -> list[Reason]:
    """Return every reason against a plan but its budget and its approval; asked again before every task."""
    reasons = misplaced(plan, standing.name, standing.key, standing.today)
    if plan.matching is not None and not standing.identifies():
        fix = "seal one with: coterie partner identifiers FOLDER TABLE"
        reasons.append(_reason("identifiers", "plan.matching", "needs a table of identifiers that is not there", fix))
    if not plan.matches and not standing.approves(plan.contract):
        fix = "look at it, then: coterie partner seal FOLDER TABLE --plan PLAN"
        reasons.append(_reason("contract", "plan.contract", "was not approved by the partner's operator", fix))
    if plan.catalogue is not None and not standing.holds(plan.catalogue.digest):
        fix = "compare the item table with the other partners', then: coterie partner seal ... --catalogue ITEMS"
        reasons.append(_reason("catalogue", "plan.catalogue", "is not one that the partner holds", fix))
    # A purpose that is not permitted at all is refused for that, by `breaches`.
    if plan.purpose in policy.purposes and policy.consents(plan.purpose) and not standing.consents():
        rule = "rests on customers' consents, and the vault holds no table of them"
        fix = "seal one with: coterie partner consents FOLDER TABLE, or name the legal ground under [consent.elsewhere]"
        reasons.append(_reason("consent", "plan.purpose", rule, fix))
    return [*reasons, *breaches(plan, policy, standing.name)]


def _unit(plan: Plan, policy: Policy, ledger: Ledger) -> list[Reason]:
    """Hold the unit of privacy to what earlier studies rest on: its column, and how customers are divided."""
    reasons = []
    consents = [entry.body for entry in ledger.entries("consent")]
    if not {str(body["customer"]) for body in consents} <= {plan.contract.customer}:
        rule, fix = "is not the column of earlier studies", "keep the column, or begin a new workspace"
        reasons.append(_reason("customer", "plan.contract.customer", rule, fix))
    if not {str(body["division"]) for body in consents if "division" in body} <= {division(policy)}:
        rule, fix = "are not those of earlier studies", "keep them as they were: customers are divided for life"
        reasons.append(_reason("segment", "policy.segments", rule, fix))
    return reasons


def consent_body(plan: Plan, mechanisms: Mechanisms, policy: Policy, digests: tuple[str, str]) -> dict[str, Any]:
    """Return the body of the entry that records a consent: the events that the study may charge, fixed here.

    Args:
        plan: The plan.
        mechanisms: Its calibrated events.
        policy: What permitted it.
        digests: Of the release that says so, and of the policy.
    """
    release, rules = digests
    body = {
        "release": release,
        "plan": plan.digest(),
        "name": plan.name,
        "purpose": plan.purpose,
        "customer": plan.contract.customer,
        "contract": plan.contract.digest(),
        "expires": plan.expires.isoformat(),
        "policy": rules,
        "update": event_to_dict(mechanisms.update),
        "updates": mechanisms.updates,
        "histogram": event_to_dict(mechanisms.histogram),
        "histograms": mechanisms.histograms,
        "update_curve": list(curve([mechanisms.update])),
        "histogram_curve": list(curve([mechanisms.histogram])),
    }
    if mechanisms.counting is not None:
        body |= {"counting": event_to_dict(mechanisms.counting), "countings": mechanisms.countings}
    if mechanisms.overlap is not None:
        body |= {"overlap": event_to_dict(mechanisms.overlap), "overlaps": mechanisms.overlaps}
    if plan.cohort.segments:
        body |= {"segments": list(plan.cohort.segments), "division": division(policy)}
    return body


def division(policy: Policy) -> str:
    """Return the digest of how the policy divides customers; "" where it does not."""
    return digest(dataclasses.asdict(policy.segments)) if policy.segments else ""


def _left(plan: Plan, policy: Policy, ledger: Ledger, mechanisms: Mechanisms) -> list[Reason]:
    reasons = []
    for limit in limits(policy, plan.purpose, ledger.year):
        for group in (TRAINING, HOLDOUT):
            asked = curve(unspent(plan, ledger, mechanisms, group))
            spent = ledger.spent_in(limit.span, group, plan.cohort.segments or ())
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


def unspent(plan: Plan, ledger: Ledger, mechanisms: Mechanisms, group: str) -> tuple[Event, ...]:
    """Return what the study may still charge to a group: all of it, or the rest of one that is resumed."""
    charged = Counter(r.charge.event for r in ledger.charges_of(plan.digest()) if r.charge.group == group)
    rest = Counter(mechanisms.events(group)) - charged
    return tuple(rest.elements())


def _reason(code: str, place: str, rule: str, fix: str) -> Reason:
    return Reason(code, Fault(place, rule, fix))


def codes(reasons: Sequence[Reason]) -> tuple[str, ...]:
    """Return the data-free codes of some reasons, sorted, each once."""
    return tuple(sorted({reason.code for reason in reasons}))
