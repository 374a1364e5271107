"""What the coordinator makes of an opened sum: a gradient step, popularity, or the next state of a recommender.

All of it is arithmetic on what was released and paid for, with the plan's public constants.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import recommender_of, weight_shapes
from coterie.models.propensity import Weights
from coterie.models.recommenders import family
from coterie.privacy.plan import TRAINED, Plan, Secure
from coterie.privacy.schedule import COUNT
from coterie.privacy.sums import numbers_of
from coterie.server.binnedsteps import binned_step, binned_told
from coterie.server.optimizers import OptimizerState, advance, optimizer_settings, published, split_flat

__all__ = ["Total", "size_of", "stepped", "told"]


@dataclass(frozen=True)
class Total:
    """A noisy sum over the customers of some partners.

    Args:
        total: In units, int64, shape (coordinates,).
        survivors: Names of the partners that are in it.
    """

    total: NDArray[np.int64]
    survivors: tuple[str, ...]


def size_of(plan: Plan, step: str) -> int:
    """Return how many coordinates a sum of training has."""
    if plan.bins is not None:
        first, *others = weight_shapes(plan)
        return int(np.prod(first)) if step.startswith(f"{COUNT}/") else sum(int(np.prod(shape)) for shape in others)
    if not plan.recommends:
        return sum(int(np.prod(shape)) for shape in weight_shapes(plan))
    settings = recommender_of(plan)
    return settings.items if step.startswith(f"{COUNT}/") else family.sum_size(settings)


def stepped(
    plan: Plan, state: OptimizerState, step: str, opened: Total, *, noise: float | None = None
) -> OptimizerState:
    """Return the state after a sum.

    Args:
        plan: The plan.
        state: Before it.
        step: Which sum of the plan.
        opened: The sum.
        noise: Standard deviation of every coordinate of the mean; None for what the plan and the partners make it.
    """
    declared = sum(partner.customers for partner in plan.partners if partner.name in opened.survivors)
    mean, own = _mean(plan, step, opened, declared)
    noise = own if noise is None else noise
    if plan.bins is not None:
        return binned_step(plan, state, step, mean, noise=noise, customers=declared)
    if not plan.recommends:
        return _gradient_step(plan, state, split_flat(mean, weight_shapes(plan)))
    if step.startswith(f"{COUNT}/"):
        return OptimizerState.start(family.counted(state.weights, mean, noise=noise))
    if plan.model.family in TRAINED:
        still = np.zeros(state.weights[0].shape)  # popularity is no parameter: it moves nowhere
        return _gradient_step(plan, state, [still, *split_flat(mean, weight_shapes(plan)[1:])])
    weights = family.advance(recommender_of(plan), state.weights, mean, noise=noise, customers=declared)
    return OptimizerState.start(weights)


def told(plan: Plan, state: OptimizerState, *, noise: float | None = None) -> Weights:
    """Return the weights to publish: averages where the plan has them; on bins, nothing of slots that nobody is in.

    Args:
        plan: The plan.
        state: After its last step.
        noise: Standard deviation of every coordinate of the mean of counts; None for what all partners make it.
    """
    weights = published(optimizer_settings(plan, plan.secure or Secure()), state)
    if plan.bins is None:
        return weights
    if noise is None:
        everybody = tuple(partner.name for partner in plan.partners)
        nothing = Total(np.zeros(1, dtype=np.int64), everybody)
        noise = _mean(plan, f"{COUNT}/1", nothing, sum(partner.customers for partner in plan.partners))[1]
    # Bins are made of the very counts that were released: an average of equal numbers may differ in its last bit.
    return binned_told(plan, (state.weights[0], *weights[1:]), noise)


def _mean(plan: Plan, step: str, opened: Total, declared: int) -> tuple[NDArray[np.float64], float]:
    """Return the sum over the expected number of customers, a public constant, and its noise's standard deviation."""
    numbers = numbers_of(plan, step)
    gradient = not step.startswith(f"{COUNT}/") and (not plan.recommends or plan.model.family in TRAINED)
    clip, rate = (plan.training.clip, plan.training.sample_rate) if gradient else (1.0, 1.0)
    scale = clip / numbers.sensitivity / (rate * declared)
    return opened.total.astype(np.float64) * scale, math.sqrt(len(opened.survivors)) * numbers.share * scale


def _gradient_step(plan: Plan, state: OptimizerState, gradient: list[NDArray[np.float64]]) -> OptimizerState:
    return advance(optimizer_settings(plan, plan.secure or Secure()), state, gradient)
