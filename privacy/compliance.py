"""What a policy says of a plan: pure rules, asked by the partner before it consents and by the reviewer afterwards."""

import datetime
from dataclasses import dataclass

from coterie.privacy.errors import Fault
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.policy import Policy
from coterie.privacy.redlines import crossings

__all__ = ["APPROVED", "DECLINED", "Reason", "automatic", "breaches", "misplaced", "unapproved"]

APPROVED, DECLINED = "approved", "declined"


@dataclass(frozen=True)
class Reason:
    """Why a plan is refused.

    Args:
        code: A key of `release.CODES`.
        fault: The same for the partner's operator, with names and limits.
    """

    code: str
    fault: Fault


def misplaced(plan: Plan, name: str, key: str, day: datetime.date) -> list[Reason]:
    """Return what speaks against a partner's taking part on a day: expiry, and its place in the roster.

    Args:
        plan: The plan.
        name: The partner's name.
        key: Its public identity key.
        day: The day by its clock.
    """
    reasons = []
    if day > plan.expires:
        reasons.append(_reason("expired", "plan.expires", "lies in the past", "ask for a new plan"))
    entry = plan.partner(name)
    if entry is None or entry.key != key:
        fix = "give the coordinator your name and public key again"
        reasons.append(_reason("roster", "plan.partners", "does not hold this partner with its own key", fix))
    return reasons


def breaches(plan: Plan, policy: Policy, name: str) -> list[Reason]:
    """Return every rule of the policy of the partner called `name` that a plan breaks, but for what is left."""
    return [
        *_red_lines(plan, policy),
        *_scope(plan, policy),
        *_segments(plan, policy),
        *_asked(plan, policy),
        *_peers(plan, policy, name),
        *_match(plan, policy),
    ]


def automatic(plan: Plan, policy: Policy) -> bool:
    """Return whether a plan lies within what the policy approves without a person."""
    approval = policy.approval
    if approval is None or plan.privacy.epsilon > approval.automatic_epsilon:
        return False
    if plan.discloses and not approval.disclosures:
        return False
    return approval.purposes is None or plan.purpose in approval.purposes


def unapproved(plan: Plan, policy: Policy, decision: str) -> list[Reason]:
    """Return what keeps a plan that nothing else speaks against from running: nobody approved it.

    Args:
        plan: The plan.
        policy: What may be approved without a person.
        decision: The operator's newest word on the plan, `APPROVED` or `DECLINED`; "" where there is none.
    """
    if decision == DECLINED:
        fix = "nothing, or: coterie partner approve FOLDER PLAN"
        return [_reason("declined", "plan", "was declined by the partner's operator", fix)]
    if decision == APPROVED or automatic(plan, policy):
        return []
    fix = "see: coterie partner inbox FOLDER, then: coterie partner approve FOLDER PLAN"
    return [_reason("awaiting", "plan", "was not approved by the partner's operator", fix)]


def _red_lines(plan: Plan, policy: Policy) -> list[Reason]:
    """Hold a plan to what is never done; whatever the rest of the policy permits, this stays refused."""
    divided = policy.segments is not None and policy.segments.by != "hash" and plan.cohort.segments
    column = policy.segments.by if policy.segments and divided else ""
    return [Reason("red-line", fault) for fault in crossings(plan, policy.red_lines, divided_by=column)]


def _scope(plan: Plan, policy: Policy) -> list[Reason]:
    reasons = []
    if plan.purpose not in policy.purposes:
        reasons.append(_reason("purpose", "plan.purpose", f"{plan.purpose} is not permitted", "permit it in purposes"))
    contract = plan.contract
    if contract.customer != policy.customer:
        reasons.append(_reason("customer", "plan.contract.customer", "is not the policy's customer", "plan with it"))
    if contract.interactions is None and not plan.matches and contract.label not in policy.labels:
        reasons.append(_reason("label", "plan.contract.label", "is not permitted", "permit it in labels"))
    names = {column.name for column in contract.columns}
    rows = contract.interactions
    if rows is not None:
        names = {rows.item, rows.time, *([rows.value] if rows.value else [])}
    reasons += [
        _reason("column", f"plan.contract.columns.{name}", "is not permitted", "permit it in columns")
        for name in sorted(names - set(policy.columns))
    ]
    special = {column.name for column in contract.columns if column.sensitivity == "special"}
    reasons += [
        _reason("special-column", f"plan.contract.columns.{name}", "is of special sensitivity", "permit it in special")
        for name in sorted(special - set(policy.special))
    ]
    if not plan.matches and plan.model.family not in policy.families:
        reasons.append(_reason("family", "plan.model.family", "is not permitted", "permit it in families"))
    return reasons


def _segments(plan: Plan, policy: Policy) -> list[Reason]:
    known = set(policy.segments.names) if policy.segments else set()
    by_column = plan.recommends and policy.segments is not None and policy.segments.by != "hash"
    if set(plan.cohort.segments or ()) <= known and not (plan.cohort.segments and by_column):
        return []
    fix = "plan with the partner's segments, or with all customers"
    return [_reason("segment", "plan.cohort.segments", "are not the policy's", fix)]


def _peers(plan: Plan, policy: Policy, name: str) -> list[Reason]:
    """Hold the roster of a secure sum, or a match, to keys that the partner compared itself.

    An invented partner adds no noise to a sum, and brings a list of its maker's own choosing to a match.
    """
    if plan.privacy.trust != SECURE and plan.matching is None:
        return []
    fix = "compare its key with the partner itself, then put it under [peers]"
    return [
        _reason("peers", f"plan.partners.{partner.name}", "is not pinned with this key", fix)
        for partner in plan.partners
        if partner.name != name and policy.peers.get(partner.name) != partner.key
    ]


def _asked(plan: Plan, policy: Policy) -> list[Reason]:
    reasons = []
    budget, privacy = policy.budget, plan.privacy
    if privacy.trust not in policy.trust:
        reasons.append(_reason("trust", "plan.privacy.trust", "is not permitted", "permit it in trust"))
    if privacy.trust == SECURE and privacy.colluders < policy.minimum_colluders:
        rule = f"counts on fewer than {policy.minimum_colluders} partners to help the coordinator"
        reasons.append(_reason("trust", "plan.privacy.colluders", rule, "raise it in the plan"))
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


def _match(plan: Plan, policy: Policy) -> list[Reason]:
    """Hold a match to what the policy permits; without rules for matches, none is."""
    asked, rules = plan.matching, policy.matching
    if asked is None:
        return []
    if rules is None:
        return [_reason("matching", "policy.matching", "is missing, so no match is permitted", "add [matching]")]
    reasons = []
    if asked.outcome not in rules.outcomes:
        rule = f"{asked.outcome} is not permitted"
        reasons.append(_reason("matching", "plan.matching.outcome", rule, "permit it in matching.outcomes"))
    if asked.identifier not in rules.identifiers:
        rule = f"{asked.identifier} is not permitted"
        reasons.append(_reason("matching", "plan.matching.identifier", rule, "permit it in matching.identifiers"))
    if asked.least < rules.least:
        rule = f"is below the policy's {rules.least}"
        reasons.append(_reason("matching", "plan.matching.least", rule, "raise it in the plan"))
    return reasons


def _reason(code: str, place: str, rule: str, fix: str) -> Reason:
    return Reason(code, Fault(place, rule, fix))
