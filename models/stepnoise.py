"""How much of a learned weight is noise: the noise of every step, carried through the steps that followed it.

Near its end the learning of a slot's weight is a linear recursion: a gradient is about h (w - w*) with noise of known
deviation, and what becomes of it is momentum, a step, and an average. So the noise's part of the published weight has a
variance that follows exactly, of public numbers alone: the plan's, and the model's own.

What this leaves out:

- Slots are taken one by one. Where columns go together, as marital status and place in the household do, noise also
  moves between them, along directions that hardly change any score, where nothing draws it back: measured on a census,
  the true deviation was up to 3.4 times as great. Without any curvature the same recursion tells what it would be
  there. That was not exceeded in slots with 3 % of customers; it is no bound: noise of small slots leaks into others.
- The curvature h is the model's own, at the end; while a study starts, it is another.
- What a trend, the penalty and the damping pull a weight towards is a bias, and no noise.
- The noise of the counts, which says what the bins are and how large.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from coterie.models.additive import curvature
from coterie.models.binning import Layout

__all__ = ["Learning", "information", "noise_variance"]

Doubles = NDArray[np.float64]

_GRID = 64  # points of a normal distribution, each of equal chance


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How weights of slots were learned; all of it public.

    Args:
        kind: "newton", "sgd", or "adam", of which nothing is known in closed form.
        steps: How many were taken.
        learning_rate: Step size.
        momentum: Share of the running gradient that is kept.
        averaging: Decay of the average that was published; 0 for the last weights.
        noise: Standard deviation of every coordinate of a mean gradient.
        customers: Declared.
        ridge: Of the penalty, over the customers.
        damping: Added to the curvature, over the customers.
        residual: Greatest size that a residual was clipped to.
        positive_weight: What rows with label 1 weigh.
    """

    kind: str
    steps: int
    learning_rate: float
    momentum: float
    averaging: float
    noise: float
    customers: int
    ridge: float
    damping: float
    residual: float = math.inf
    positive_weight: float = 1.0


def information(middle: Doubles, spread: Doubles, learning: Learning) -> tuple[Doubles, Doubles]:
    """Return a customer's curvature of the clipped loss, and the plain p (1 - p), on average over normal log-odds.

    Args:
        middle: Mean log-odds of the model, any shape.
        spread: Their standard deviation, in the same shape.
        learning: Says where residuals were clipped, and what positives weigh.
    """
    weight, most = learning.positive_weight, learning.residual
    normal = np.array([NormalDist().inv_cdf((place + 0.5) / _GRID) for place in range(_GRID)])
    odds = middle[..., None] + spread[..., None] * normal
    told, true = _chance(odds), _chance(odds - math.log(weight))  # weighted positives shift what a model says
    below = (1.0 - true) * (told <= most) + weight * true * (weight * (1.0 - told) <= most)
    return (told * (1.0 - told) * below).mean(axis=-1), (true * (1.0 - true)).mean(axis=-1)


def noise_variance(layout: Layout, curved: Doubles, learning: Learning) -> Doubles | None:
    """Return the variance that the noise of all steps leaves in each slot's published weight, shape (slots,).

    Args:
        layout: Bins with their noisy shares of customers.
        curved: Curvature of the loss per customer in each slot, from `information`.
        learning: How weights were learned.

    Returns:
        The variance, exact for independent slots of this curvature; None for Adam, whose steps are not linear.
    """
    if learning.kind == "adam":
        return None
    scale = np.ones(len(layout.share))
    if learning.kind == "newton":
        scale = curvature(layout, ridge=learning.ridge, damping=learning.damping)[0][0]
    ratio = (np.maximum(layout.share, 0.0) * curved + learning.ridge) / scale
    into = _into(learning)  # of one unit of noise in a step along a gradient
    forward = _forward(learning, ratio)  # (slots, 3, 3)
    state = np.zeros_like(forward)
    for _ in range(learning.steps):
        state = forward @ state @ forward.transpose(0, 2, 1) + np.outer(into, into)
    if learning.averaging == 0:
        found = state[:, 1, 1]
    else:
        found = state[:, 2, 2] / (1.0 - learning.averaging**learning.steps) ** 2
    return np.asarray(found * (learning.noise / scale) ** 2, dtype=np.float64)


def _into(learning: Learning) -> Doubles:
    """Return what a unit of noise adds to the running gradient, the weight and the average, in its own step."""
    return np.array([1.0, -learning.learning_rate, -(1.0 - learning.averaging) * learning.learning_rate])


def _forward(learning: Learning, ratio: Doubles) -> Doubles:
    """Return each slot's recursion of running gradient, weight and average, as `server/optimizers.py` takes its steps.

    m' = momentum m + ratio w      w' = w - rate m'      a' = averaging a + (1 - averaging) w'
    """
    rate, momentum, averaging = learning.learning_rate, learning.momentum, learning.averaging
    found = np.zeros((len(ratio), 3, 3))
    found[:, 0, 0], found[:, 0, 1] = momentum, ratio
    found[:, 1, 0], found[:, 1, 1] = -rate * momentum, 1.0 - rate * ratio
    found[:, 2, :2], found[:, 2, 2] = (1.0 - averaging) * found[:, 1, :2], averaging
    return found


def _chance(odds: Doubles) -> Doubles:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -500.0, 500.0))), dtype=np.float64)
