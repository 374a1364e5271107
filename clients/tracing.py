"""Which models were trained with a customer, and what was spent on it: answered from ledger and kept plans alone.

The ledger names no customer. But a customer's group is decided for life by a keyed hash, and so is its segment where a
hash divides customers; so every charge says whether it can have touched this customer. Whether it did, in a step that
samples customers by secret coins, nobody knows: that is what the guarantee is made of.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coterie.clients.groups import is_held_out, segment_of
from coterie.clients.workspace import Workspace
from coterie.privacy.accountant import guarantee
from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.charges import Reservation
from coterie.privacy.errors import ContractFault, Fault, FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan, plan_from_dict
from coterie.privacy.policy import Policy, read_policy

__all__ = ["Touched", "Trace", "trace"]

CERTAIN, POSSIBLE = "on a table that held the customer", "perhaps: on an earlier table, which is not kept"


@dataclass(frozen=True)
class Touched:
    """A study whose releases may have been made with the customer.

    Args:
        plan: Digest of the plan.
        name: The study's name.
        purpose: Its purpose.
        role: "trained" or "measured": which of its releases the customer's group is for; or "counted", in a match.
        releases: How many were charged, lost ones with them.
        spent: What they spent of the customer's privacy, as a guarantee in words.
        when: Whether the table of then is known to have held the customer.
    """

    plan: str
    name: str
    purpose: str
    role: str
    releases: int
    spent: str
    when: str


@dataclass(frozen=True)
class Trace:
    """The answer about one customer; it names nobody.

    Args:
        group: The customer's group, for life.
        studies: In the order of their consents.
    """

    group: str
    studies: tuple[Touched, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        return asdict(self) | {"studies": [asdict(study) for study in self.studies]}

    @staticmethod
    def from_dict(table: dict[str, Any]) -> "Trace":
        """Return what `to_dict` wrote."""
        return Trace(table["group"], tuple(Touched(**study) for study in table["studies"]))


def trace(workspace: Workspace, ledger: Ledger, customer: str, *, since: Mapping[str, int]) -> Trace:
    """Find every study that may have been made with a customer.

    Args:
        workspace: The partner's.
        ledger: Its open ledger.
        customer: The identifier.
        since: From which entry of the ledger on each data set of the vault held the customer; one that does not hold it
            now is missing.

    Raises:
        FileFault: The policy or a plan that was consented to cannot be read.
        LedgerFault: The ledger cannot be read.
    """
    group_key, policy = workspace.group_key, read_policy(workspace.policy)
    group = HOLDOUT if is_held_out(group_key, customer) else TRAINING
    segment = _segment(policy, group_key, customer)
    # A study may be consented to again; its charges are told once.
    plans = dict.fromkeys(str(entry.body["plan"]) for entry in ledger.entries("consent"))
    found = []
    for digest in plans:
        charged = [r for r in ledger.charges_of(digest) if r.charge.group == group and _is_in(segment, r)]
        if charged:
            plan = _plan(workspace, digest)
            known = all(name in since and charged[0].seq > since[name] for name in _read(plan))
            found.append(_touched(plan, charged, certain=known))
    return Trace(group, tuple(found))


def _read(plan: Plan) -> list[str]:
    """Return the data sets, by their names in the ledger, that a plan's releases are made from."""
    matched = ["identifiers"] if plan.matching is not None else []
    if plan.matches:
        return matched
    return [*matched, "interactions" if plan.recommends else "customers"]


def _plan(workspace: Workspace, digest: str) -> Plan:
    path = workspace.plan(digest)
    try:
        plan = plan_from_dict(json.loads(path.read_bytes())["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        plan = None
    if plan is None or plan.digest() != digest:
        raise FileFault(Fault(str(path), "is not the plan that was consented to", "restore it"))
    return plan


def _segment(policy: Policy, group_key: bytes, customer: str) -> str:
    """Return the customer's segment where a hash decides it, "" where any could be meant."""
    if policy.segments is None:
        return ""
    try:
        return segment_of(policy.segments, group_key, customer)
    except ContractFault:  # a column divides customers, and so the answer is about all of its segments
        return ""


def _is_in(segment: str, reservation: Reservation) -> bool:
    segments = reservation.charge.segments
    return not segments or not segment or segment in segments


def _touched(plan: Plan, charged: Sequence[Reservation], *, certain: bool) -> Touched:
    noise = sorted({r.charge.random for r in charged})
    spent = guarantee(
        [r.charge.event for r in charged],
        plan.privacy.delta,
        trust=plan.privacy.trust,
        random_source="os" if noise == ["os"] else ", ".join(noise),
    )
    role = "measured" if charged[0].charge.group == HOLDOUT else "trained"
    return Touched(
        plan=plan.digest(),
        name=plan.name,
        purpose=plan.purpose,
        role="counted" if plan.matches else role,
        releases=len(charged),
        spent=str(spent),
        when=CERTAIN if certain else POSSIBLE,
    )
