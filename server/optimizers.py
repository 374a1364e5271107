"""Steps of the server along noisy mean gradients: momentum, Adam, and averages of iterates.

All of it is arithmetic on what was released already, in float64 and in one order: everybody who has the releases can
take the same steps again, and gets the same bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from coterie.models.propensity import Weights
from coterie.privacy.plan import Plan, Secure

__all__ = ["OptimizerSettings", "OptimizerState", "advance", "optimizer_settings", "published", "split_flat"]

Doubles = tuple[NDArray[np.float64], ...]

SECOND, EPSILON = 0.999, 1e-8  # beta2 and epsilon of Kingma and Ba 2015


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How steps are taken; all public.

    Args:
        kind: "sgd", with momentum, or "adam"; "newton" is sgd along gradients that were divided by a curvature.
        learning_rate: Step size, above 0.
        momentum: Share of the running gradient that is kept each step, in [0, 1); beta1 of Adam.
        averaging: Share of the running average of weights that is kept each step, in [0, 1); 0 publishes the last.

    Raises:
        ValueError: A setting is out of its range.
    """

    kind: Literal["sgd", "adam", "newton"]
    learning_rate: float
    momentum: float
    averaging: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.kind not in {"sgd", "adam", "newton"}:
            raise ValueError(f"optimiser {self.kind!r} is not one of sgd, adam, newton")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError("the learning rate is not a number above 0")
        if not (0 <= self.momentum < 1 and 0 <= self.averaging < 1):
            raise ValueError("momentum and averaging are not both in [0, 1)")


@dataclass(frozen=True)
class OptimizerState:
    """Where the server is.

    Args:
        step: Steps taken.
        weights: What the next gradient is taken at.
        first: Running gradient.
        second: Running square of the gradient; zeros where the optimiser has no use for it.
        average: Running average of weights, not yet corrected for its start at zero.
    """

    step: int
    weights: Weights
    first: Doubles
    second: Doubles
    average: Doubles

    @staticmethod
    def start(weights: Weights) -> "OptimizerState":
        """Return the state before the first step."""
        zeros = tuple(np.zeros(w.shape) for w in weights)
        return OptimizerState(0, weights, zeros, zeros, zeros)


def optimizer_settings(plan: Plan, secure: Secure) -> OptimizerSettings:
    """Return how a plan with secure sums takes its steps."""
    return OptimizerSettings(
        kind=cast("Literal['sgd', 'adam', 'newton']", secure.optimizer),
        learning_rate=plan.training.learning_rate,
        momentum=secure.momentum,
        averaging=secure.averaging,
    )


def split_flat(flat: NDArray[np.float64], shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.float64]]:
    """Return one array as several, in parameter order, each filled row by row."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


def advance(
    settings: OptimizerSettings,
    state: OptimizerState,
    gradient: Sequence[NDArray[Any]],
    *,
    within: Callable[[Weights], Weights] = lambda weights: weights,
) -> OptimizerState:
    """Take one step.

    Args:
        settings: How.
        state: From where; it stays as it is.
        gradient: The noisy mean gradient at `state.weights`, in parameter order.
        within: Returns the nearest weights that are allowed.

    Returns:
        The state after the step.

    Raises:
        ValueError: The gradient has other shapes than the weights.
    """
    if [np.shape(g) for g in gradient] != [w.shape for w in state.weights]:
        raise ValueError("the gradient has other shapes than the weights")
    doubles = tuple(np.asarray(g, dtype=np.float64) for g in gradient)
    first, second, moves = (_adam if settings.kind == "adam" else _sgd)(settings, state, doubles)
    weights = tuple(
        (w.astype(np.float64) - settings.learning_rate * move).astype(np.float32)
        for w, move in zip(state.weights, moves, strict=True)
    )
    weights = within(weights)
    average = _kept(settings.averaging, state.average, weights)
    return OptimizerState(state.step + 1, weights, first, second, average)


def published(settings: OptimizerSettings, state: OptimizerState) -> Weights:
    """Return the weights to publish: the average of all iterates, or the last where averaging is 0.

    The iterate of t steps ago weighs averaging**t; the weights of a study add up to 1 after every step, as in Adam's
    correction of its moments. Before the first step there is nothing to average but the start.
    """
    if state.step == 0 or settings.averaging == 0:
        return state.weights
    whole = 1 - settings.averaging**state.step
    return tuple((a / whole).astype(np.float32) for a in state.average)


def _sgd(settings: OptimizerSettings, state: OptimizerState, gradient: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Momentum of Polyak (1964), undamped: gradients add up."""
    first = tuple(settings.momentum * m + g for m, g in zip(state.first, gradient, strict=True))
    return first, state.second, first


def _adam(settings: OptimizerSettings, state: OptimizerState, gradient: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Adam with both corrections (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1)."""
    first = _kept(settings.momentum, state.first, gradient)
    second = _kept(SECOND, state.second, [g**2 for g in gradient])
    step = state.step + 1
    ones, twos = 1 - settings.momentum**step, 1 - SECOND**step
    moves = tuple((m / ones) / (np.sqrt(v / twos) + EPSILON) for m, v in zip(first, second, strict=True))
    return first, second, moves


def _kept(share: float, running: Doubles, new: Sequence[NDArray[Any]]) -> Doubles:
    return tuple(share * old + (1 - share) * one for old, one in zip(running, new, strict=True))
