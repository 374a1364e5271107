"""White-box conformance: is what a step does what its event says?

Each check compares a measurement with the claim and says in one sentence what a failure means. Statistical checks
fail a correct build with probability `FALSE_ALARM` at most; the others are exact up to rounding. They see faults
that no attack on a model can: noise 2 % too small is plain here and invisible there.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FALSE_ALARM",
    "Check",
    "alone",
    "failed",
    "gradients_match",
    "inclusion",
    "independence",
    "noise_scale",
    "noise_shape",
    "one_unit_each",
    "reconstructed",
    "sensitivity",
    "whole_sensitivity",
]

Floats = NDArray[np.float64]

FALSE_ALARM = 1e-6  # of one statistical check of a correct build
_ROUNDING = 1e-4  # of the clip: sums are released in float32


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was measured.

    Args:
        name: What.
        measured: The measurement.
        expected: What the claim makes of it.
        p_value: Chance of a measurement this odd in a correct build; None where the expectation is exact.
        passed: Whether measurement and claim agree.
        means: What a failure means.
    """

    name: str
    measured: float
    expected: float
    p_value: float | None
    passed: bool
    means: str


def noise_scale(noise: Floats, scale: float, *, name: str = "scale of the noise") -> Check:
    """Compare the variance of noise with the claim: chi-squared, two-sided.

    Args:
        noise: What steps without a gradient changed, shape (coordinates,).
        scale: Claimed standard deviation, in the same unit.
        name: What the noise is of.
    """
    from scipy.stats import chi2  # noqa: PLC0415 - half a second, only when auditing

    square = float(np.square(noise / scale).sum())
    p_value = min(1.0, 2 * float(min(chi2.cdf(square, noise.size), chi2.sf(square, noise.size))))
    return Check(
        name=name,
        measured=float(np.sqrt(np.square(noise).mean())),
        expected=scale,
        p_value=p_value,
        passed=p_value >= FALSE_ALARM,
        means="less noise than was charged for: the true epsilon is above the one in the ledger",
    )


def noise_shape(noise: Floats, scale: float, *, name: str = "shape of the noise") -> Check:
    """Compare the distribution of noise with the normal one (Kolmogorov and Smirnov); shape (coordinates,).

    Discrete noise of a scale of many units passes for normal.
    """
    from scipy.stats import kstest  # noqa: PLC0415 - as above

    found = kstest(noise / scale, "norm")
    p_value = float(found.pvalue)
    return Check(
        name=name,
        measured=float(found.statistic),
        expected=0.0,
        p_value=p_value,
        passed=p_value >= FALSE_ALARM,
        means="the noise is not Gaussian, so the accountant's arithmetic is about another mechanism",
    )


def independence(draws: Floats, *, name: str) -> Check:
    """Look for correlation between any two draws of noise, of their values or of their sizes.

    Args:
        draws: Noise of several steps or calls, shape (draws, coordinates).
        name: What the draws are.
    """
    from scipy.special import ndtr  # noqa: PLC0415 - as above

    pairs = list(itertools.combinations(range(len(draws)), 2))
    found = [np.corrcoef(values) for values in (draws, np.abs(draws))]
    # A draw that is constant has no correlation; it is as repeated as can be.
    most = max(abs(float(np.nan_to_num(table[pair], nan=1.0))) for table in found for pair in pairs)
    p_value = min(1.0, 2 * len(found) * len(pairs) * float(ndtr(-most * math.sqrt(draws.shape[1]))))
    return Check(
        name=name,
        measured=most,
        expected=0.0,
        p_value=p_value,
        passed=p_value >= FALSE_ALARM,
        means="noise is used more than once: whoever sees two releases subtracts it",
    )


def sensitivity(moves: Floats, clip: float) -> Check:
    """Compare how far one customer moves the released sum with the clip.

    Args:
        moves: For each customer, the L2 norm of the sum's change when it is taken out, shape (customers,).
        clip: C.
    """
    most = float(np.max(moves))
    return Check(
        name="most that one customer moves a sum",
        measured=most,
        expected=clip,
        p_value=None,
        # The bound is met by somebody, or the check has seen nothing.
        passed=abs(most / clip - 1) <= 100 * _ROUNDING and most <= clip * (1 + _ROUNDING),
        means="one customer weighs more than the noise was scaled for, or the clip is not the plan's",
    )


