"""What a federation's recommender is held against: each partner alone, and everything pooled.

All of them are made by the plan's own sums and the coordinator's own steps, so what differs is whose customers are in
the sums, and the noise. A partner alone under the same privacy pays the same events by itself: it adds all their noise
to its own sums.
"""

import numpy as np
from numpy.typing import NDArray

from coterie.clients.recommendersums import Asked, recommender_total
from coterie.clients.task import initial_weights, recommender_of
from coterie.models.histories import Histories
from coterie.models.recommenders import family
from coterie.privacy.plan import TRAINED, Plan, Secure
from coterie.privacy.randomness import Stream
from coterie.privacy.schedule import COUNT, trained
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.sums import numbers_of
from coterie.server.optimizers import OptimizerState, optimizer_settings, published
from coterie.server.steps import Total, stepped

__all__ = ["counted", "private", "without_noise"]


def private(
    plan: Plan, histories: Histories, *, attributes: NDArray[np.float32] | None, stream: Stream
) -> family.Weights:
    """Take the plan's steps along one party's sums, with the noise that pays for the plan's epsilon.

    Args:
        plan: Of one party, as `oneparty.alone` returns it.
        histories: Its training customers'.
        attributes: Encoded public attributes of the items.
        stream: Secret randomness of samples and noise.
    """
    state = OptimizerState.start(initial_weights(plan))
    for step in trained(plan):
        share, total = _summed(plan, step, state.weights, histories, attributes=attributes, stream=stream)
        state = stepped(plan, state, step, Total(total + discrete_gaussians(share, len(total), stream), ("alone",)))
    return published(optimizer_settings(plan, plan.secure or Secure()), state)


def without_noise(
    plan: Plan, histories: Histories, *, attributes: NDArray[np.float32] | None, stream: Stream
) -> family.Weights:
    """Take the plan's steps along one party's sums without noise, with its true size; arguments as `private`.

    Leaks:
        Everything: in a simulation alone.
    """
    state, size = OptimizerState.start(initial_weights(plan)), max(len(histories), 1)
    for step in trained(plan):
        _, total = _summed(plan, step, state.weights, histories, attributes=attributes, stream=stream)
        counting = step.startswith(f"{COUNT}/")
        if plan.model.family in TRAINED and not counting:
            state = stepped(plan, state, step, Total(total, ("alone",)))
            continue
        mean = total / (numbers_of(plan, step).sensitivity // plan.parts * size)
        weights = (
            family.counted(state.weights, mean, noise=0.0)
            if counting
            else family.advance(recommender_of(plan), state.weights, mean, noise=0.0, customers=size)
        )
        state = OptimizerState.start(weights)
    return published(optimizer_settings(plan, plan.secure or Secure()), state)


def counted(histories: Histories, items: int) -> family.Weights:
    """Return how many customers have each item, as the weights of popularity."""
    return (np.bincount(histories.items, minlength=items).astype(np.float32),)


def _summed(
    plan: Plan,
    step: str,
    weights: family.Weights,
    histories: Histories,
    *,
    attributes: NDArray[np.float32] | None,
    stream: Stream,
) -> tuple[int, NDArray[np.int64]]:
    """Return the noise that a sum is to have, in units, and the sum without it."""
    numbers = numbers_of(plan, step)
    asked = Asked(plan, weights, attributes)
    return numbers.share, recommender_total(asked, step, histories, numbers=numbers, stream=stream)
