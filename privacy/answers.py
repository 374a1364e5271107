"""What leaves a partner and depends on no customer: consents, refusals, and words about what was received and kept.

They are releases like all others (`release.py`); what pays for them is nothing.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from coterie.privacy.events import Event, Nothing

__all__ = ["ConsentGiven", "LedgerHead", "ModelReceived", "Refused"]


@dataclass(frozen=True)
class ConsentGiven:
    """A partner's yes to a plan.

    Leaks: nothing about a customer. That the partner's policy permits the plan.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        signature: The partner's Ed25519 signature on plan and name, 64 bytes.
    """

    kind: ClassVar[str] = "consent-given"
    plan: str
    partner: str
    signature: bytes

    @property
    def event(self) -> Event:
        """What pays for it."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {"plan": self.plan, "partner": self.partner, "signature": self.signature.hex()}

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Its arrays."""
        return ()


@dataclass(frozen=True)
class Refused:
    """A partner's no, in words that are free of data.

    Leaks: which rules of the partner's policy, which is not secret, the plan breaks. Whatever depends on rows
    is the one word "unavailable".

    Args:
        plan: Digest of the plan, or "" when it could not be read.
        codes: Keys of `CODES`, sorted.
    """

    kind: ClassVar[str] = "refused"
    plan: str
    codes: tuple[str, ...]

    @property
    def event(self) -> Event:
        """What pays for it."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {"plan": self.plan, "codes": list(self.codes)}

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Its arrays."""
        return ()


@dataclass(frozen=True)
class ModelReceived:
    """A partner's word that it holds a study's final model and the coordinator's record of the study.

    Leaks: nothing about a customer.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        model: Digest of the weights.
        record: Digest of the record.
    """

    kind: ClassVar[str] = "model-received"
    plan: str
    partner: str
    model: str
    record: str

    @property
    def event(self) -> Event:
        """What pays for it."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {"plan": self.plan, "partner": self.partner, "model": self.model, "record": self.record}

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Its arrays."""
        return ()


@dataclass(frozen=True)
class LedgerHead:
    """A signed checkpoint of the partner's ledger, which goes with a reply to a coordinator that asks for it.

    Leaks: how many entries the ledger holds, so how busy the partner is with all its studies; nothing about a
    customer. Root and proof are hashes of entries, each with 16 random bytes of its own, and cannot be guessed open.

    Args:
        note: The checkpoint, as `checkpoint.sign_checkpoint` writes it.
        since: Size of the earlier checkpoint that the coordinator showed; 0 for none.
        proof: That the ledger extends it (RFC 9162, section 2.1.4), in hexadecimal.
    """

    kind: ClassVar[str] = "ledger-head"
    note: str
    since: int
    proof: tuple[str, ...]

    @property
    def event(self) -> Event:
        """What pays for it."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {"note": self.note, "since": self.since, "proof": list(self.proof)}

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Its arrays."""
        return ()
