"""The operator's word on a plan: found by name or digest, and written into the ledger.

Rules this module enforces:
- the newest word on a plan holds: a no stops a study that runs;
- what is approved is a digest: the plan whose cost was shown, and no other;
- nothing is approved that the policy refuses.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.clients.consent import decision_on
from coterie.clients.history import introduce, note_policy
from coterie.clients.inbox import calibrated, kept_plans, obstacles
from coterie.clients.patience import patiently
from coterie.clients.workspace import Workspace
from coterie.privacy.compliance import APPROVED
from coterie.privacy.errors import CoterieError, Fault, FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.policy import read_policy

__all__ = ["Decision", "PlanRefused", "decide", "find"]

_LONGEST = 200  # characters of a text in the ledger
_LEAST = 6  # hexadecimal digits that name a plan


@dataclass(frozen=True)
class Decision:
    """What the operator says of a plan.

    Args:
        word: `compliance.APPROVED` or `compliance.DECLINED`.
        by: The role of who says it; it stands in the ledger, and so in every audit export.
        reason: Why, likewise; "" for none.
    """

    word: str
    by: str = "operator"
    reason: str = ""


class PlanRefused(CoterieError):
    """The policy refuses the plan, so approving it would change nothing."""


def find(rows: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    """Return the row of `look` that is meant by a digest's first digits, or by a name that no other plan has.

    Raises:
        FileFault: None is meant, or more than one.
    """
    digits = wanted.removeprefix("sha256:").lower()
    found = [
        row
        for row in rows
        if row["name"] == wanted
        or (len(digits) >= _LEAST and str(row["plan"]).removeprefix("sha256:").startswith(digits))
    ]
    if len(found) != 1:
        rule = f"names {len(found) or 'none'} of the {len(rows)} plans here"
        fix = f"give at least {_LEAST} digits of a digest, as printed by: coterie partner inbox FOLDER --all"
        raise FileFault(Fault("PLAN", rule, fix))
    return found[0]


def decide(folder: Path, plan: str, decision: Decision, *, clock: Callable[[], datetime.datetime]) -> bool:
    """Write the operator's word on a plan down, and return whether it is another than the last one.

    Args:
        folder: The partner's workspace.
        plan: The plan's digest.
        decision: The word.
        clock: Returns the time in UTC.

    Raises:
        FileFault: The workspace, its policy or a text of the decision is wrong, or the plan is not here.
        LedgerFault: The ledger cannot be used.
        PlanRefused: It is to be approved, and the policy refuses it all the same; nothing was written.
        WorkspaceBusy: Another process held the workspace all the while.
    """
    _check_text("--by", decision.by)
    if decision.reason:
        _check_text("--reason", decision.reason)
    workspace = Workspace(folder)
    known = kept_plans(workspace, read_policy(workspace.policy))
    if plan not in known:
        raise FileFault(Fault("PLAN", "is not a plan that was proposed here", "see: coterie partner inbox FOLDER"))
    calibrated(known[plan])
    with patiently(workspace), Ledger(workspace.ledger, clock) as ledger:
        introduce(ledger, workspace)
        policy, _ = note_policy(ledger, workspace.policy)
        if decision.word == APPROVED:
            against = obstacles(known[plan], policy, workspace, ledger)
            if against:
                raise PlanRefused(*against)
        if decision_on(plan, ledger) == decision.word:
            return False
        body = {"plan": plan, "decision": decision.word, "by": decision.by}
        ledger.record("approval", body | ({"reason": decision.reason} if decision.reason else {}))
    return True


def _check_text(option: str, text: str) -> None:
    if not 0 < len(text) <= _LONGEST or not text.isprintable():
        rule = f"must have 1 to {_LONGEST} characters, all of them printable"
        raise FileFault(Fault(option, rule, "write it again"))
