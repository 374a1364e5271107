"""What the coordinator makes of the sums of a model on private bins: counts, and steps along mean gradients.

All of it is arithmetic on what was released and paid for, with the plan's public constants: everybody who has the
releases can take the same steps again.
"""

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import binning_of, weight_shapes
from coterie.models.additive import curvature, ordered, ridged, settled
from coterie.models.binning import Layout, layout_of
from coterie.models.propensity import Weights
from coterie.privacy.plan import Bins, Plan, Secure
from coterie.privacy.schedule import COUNT
from coterie.server.optimizers import OptimizerState, advance, optimizer_settings, split_flat

__all__ = ["binned_step", "binned_told"]


def binned_step(
    plan: Plan, state: OptimizerState, step: str, mean: NDArray[np.float64], *, noise: float, customers: float
) -> OptimizerState:
    """Return the state after a sum.

    Args:
        plan: With private bins.
        state: Before it.
        step: Which sum of the plan.
        mean: The sum over the declared customers.
        noise: Standard deviation of every coordinate of it.
        customers: How many customers were declared.
    """
    bins = plan.bins or Bins()
    if step.startswith(f"{COUNT}/"):
        # A row counts 1 / sqrt(columns) in each column, so that all of its cells together have norm 1.
        shares = mean * np.sqrt(len(binning_of(plan).columns))
        return OptimizerState.start((shares.astype(np.float32), *state.weights[1:]))
    gradient = split_flat(mean, weight_shapes(plan)[1:])
    settings = optimizer_settings(plan, plan.secure or Secure())
    counts, *parameters = state.weights
    layout = layout_of(binning_of(plan), counts)
    if plan.model.family != "mlp":
        gradient = ridged(tuple(parameters), gradient, ridge=bins.ridge / customers)
    if settings.kind == "newton":
        scale = curvature(layout, ridge=bins.ridge / customers, damping=bins.damping * noise)
        gradient = [part / height for part, height in zip(gradient, scale, strict=True)]
    still = np.zeros(counts.shape)  # counts are no parameter: they move nowhere
    return advance(settings, state, [still, *gradient], within=lambda weights: _in_order(weights, layout))


def binned_told(plan: Plan, weights: Weights, noise: float) -> Weights:
    """Return the weights to publish, from averages of the iterates.

    Args:
        plan: With private bins.
        weights: Counts, and averages of the others.
        noise: Standard deviation of every coordinate of the mean of counts.
    """
    if plan.model.family == "mlp":
        return weights
    binning = binning_of(plan)
    layout, each = layout_of(binning, weights[0]), noise * float(np.sqrt(len(binning.columns)))
    return weights[0], *settled(weights[1:], layout, noise=each)


def _in_order(weights: Weights, layout: Layout) -> Weights:
    """Return weights of which every column that has a trend keeps it."""
    return weights[0], *(ordered(weights[1:], layout) if len(weights) == 3 else weights[1:])