def gradients_match(
    moves: Floats, gradients: Floats, *, clip: float, name: str = "distance from autograd's gradient"
) -> Check:
    """Compare what each customer adds to the released sum with its own gradient, clipped here.

    Args:
        moves: What each customer adds, shape (customers, parameters).
        gradients: Each customer's gradient by plain autograd, or its vector, shape (customers, parameters).
        clip: C.
        name: What is compared.
    """
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    clipped = gradients * np.minimum(1.0, clip / np.maximum(norms, 1e-300))
    worst = float(np.linalg.norm(moves - clipped, axis=1).max())
    return Check(
        name=name,
        measured=worst,
        expected=0.0,
        p_value=None,
        passed=worst <= _ROUNDING * clip,
        means="what a customer adds is not its own clipped vector: another mechanism than the one charged for",
    )


def whole_sensitivity(moves: NDArray[np.int64], units: int, *, name: str) -> Check:
    """Compare how far one customer moves a sum of whole numbers with the sensitivity, without any rounding.

    Args:
        moves: For each customer, the sum less the sum without it, shape (customers, coordinates).
        units: D, the sensitivity.
        name: What the sum is of.
    """
    most = max(sum(number * number for number in move[np.flatnonzero(move)].tolist()) for move in moves)
    return Check(
        name=name,
        measured=math.sqrt(most),
        expected=float(units),
        p_value=None,
        # As above, the bound is met by somebody, but for the room that rounding takes.
        passed=(units - units // 100) ** 2 <= most <= units**2,
        means="one customer weighs more than the noise was scaled for, or less than it is noised for",
    )


def alone(moves: NDArray[np.int64], parts: NDArray[np.int64], *, name: str) -> Check:
    """Compare what customers add among others with what they add alone: not one unit may differ.

    Args:
        moves: As in `whole_sensitivity`.
        parts: Each customer's sum by itself, shape (customers, coordinates).
        name: What the sum is of.
    """
    most = int(np.abs(moves - parts).max())
    return Check(
        name=name,
        measured=float(most),
        expected=0.0,
        p_value=None,
        passed=most == 0,
        means="what one customer adds depends on who else is there: one more or less moves others' parts as well",
    )


def reconstructed(found: Floats, expected: Floats, *, name: str, room: float) -> Check:
    """Compare what is read from a sum without noise with what it ought to say.

    Args:
        found: As it is read, any shape.
        expected: By other arithmetic, the same shape.
        name: What is read.
        room: Greatest difference of a number, for rounding.
    """
    worst = float(np.abs(found - expected).max())
    return Check(
        name=name,
        measured=worst,
        expected=0.0,
        p_value=None,
        passed=worst <= room,
        means="the sum is read as something else than was added up: noise is then of another size than is assumed",
    )


def one_unit_each(units: int, customers: int) -> Check:
    """Compare the number of units that are sampled and clipped with the number of customers."""
    return Check(
        name="units made of the customers' rows",
        measured=float(units),
        expected=float(customers),
        p_value=None,
        passed=units == customers,
        means="rows of one customer are units of their own: the guarantee is for a row, not for a customer",
    )


def inclusion(
    included: NDArray[np.bool_], rate: float, *, name: str = "share of customers that a step samples"
) -> Check:
    """Compare who was sampled with independent coins: in total, by customer and by step.

    Sizes of steps that vary less than coins do betray shuffled or fixed batches, which cost more.

    Args:
        included: Whether a step sampled a customer, shape (steps, customers).
        rate: Claimed Poisson rate, in (0, 1).
        name: What samples.
    """
    from scipy.stats import binom, chi2  # noqa: PLC0415 - as above

    steps, customers = included.shape
    total = int(included.sum())
    p_values = [_two_sided(binom.cdf(total, included.size, rate), binom.sf(total - 1, included.size, rate))]
    for counts, coins in ((included.sum(axis=0), steps), (included.sum(axis=1), customers)):
        spread = float(np.square(counts - coins * rate).sum() / (coins * rate * (1 - rate)))
        p_values.append(_two_sided(chi2.cdf(spread, len(counts)), chi2.sf(spread, len(counts))))
    p_value = min(1.0, len(p_values) * min(p_values))
    return Check(
        name=name,
        measured=total / included.size,
        expected=rate,
        p_value=p_value,
        passed=p_value >= FALSE_ALARM,
        means="sampling is not the independent coins that amplification by sampling was charged for",
    )


def failed(checks: Sequence[Check]) -> tuple[str, ...]:
    """Return the names of the checks that failed."""
    return tuple(check.name for check in checks if not check.passed)


def _two_sided(below: float, above: float) -> float:
    return min(1.0, 2 * float(min(below, above)))
