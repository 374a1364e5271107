"""Aggregation in plain numpy: refuse what is not the plan's, average, step.

One bad reply of five ends or corrupts most of Flower's strategies; here a reply is held against what the plan
says before it is added, and the round goes on without it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.models.propensity import Weights
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.release import ModelUpdate, PartnerSum, ScoreHistogram

__all__ = ["AdamState", "Expected", "ReplyRefused", "check_reply", "fedadam", "fedavg", "weighted_mean"]


class ReplyRefused(CoterieError):
    """A partner's reply that is not added; names the partner and the rule."""


@dataclass(frozen=True)
class Expected:
    """What a reply to one task must say.

    Args:
        partner: Who was asked.
        plan: Digest of the plan.
        step: "train/3", say.
        attempt: The attempt that was asked for.
        model: Digest of the weights that were sent.
        shapes: Shapes of the arrays.
        dtype: Their type.
        longest: Greatest Euclidean length of all of them together, as `bounds.py` has it.
    """

    partner: str
    plan: str
    step: str
    attempt: int
    model: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    longest: float = math.inf


def check_reply(release: ModelUpdate | PartnerSum | ScoreHistogram, expected: Expected, answered: set[str]) -> None:
    """Hold a reply against what was asked.

    Args:
        release: What came.
        expected: What was asked.
        answered: Partners whose reply to this step was taken already.

    Raises:
        ReplyRefused: It is another plan's, partner's, step's or model's; a duplicate; of another shape or
            type; not finite; or longer than the plan leaves room for.
    """
    partner = expected.partner
    if partner in answered:
        raise _refused(partner, "answered twice")
    for name in ("plan", "partner", "step", "attempt", "model"):
        if getattr(release, name) != getattr(expected, name):
            raise _refused(partner, f"answered for another {name}")
    if tuple(array.shape for array in release.arrays) != expected.shapes:
        raise _refused(partner, "sent arrays of another shape")
    if any(array.dtype != np.dtype(expected.dtype) for array in release.arrays):
        raise _refused(partner, f"sent arrays that are not {expected.dtype}")
    if not all(bool(np.isfinite(array).all()) for array in release.arrays):
        raise _refused(partner, "sent numbers that are not finite")
    # In float64, in which no sum of squares of float32 or int64 overflows.
    if math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in release.arrays)) > expected.longest:
        raise _refused(partner, "sent more than the plan's clip, noise and declared sizes allow")


def weighted_mean(
    updates: Mapping[str, Sequence[NDArray[np.float32]]], weights: Mapping[str, float]
) -> tuple[NDArray[np.float64], ...]:
    """Return the mean of updates, weighted by public constants, in float64.

    Args:
        updates: By partner, at least one.
        weights: By partner, above 0: the sizes that partners declared.
    """
    whole = sum(weights[partner] for partner in updates)
    # Sorted, so that the order of arrival cannot change the last bit.
    terms = [
        [np.asarray(array, dtype=np.float64) * (weights[partner] / whole) for array in updates[partner]]
        for partner in sorted(updates)
    ]
    return tuple(np.sum(np.stack(column), axis=0) for column in zip(*terms, strict=True))


def fedavg(weights: Weights, mean: Sequence[NDArray[np.float64]], rate: float) -> Weights:
    """Take the mean update as a step (McMahan et al. 2017, algorithm 1; `rate` 1 is FedAvg itself)."""
    return tuple((w + rate * m).astype(np.float32) for w, m in zip(weights, mean, strict=True))


@dataclass(frozen=True)
class AdamState:
    """Moments of FedAdam.

    Args:
        first: Running mean of updates.
        second: Running mean of their squares.
    """

    first: tuple[NDArray[np.float64], ...]
    second: tuple[NDArray[np.float64], ...]

    @staticmethod
    def start(weights: Weights) -> "AdamState":
        """Return zero moments for some weights."""
        zeros = tuple(np.zeros(w.shape) for w in weights)
        return AdamState(zeros, zeros)


def fedadam(weights: Weights, mean: Sequence[NDArray[Any]], state: AdamState, rate: float) -> tuple[Weights, AdamState]:
    """Take an adaptive step (Reddi et al. 2021, arXiv 2003.00295, algorithm 2).

    beta1 = 0.9, beta2 = 0.99 and tau = 1e-3 are that paper's defaults.
    """
    beta1, beta2, tau = 0.9, 0.99, 1e-3
    first = tuple(beta1 * m + (1 - beta1) * d for m, d in zip(state.first, mean, strict=True))
    second = tuple(beta2 * v + (1 - beta2) * d**2 for v, d in zip(state.second, mean, strict=True))
    steps = (rate * m / (np.sqrt(v) + tau) for m, v in zip(first, second, strict=True))
    moved = tuple((w + s).astype(np.float32) for w, s in zip(weights, steps, strict=True))
    return moved, AdamState(first, second)


def _refused(partner: str, rule: str) -> ReplyRefused:
    return ReplyRefused(Fault(f"partner {partner}", rule, "the round goes on without it"))
