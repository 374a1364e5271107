"""What a study would cost, before anybody says yes; and what is spent so far."""

import itertools
from pathlib import Path
from typing import Any

from coterie.clients.consent import Standing, consent
from coterie.clients.workspace import Workspace
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.charges import Limit
from coterie.privacy.clock import now
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.policy import all_limits, limits, read_policy
from coterie.privacy.renyi import curve
from coterie.privacy.signed import SignedPlan

__all__ = ["preview_plan", "spent_budgets"]


def preview_plan(folder: Path, signed: Path) -> dict[str, Any]:
    """Say whether the policy would consent to a plan, and what would be left.

    Args:
        folder: The partner's workspace.
        signed: A signed plan.

    Returns:
        plan, consents, reasons (texts), and a row per budget and group.

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
        standing = Standing(
            workspace.name, workspace.identity.public, now().date(), workspace.approves, workspace.holds
        )
        _, reasons = consent(plan, policy, standing=standing, ledger=ledger)
        mechanisms = calibrate(plan)
        rows = [
            {
                **_row(limit, group, ledger, plan.cohort.segments or ()),
                "runs_left": limit.budget.runs_left(
                    ledger.spent_in(limit.span, group, plan.cohort.segments or ()), curve(mechanisms.events(group))
                ),
            }
            for limit in limits(policy, plan.purpose, ledger.year)
            for group in (TRAINING, HOLDOUT)
        ]
    why = [str(reason.fault) for reason in reasons]
    return {"plan": plan.digest(), "consents": not reasons, "reasons": why, "budgets": rows}


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
