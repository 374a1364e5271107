"""Where matches stand at a partner, for its own operator."""

import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coterie.clients.inbox import kept_plans
from coterie.clients.matching.store import MatchStore
from coterie.clients.patience import patiently
from coterie.clients.receiving import record_path
from coterie.clients.workspace import Workspace
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.privacy.policy import Policy, read_policy

__all__ = ["matches_here"]


def matches_here(folder: Path, *, clock: Callable[[], datetime.datetime]) -> list[dict[str, Any]]:
    """Say of every match that was proposed here where it stands, and what its counts are.

    Args:
        folder: The partner's workspace.
        clock: Returns the time in UTC.

    Returns:
        A row per plan: plan (digest), name, by (kind of identifier), gives ("counts", "rows" or "tokens"), partners,
        state ("not begun", "waits for the others' lists", "goes on", "ended"), done and parcels (of the lists' parcels
        that are due here), evaluations (of this match), counts (by whose customers; where they were received); and the
        year's evaluations and disclosures beside the policy's limits: evaluated, evaluations_left, disclosures_left.

    Raises:
        FileFault: The workspace or its policy is wrong, or a match's state is damaged.
        LedgerFault: The ledger cannot be used.
        WorkspaceBusy: Another process held the workspace all the while.
    """
    workspace = Workspace(folder)
    policy = read_policy(workspace.policy)
    plans = {digest: plan for digest, plan in kept_plans(workspace, policy).items() if plan.matching is not None}
    with patiently(workspace), Ledger(workspace.ledger, clock) as ledger:
        left = _left(policy, ledger)
        asked = {str(e.body["plan"]): int(e.body["evaluations"]) for e in ledger.entries("manifest")}
        return [
            {**_about(plan), **_standing(workspace, plan), "evaluations": asked.get(digest, 0), **left}
            for digest, plan in sorted(plans.items(), key=lambda pair: pair[1].name)
        ]


def _about(plan: Plan) -> dict[str, Any]:
    match = plan.matching
    return {
        "plan": plan.digest(),
        "name": plan.name,
        "by": match.identifier if match else "",
        "gives": match.outcome if match else "",
        "partners": [partner.name for partner in plan.partners],
    }


def _standing(workspace: Workspace, plan: Plan) -> dict[str, Any]:
    store = MatchStore(workspace, plan.digest())
    counts = _counts(workspace, plan)
    if store.ended() is not None:
        return {"state": "ended", "done": 0, "parcels": 0, "counts": counts}
    kept = store.load()
    if kept is None:
        return {"state": "not begun", "done": 0, "parcels": 0, "counts": counts}
    if not kept.manifest:
        return {"state": "waits for the others' lists", "done": 0, "parcels": 0, "counts": counts}
    done = sum(len(leg.taken) + leg.handed for leg in kept.legs)
    due = sum(leg.count * ((leg.position > 0) + (not leg.ends)) for leg in kept.legs)
    return {"state": "goes on", "done": done, "parcels": due, "counts": counts}


def _counts(workspace: Workspace, plan: Plan) -> dict[str, float]:
    """Return the counts of a match as the coordinator's record has them; none before it was received."""
    path = record_path(workspace, plan.digest())
    if not plan.matches or not path.exists():
        return {}
    metrics: Mapping[str, float] = json.loads(path.read_bytes())["record"]["metrics"]  # verified when it was received
    return dict(metrics)


def _left(policy: Policy, ledger: Ledger) -> dict[str, Any]:
    """Return what of the year's limits is left; nothing of it where no match is permitted."""
    year, rules = f"{ledger.year}-", policy.matching
    made = sum(int(e.body["evaluations"]) for e in ledger.entries("manifest") if e.at.startswith(year))
    told = sum(e.at.startswith(year) for e in ledger.entries("disclosure"))
    return {
        "evaluated": made,
        "evaluations_left": max(0, rules.evaluations - made) if rules else 0,
        "disclosures_left": max(0, rules.disclosures - told) if rules else 0,
    }
