"""Everything that may leave a partner, each kind with the event that pays for it.

What is not listed here has no way out (`clients/door.py` knows no other kind). A release is named by its
digest, which the ledger binds to the reservation that paid for it before a byte leaves.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.answers import ConsentGiven, LedgerHead, ModelReceived, Refused
from coterie.privacy.canonical import canonical
from coterie.privacy.codes import CODES
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.matching.leaving import (
    ManifestAccepted,
    MatchCommitted,
    MatchEnded,
    MatchParcel,
    OverlapCounts,
    ParcelTaken,
)
from coterie.privacy.secagg.messages import DealtShares, MaskedVector, RevealedShares, RoundKeys, SurvivorsSigned

__all__ = [
    "CODES",
    "KINDS",
    "ConsentGiven",
    "DealtShares",
    "LedgerHead",
    "ManifestAccepted",
    "MaskedVector",
    "MatchCommitted",
    "MatchEnded",
    "MatchParcel",
    "Matching",
    "ModelReceived",
    "ModelUpdate",
    "OverlapCounts",
    "ParcelTaken",
    "PartnerSum",
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
class PartnerSum:
    """One partner's noisy sum over its training customers, in whole numbers: counts, co-occurrence or gradients.

    Leaks: the sum with discrete Gaussian noise on every coordinate, which costs no more than the Gaussian that its
    event states (`events.DistributedGaussian` with one share); nothing else of the training customers.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        step: "count/1", or "train/" and the step.
        attempt: 1, or more after a lost attempt.
        model: Digest of the weights that the sum is about.
        event: What pays for it.
        arrays: One array, int64, shape (coordinates,), in units.
    """

    kind: ClassVar[str] = "partner-sum"
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
    """Noisy counts of held-out customers by label and score; for recommenders by ranking and rank.

    Each held-out customer is counted once, by one of its rows drawn at random, or by its last item under one of two
    rankings drawn at random. AUC, lift, hit rates and the like are computed from the counts by whoever holds them.

    Leaks: the counts with discrete Gaussian noise on every one, which its event pays for.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        step: "evaluate/" and the round.
        attempt: 1, or more after a lost attempt.
        model: Digest of the weights that were scored.
        event: What pays for it.
        arrays: One array, int64, shape (2, bins): row 0 counts label 0; for recommenders it counts ranks by popularity,
            and row 1 those by the model. Where the plan counts by groups, two such rows for each group.
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


Summing = RoundKeys | DealtShares | MaskedVector | SurvivorsSigned | RevealedShares
"""What leaves in a secure sum; described in `privacy/secagg/messages.py`."""

Matching = MatchCommitted | ManifestAccepted | ParcelTaken | MatchParcel | OverlapCounts | MatchEnded
"""What leaves in a match; described in `privacy/matching/leaving.py`."""

Release = (
    ConsentGiven | Refused | ModelUpdate | PartnerSum | ScoreHistogram | ModelReceived | LedgerHead | Summing | Matching
)

KINDS: dict[str, type[Release]] = {
    kind.kind: kind
    for kind in (
        *(ConsentGiven, Refused, ModelUpdate, PartnerSum, ScoreHistogram, ModelReceived, LedgerHead),
        *(RoundKeys, DealtShares, MaskedVector, SurvivorsSigned, RevealedShares),
        *(MatchCommitted, ManifestAccepted, ParcelTaken, MatchParcel, OverlapCounts, MatchEnded),
    )
}


def _step_header(release: ModelUpdate | PartnerSum | ScoreHistogram) -> dict[str, Any]:
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
