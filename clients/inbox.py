"""Plans that wait for the operator's word, and what the operator weighs.

Rules this module enforces:
- nothing runs unapproved: what the policy does not approve without a person is kept here until somebody decides;
- only plans that the pinned coordinator signed, and that nothing speaks against but what the operator is still to look
  at (`codes.PENDING`), are kept, `MOST` of them at most;
- one that waits is never dropped for another.
"""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.clients.consent import Standing, consent, decision_on
from coterie.clients.patience import patiently
from coterie.clients.preview import costs, leaving, read_columns
from coterie.clients.workspace import Workspace
from coterie.privacy.calibration import Mechanisms, calibrate
from coterie.privacy.compliance import automatic
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault, PlanFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.privacy.policy import Policy, read_policy
from coterie.privacy.signed import SignedPlan

__all__ = ["FULL", "MOST", "calibrated", "keep", "kept_plans", "look", "obstacles"]

MOST = 100
"""How many plans are kept."""

FULL = Fault("inbox", f"holds {MOST} plans that wait, and took no further one", "answer: coterie partner inbox FOLDER")

_OWN = frozenset({"awaiting", "declined"})  # what the operator's own word changes


def keep(workspace: Workspace, plan: Plan, signed: bytes, ledger: Ledger) -> bool:
    """Keep a signed plan until the operator has decided, and return whether there was room.

    Args:
        workspace: The partner's, held.
        plan: Verified, and spoken against by nothing but what the operator is still to look at.
        signed: The same as it came.
        ledger: Which plans were answered: these, and expired ones, make room.

    Raises:
        FileFault: It cannot be written.
    """
    path = _path(workspace, plan)
    folder = path.parent
    if path.exists():
        return True
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = sorted(folder.glob("*.json"))
        if len(kept) >= MOST:
            answered = next((other for other in kept if _answered(other, ledger)), None)
            if answered is None:
                return False
            answered.unlink()
    except OSError as error:
        raise FileFault(Fault(str(folder), f"cannot be used ({error.strerror})", "check its rights")) from None
    write_durably(path, signed)
    return True


def look(folder: Path, *, clock: Callable[[], datetime.datetime]) -> list[dict[str, Any]]:
    """Say of every plan that waits what it costs, reads and would release, and of all others what became of them.

    Args:
        folder: The partner's workspace.
        clock: Returns the time in UTC.

    Returns:
        A row per plan, those that wait first: plan (digest), name, purpose, family, trust, unit, epsilon, delta,
        partners, expires, matching (by, gives; None where customers are not matched), state ("awaiting", "approved",
        "declined", "automatic", "expired"), decision (by, at, reason; None where there is none), and for those that
        wait reads, leaves, budgets and reasons to refuse.

    Raises:
        FileFault: The workspace or its policy is wrong.
        LedgerFault: The ledger cannot be used.
        WorkspaceBusy: Another process held the workspace all the while.
    """
    workspace = Workspace(folder)
    policy = read_policy(workspace.policy)
    plans = kept_plans(workspace, policy)
    for plan in plans.values():
        if _path(workspace, plan).exists():
            calibrated(plan)
    with patiently(workspace), Ledger(workspace.ledger, clock) as ledger:
        said = {str(entry.body["plan"]): entry for entry in ledger.entries("approval")}
        rows = []
        for digest, plan in plans.items():
            word = said.get(digest)
            decision = None if word is None else {"at": word.at, "reason": "", **word.body}
            state = _state(plan, policy, "" if word is None else str(word.body["decision"]), ledger.today)
            row = {**_about(plan), "state": state, "decision": decision}
            rows.append(row | (_weighed(plan, policy, workspace, ledger) if state == "awaiting" else {}))
    return sorted(rows, key=lambda row: (row["state"] != "awaiting", row["expires"], row["plan"]))


def kept_plans(workspace: Workspace, policy: Policy) -> dict[str, Plan]:
    """Return the plans that are kept here, by digest: what waits or waited, and what was consented to."""
    found = {}
    for path in sorted(path for name in ("inbox", "plans") for path in (workspace.root / name).glob("*.json")):
        try:
            plan = SignedPlan.from_bytes(path.read_bytes(), coordinator=policy.coordinator).plan
        except (OSError, PlanFault):
            continue  # of a coordinator that the policy does not pin any more, or no plan at all
        found[plan.digest()] = plan
    return found


def obstacles(plan: Plan, policy: Policy, workspace: Workspace, ledger: Ledger) -> tuple[Fault, ...]:
    """Return what speaks against a plan beside the operator's own word."""
    _, reasons = consent(plan, policy, standing=Standing.of(workspace, ledger), ledger=ledger)
    return tuple(reason.fault for reason in reasons if reason.code not in _OWN)


def _path(workspace: Workspace, plan: Plan) -> Path:
    return workspace.root / "inbox" / f"{plan.digest().removeprefix('sha256:')}.json"


def _answered(path: Path, ledger: Ledger) -> bool:
    """Return whether a kept plan, which was verified then, waits no longer: it was decided on, or has expired."""
    if decision_on(f"sha256:{path.stem}", ledger):
        return True
    try:
        return datetime.date.fromisoformat(json.loads(path.read_bytes())["plan"]["expires"]) < ledger.today
    except (ValueError, KeyError, TypeError):
        return True  # no plan, whatever it is


def calibrated(plan: Plan) -> Mechanisms | None:
    """Return a plan's mechanisms, None where no noise keeps its budget.

    That takes seconds and is remembered: asked ahead of the workspace's lock, it holds up no task.
    """
    try:
        return calibrate(plan)
    except PlanFault:
        return None  # which is said among what speaks against it


def _state(plan: Plan, policy: Policy, word: str, today: datetime.date) -> str:
    if word:
        return word
    if today > plan.expires:
        return "expired"
    return "automatic" if automatic(plan, policy) else "awaiting"


def _about(plan: Plan) -> dict[str, Any]:
    privacy = plan.privacy
    return {
        "plan": plan.digest(),
        "name": plan.name,
        "purpose": plan.purpose,
        "family": plan.model.family,
        "trust": privacy.trust,
        "unit": privacy.unit,
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "partners": [partner.name for partner in plan.partners],
        "expires": plan.expires.isoformat(),
        "matching": None if plan.matching is None else {"by": plan.matching.identifier, "gives": plan.matching.outcome},
    }


def _weighed(plan: Plan, policy: Policy, workspace: Workspace, ledger: Ledger) -> dict[str, Any]:
    """Return what an operator weighs before deciding."""
    made = calibrated(plan)
    return {
        "reads": read_columns(plan, policy),
        "leaves": leaving(plan, made) if made else [],
        "budgets": costs(plan, policy, ledger, made) if made else [],
        "reasons": [str(fault) for fault in obstacles(plan, policy, workspace, ledger)],
    }
