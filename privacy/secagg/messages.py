"""What a partner sends in a secure sum; with `privacy/release.py`, everything that may leave.

Every message is signed by the partner's long-lived identity over everything else that it says, so that a changed bit
shows, and shows whose it is.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.canonical import canonical
from coterie.privacy.events import DistributedGaussian, Event, Nothing

__all__ = [
    "DealtShares",
    "MaskedVector",
    "Message",
    "RevealedShares",
    "RoundKeys",
    "SurvivorsSigned",
    "arrays_digest",
    "signed_bytes",
    "statement",
]

_DOMAIN = b"coterie/secagg/v1\n"
_SIGNATURE = "signature"


@dataclass(frozen=True)
class RoundKeys:
    """A partner's fresh public keys for the sums of one epoch.

    Leaks: nothing about a customer; random keys, drawn before any data is opened.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        epoch: Which set-up of the study: 1, 2, 3, ...
        steps: Names of the sums that the keys are for, e.g. "train/3".
        signature: Ed25519 of the partner's identity, in hexadecimal.
        arrays: uint8. The channel's X25519 key, shape (32,); and, shape (steps, 2, 32), for every step the X25519 key
            of the pair leaf and the SHA-256 of the self leaf.
    """

    kind: ClassVar[str] = "round-keys"
    plan: str
    partner: str
    epoch: int
    steps: tuple[str, ...]
    signature: str
    arrays: tuple[NDArray[Any], ...]

    @property
    def event(self) -> Event:
        """What pays for it."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {
            "plan": self.plan,
            "partner": self.partner,
            "epoch": self.epoch,
            "steps": list(self.steps),
            "signature": self.signature,
        }


@dataclass(frozen=True)
class DealtShares:
    """A partner's shares of its secrets, sealed for each of the others, with a commitment to every one.

    Leaks: nothing about a customer. Whoever opens `threshold` of the shares of a leaf learns the leaf.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        epoch: Which set-up of the study.
        keys: Digest of the list of keys that the partner was shown.
        signature: Ed25519 of the partner's identity, in hexadecimal.
        arrays: uint8. Sealed shares, shape (holders, bytes), holders in the order of the key list; and SHA-256
            commitments, shape (holders, steps, 2, 32): to the share of the pair leaf, and of the self leaf.
    """

    kind: ClassVar[str] = "dealt-shares"
    plan: str
    partner: str
    epoch: int
    keys: str
    signature: str
    arrays: tuple[NDArray[Any], ...]

    @property
    def event(self) -> Event:
        """What pays for it."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {
            "plan": self.plan,
            "partner": self.partner,
            "epoch": self.epoch,
            "keys": self.keys,
            "signature": self.signature,
        }


@dataclass(frozen=True)
class MaskedVector:
    """A partner's noisy sum over its customers, under masks that cancel in the sum over all partners alone.

    Leaks: with the other partners' vectors and shares, the sum over all survivors, which its event pays for. By itself
    it is uniformly random to whoever lacks the masks.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        step: Which sum, e.g. "train/3" or "evaluate/2".
        attempt: 1, or more after an attempt that was not opened.
        model: Digest of the weights that the sum is about.
        epoch: Which set-up of the study.
        cohort: Digest of the names between whom the masks cancel.
        signature: Ed25519 of the partner's identity, in hexadecimal.
        event: What pays for it.
        arrays: One vector, uint32 or uint64, shape (coordinates,).
    """

    kind: ClassVar[str] = "masked-vector"
    plan: str
    partner: str
    step: str
    attempt: int
    model: str
    epoch: int
    cohort: str
    signature: str
    event: DistributedGaussian
    arrays: tuple[NDArray[Any], ...]

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {
            "plan": self.plan,
            "partner": self.partner,
            "step": self.step,
            "attempt": self.attempt,
            "model": self.model,
            "epoch": self.epoch,
            "cohort": self.cohort,
            "signature": self.signature,
        }


@dataclass(frozen=True)
class SurvivorsSigned:
    """A partner's word on which vectors a sum is to be opened over: once for each sum.

    Leaks: nothing about a customer.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        step: Which sum.
        attempt: As in `MaskedVector`.
        epoch: Which set-up of the study.
        transcript: Digest of what the sum is about, its cohort, and the digest of every survivor's vector.
        signature: Ed25519 of the partner's identity, in hexadecimal.
    """

    kind: ClassVar[str] = "survivors-signed"
    plan: str
    partner: str
    step: str
    attempt: int
    epoch: int
    transcript: str
    signature: str

    @property
    def event(self) -> Event:
        """What pays for it."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {
            "plan": self.plan,
            "partner": self.partner,
            "step": self.step,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "transcript": self.transcript,
            "signature": self.signature,
        }

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Its arrays."""
        return ()


@dataclass(frozen=True)
class RevealedShares:
    """A partner's shares that open one sum: of the self leaf of who survived, of the pair leaf of who did not.

    Leaks: nothing about a customer beyond the sum, which the survivors' vectors have paid for.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        step: Which sum.
        attempt: As in `MaskedVector`.
        epoch: Which set-up of the study.
        transcript: Digest of what the partner signed.
        signature: Ed25519 of the partner's identity, in hexadecimal.
        arrays: uint8, shape (cohort, 32), in the order of the cohort's names.
    """

    kind: ClassVar[str] = "revealed-shares"
    plan: str
    partner: str
    step: str
    attempt: int
    epoch: int
    transcript: str
    signature: str
    arrays: tuple[NDArray[Any], ...]

    @property
    def event(self) -> Event:
        """What pays for it."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return {
            "plan": self.plan,
            "partner": self.partner,
            "step": self.step,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "transcript": self.transcript,
            "signature": self.signature,
        }


Message = RoundKeys | DealtShares | MaskedVector | SurvivorsSigned | RevealedShares


def arrays_digest(arrays: tuple[NDArray[Any], ...]) -> str:
    """Return "sha256:" and the SHA-256 of arrays, with their types and shapes."""
    shapes = canonical([{"dtype": array.dtype.str, "shape": list(array.shape)} for array in arrays])
    sha = hashlib.sha256(b"coterie/secagg/arrays/v1\n" + len(shapes).to_bytes(8, "big") + shapes)
    for array in arrays:
        sha.update(np.ascontiguousarray(array).reshape(-1).data)
    return "sha256:" + sha.hexdigest()


def signed_bytes(message: Message) -> bytes:
    """Return what a message's signature is over: its kind, its other fields, and the digest of its arrays."""
    return statement(message.kind, message.header, arrays_digest(message.arrays))


def statement(kind: str, header: dict[str, Any], arrays: str) -> bytes:
    """Return the bytes that are signed for a message of which only the digest of its arrays is at hand."""
    fields = {name: value for name, value in header.items() if name != _SIGNATURE}
    return _DOMAIN + canonical({"kind": kind, "fields": fields, "arrays": arrays})
