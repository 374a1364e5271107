"""Signed plans: what a coordinator sends, and how a partner comes to believe it."""

import functools
import json
from dataclasses import dataclass

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import Fault, FileFault, PlanFault
from coterie.privacy.identity import Identity, verify
from coterie.privacy.plan import Plan, plan_from_dict

__all__ = ["SignedPlan", "sign"]

_DOMAIN = b"coterie/plan/v1\n"


@dataclass(frozen=True)
class SignedPlan:
    """A plan with the coordinator's signature on its digest.

    Args:
        plan: The plan.
        signature: 64 bytes, Ed25519 (RFC 8032).
    """

    plan: Plan
    signature: bytes

    def to_bytes(self) -> bytes:
        """Return the signed plan as canonical JSON."""
        return canonical({"format": "coterie/plan/v1", "plan": self.plan.to_dict(), "signature": self.signature.hex()})

    @staticmethod
    def from_bytes(data: bytes, *, coordinator: str) -> "SignedPlan":
        """Read and verify a signed plan.

        Args:
            data: What `to_bytes` wrote.
            coordinator: The coordinator's public key that the partner pins.

        Raises:
            PlanFault: Not a signed plan, altered, or signed by another key.
        """
        return _read(data, coordinator)


@functools.lru_cache(maxsize=16)
def _read(data: bytes, coordinator: str) -> SignedPlan:
    """Read and verify; the same bytes under the same key once, since every question of a study rests on them."""
    try:
        table = json.loads(data)
        if set(table) != {"format", "plan", "signature"} or table["format"] != "coterie/plan/v1":
            raise ValueError
        signature = bytes.fromhex(table["signature"])
        signed = SignedPlan(plan_from_dict(table["plan"]), signature)
        if signed.to_bytes() != data:  # one plan, one byte string
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise PlanFault(Fault("plan", "is not a signed plan", "ask the coordinator for it again")) from None
    except FileFault as error:
        raise PlanFault(*error.faults) from None
    verify(coordinator, signature, _DOMAIN + signed.plan.digest().encode())
    return signed


def sign(plan: Plan, coordinator: Identity) -> SignedPlan:
    """Sign a plan as the coordinator."""
    return SignedPlan(plan, coordinator.sign(_DOMAIN + plan.digest().encode()))
