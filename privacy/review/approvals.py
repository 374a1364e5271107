"""The operator's words on plans, as a ledger tells them: whether what ran was approved when it ran."""

from coterie.privacy.charges import Entry
from coterie.privacy.compliance import DECLINED, unapproved
from coterie.privacy.plan import Plan
from coterie.privacy.policy import Policy

__all__ = ["Approvals"]

_WHY = {
    "awaiting": "for a plan that neither the partner's operator nor the policy had approved",
    "declined": "for a plan that the partner's operator had declined",
}


class Approvals:
    """What a partner's operator said of plans so far."""

    def __init__(self) -> None:
        self._words: dict[str, list[tuple[int, str]]] = {}

    def take(self, entry: Entry) -> None:
        """Read an entry of kind "approval"."""
        self._words.setdefault(str(entry.body["plan"]), []).append((entry.seq, str(entry.body["decision"])))

    def against(self, entry: Entry, plan: Plan | None = None, policy: Policy | None = None) -> list[str]:
        """Return why the plan that an entry is about was not approved there, in a few words; none where it was.

        Args:
            entry: A consent, a charge, or an entry about a secure sum.
            plan: Its plan, or None where it is not known: then only an operator's no is found.
            policy: What was in force, and may approve a plan without a person; None where it is not known.
        """
        words = self._words.get(str(entry.body["plan"]), [])
        newest = next((word for seq, word in reversed(words) if seq < entry.seq), "")
        if plan is None or policy is None:
            return [_WHY["declined"]] if newest == DECLINED else []
        return [_WHY[reason.code] for reason in unapproved(plan, policy, newest)]
