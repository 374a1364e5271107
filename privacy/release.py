"""Everything that may leave a partner, each kind with the event that pays for it.

What is not in this file has no way out (`clients/door.py` knows no other kind). A release is named by its
digest, which the ledger binds to the reservation that paid for it before a byte leaves.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.canonical import canonical
from coterie.privacy.codes import CODES
from coterie.privacy.events import DiscreteGaussian, Event, Nothing, PoissonGaussian
from coterie.privacy.secagg.messages import DealtShares, MaskedVector, RevealedShares, RoundKeys, SurvivorsSigned

__all__ = [
    "CODES",
    "KINDS",
    "ConsentGiven",
    "DealtShares",
    "LedgerHead",
    "MaskedVector",
    "ModelReceived",
    "ModelUpdate",
    "Refused",
    "Release",
    "RevealedShares",
    "RoundKeys",
    "ScoreHistogram",
    "Summing",
    "SurvivorsSigned",
    "release_digest",
    "weights_digest",
]


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
class ModelUpdate:
    """What a round of local DP-SGD changed in the model.

    Leaks: the noisy gradient sums of the round's steps, which its event pays for; nothing else of the training
    customers. Their number is not in it: normalisers and weights are the plan's public constants.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        step: "train/" and the round.
        attempt: 1, or more after a lost attempt.
        model: Digest of the weights that training started from.
        event: What pays for it.
        arrays: New weights minus old, float32, in the model's order.
    """

    kind: ClassVar[str] = "model-update"
    plan: str
    partner: str
    step: str
    attempt: int
    model: str
    event: PoissonGaussian
    arrays: tuple[NDArray[Any], ...]

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return _step_header(self)


@dataclass(frozen=True)
class ScoreHistogram:
    """Noisy counts of held-out customers by label and score.

    Each held-out customer is counted once, by one of its rows drawn at random. AUC, average precision,
    calibration and lift are computed from the counts by whoever holds them.

    Leaks: the counts with discrete Gaussian noise on every one, which its event pays for.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        step: "evaluate/" and the round.
        attempt: 1, or more after a lost attempt.
        model: Digest of the weights that were scored.
        event: What pays for it.
        arrays: One array, int64, shape (2, bins): row 0 counts label 0.
    """

    kind: ClassVar[str] = "score-histogram"
    plan: str
    partner: str
    step: str
    attempt: int
    model: str
    event: DiscreteGaussian
    arrays: tuple[NDArray[Any], ...]

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return _step_header(self)


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


Summing = RoundKeys | DealtShares | MaskedVector | SurvivorsSigned | RevealedShares
"""What leaves in a secure sum; described in `privacy/secagg/messages.py`."""

Release = ConsentGiven | Refused | ModelUpdate | ScoreHistogram | ModelReceived | LedgerHead | Summing

KINDS: dict[str, type[Release]] = {
    kind.kind: kind
    for kind in (
        *(ConsentGiven, Refused, ModelUpdate, ScoreHistogram, ModelReceived, LedgerHead),
        *(RoundKeys, DealtShares, MaskedVector, SurvivorsSigned, RevealedShares),
    )
}


def _step_header(release: ModelUpdate | ScoreHistogram) -> dict[str, Any]:
    return {
        "plan": release.plan,
        "partner": release.partner,
        "step": release.step,
        "attempt": release.attempt,
        "model": release.model,
    }


def release_digest(release: Release) -> str:
    """Return "sha256:" and the SHA-256 of the release's kind, fields and arrays."""
    shapes = [{"dtype": array.dtype.str, "shape": list(array.shape)} for array in release.arrays]
    head = canonical({"kind": release.kind, "header": release.header, "arrays": shapes})
    sha = hashlib.sha256(b"coterie/release/v1\n" + len(head).to_bytes(8, "big") + head)
    for array in release.arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return "sha256:" + sha.hexdigest()


def weights_digest(arrays: tuple[NDArray[np.float32], ...]) -> str:
    """Return "sha256:" and the SHA-256 of a model's weights, with their shapes."""
    sha = hashlib.sha256(b"coterie/weights/v1\n")
    for array in arrays:
        sha.update(repr(array.shape).encode() + np.ascontiguousarray(array, dtype="<f4").tobytes())
    return "sha256:" + sha.hexdigest()
