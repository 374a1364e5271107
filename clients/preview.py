"""What a study would cost, read and release, before anybody says yes; and what is spent so far."""

import itertools
from pathlib import Path
from typing import Any

from coterie.clients.consent import Standing, consent, decision_on, unspent
from coterie.clients.workspace import Workspace
from coterie.privacy.calibration import HOLDOUT, TRAINING, Mechanisms, calibrate
from coterie.privacy.charges import Limit
from coterie.privacy.clock import now
from coterie.privacy.compliance import automatic
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import ROWS, SECURE, TOKENS, Plan
from coterie.privacy.policy import Policy, all_limits, limits, read_policy
from coterie.privacy.release import MatchCommitted
from coterie.privacy.renyi import curve
from coterie.privacy.schedule import summed
from coterie.privacy.signed import SignedPlan

__all__ = ["costs", "leaving", "preview_plan", "read_columns", "spent_budgets"]


def preview_plan(folder: Path, signed: Path) -> dict[str, Any]:
    """Say whether a plan would be consented to once it is approved, and what would be left.

    Args:
        folder: The partner's workspace.
        signed: A signed plan.

    Returns:
        plan, consents, approval ("approved", "declined", "automatic", or "awaiting" the operator's word), reasons to
        refuse (texts), and a row of `costs` per budget and group.

    Raises:
        FileFault: The workspace or its policy is wrong, or the plan cannot be read.
        PlanFault: The plan is not signed by the coordinator that the policy pins.
    """
    workspace = Workspace(folder)
    policy = read_policy(workspace.policy)
    try:
        data = signed.read_bytes()
    except OSError as error:
        raise FileFault(Fault(str(signed), f"cannot be read ({error.strerror})", "check the path")) from None
    plan = SignedPlan.from_bytes(data, coordinator=policy.coordinator).plan
    with workspace.lock(), Ledger(workspace.ledger, now) as ledger:
        _, reasons = consent(plan, policy, standing=Standing.of(workspace, ledger), ledger=ledger)
        word = decision_on(plan.digest(), ledger) or ("automatic" if automatic(plan, policy) else "awaiting")
        rows = costs(plan, policy, ledger, calibrate(plan))
    why = [str(reason.fault) for reason in reasons if reason.code != "awaiting"]
    return {"plan": plan.digest(), "consents": not why, "approval": word, "reasons": why, "budgets": rows}


def costs(plan: Plan, policy: Policy, ledger: Ledger, made: Mechanisms) -> list[dict[str, Any]]:
    """Return a row for every budget and customer group that a study would be charged to.

    Returns:
        budget, group, share, spent, limit, delta; asked: by how much the study would raise the epsilon that is spent;
        left: the rest of the limit before it; runs_left: how many whole studies like it fit, this one among them.
    """
    rows, segments = [], plan.cohort.segments or ()
    for limit, group in itertools.product(limits(policy, plan.purpose, ledger.year), (TRAINING, HOLDOUT)):
        spent, budget = ledger.spent_in(limit.span, group, segments), limit.budget
        asked = curve(unspent(plan, ledger, made, group))
        after = budget.spent_epsilon([a + b for a, b in zip(spent, asked, strict=True)])
        rows.append(
            {
                **_row(limit, group, ledger, segments),
                "asked": after - budget.spent_epsilon(spent),
                "left": max(0.0, budget.epsilon - budget.spent_epsilon(spent)),
                "runs_left": budget.runs_left(spent, curve(made.events(group))),
            }
        )
    return rows


def read_columns(plan: Plan, policy: Policy) -> dict[str, Any]:
    """Return what a study would read of the partner's table.

    Returns:
        customer, label ("" where there is none), columns, special (those of special sensitivity), segments (none for
        all customers), the policy's own minimum_customers, and identifier ("" where customers are not matched).
    """
    contract, rows = plan.contract, plan.contract.interactions
    columns = [column.name for column in contract.columns]
    if rows is not None:
        columns = [rows.item, rows.time, *([rows.value] if rows.value else [])]
    return {
        "customer": contract.customer,
        "label": contract.label,
        "columns": columns,
        "special": [column.name for column in contract.columns if column.sensitivity == "special"],
        "segments": list(plan.cohort.segments or ()),
        "minimum_customers": policy.minimum_customers,
        "identifier": plan.matching.identifier if plan.matching else "",
    }


def leaving(plan: Plan, made: Mechanisms) -> list[dict[str, Any]]:
    """Return which releases about customers would leave, of each kind the most that may: what, kind and count."""
    counted = "noisy sums of items' popularity" if plan.bins is None else "noisy counts of cells of columns"
    if plan.privacy.trust == SECURE:
        kinds = ("masked-vector",) * 3
        words = ("masked noisy sums", f"masked {counted}", "masked noisy histograms")
    elif summed(plan):
        kinds = ("partner-sum", "partner-sum", "score-histogram")
        words = ("noisy sums", counted, "noisy histograms")
    else:
        kinds = ("model-update", "partner-sum", "score-histogram")
        words = ("noisy model updates", counted, "noisy histograms")
    counts = (made.updates, made.countings, made.histograms)
    found = [*_matched(plan, made), *zip(words, kinds, counts, strict=True)]
    return [{"what": what, "kind": kind, "count": count} for what, kind, count in found if count]


def _matched(plan: Plan, made: Mechanisms) -> list[tuple[str, str, int]]:
    """Return what of a match would leave: with noise, or as a Disclosure that no epsilon covers."""
    if plan.matching is None:
        return []
    if plan.discloses:
        what = {
            ROWS: "list of identifiers, blinded; a disclosure: any two partners learn which customers both have",
            TOKENS: "list of identifiers, blinded; a disclosure: tokens, which are equal for equal identifiers",
        }[plan.matching.outcome]
        return [(what, MatchCommitted.kind, 1)]
    return [("list of identifiers, blinded, with dummies for noisy counts", MatchCommitted.kind, made.overlaps)]


def spent_budgets(folder: Path) -> list[dict[str, Any]]:
    """Return what is spent of every budget in the policy, by customer group.

    Raises:
        FileFault: The workspace or its policy is wrong.
        LedgerFault: The ledger cannot be used.
    """
    workspace = Workspace(folder)
    policy = read_policy(workspace.policy)
    with workspace.lock(), Ledger(workspace.ledger, now) as ledger:
        divided = [(name,) for name in policy.segments.names] if policy.segments else [()]
        combined = itertools.product(all_limits(policy, ledger.year), (TRAINING, HOLDOUT), divided)
        return [_row(limit, group, ledger, segments) for limit, group, segments in combined]


def _row(limit: Limit, group: str, ledger: Ledger, segments: tuple[str, ...]) -> dict[str, Any]:
    spent = ledger.spent_in(limit.span, group, segments)
    return {
        "budget": limit.name,
        "group": "/".join((group, *segments)),
        "share": limit.budget.share(spent),
        "spent": limit.budget.spent_epsilon(spent),
        "limit": limit.budget.epsilon,
        "delta": limit.budget.delta,
    }
