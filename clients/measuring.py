"""The one way a metric leaves: a noisy histogram of held-out scores.

Exact evaluation results are a membership oracle: a coordinator that chooses the model reads a chosen
customer's membership and label from one un-noised number. So no metric is computed here at all; counts leave,
with noise, and are charged.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coterie.clients.opening import Opened
from coterie.clients.predicting import inputs_of, row_logits
from coterie.models import propensity
from coterie.models.metrics import bin_edges
from coterie.privacy.discrete import discrete_gaussians
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import Stream

__all__ = ["noisy_histogram", "score_histogram"]


def score_histogram(opened: Opened, plan: Plan, weights: propensity.Weights, stream: Stream) -> NDArray[np.int64]:
    """Count held-out customers by label and score bin, and by the plan's groups, without noise.

    Returns:
        Shape (2 * groups, bins): of each group a row for label 0 and one for label 1.

    Guarantees:
        Each customer is counted once, by one of its rows drawn at random, so adding or removing a customer
        changes one count by 1.

    Leaks:
        Everything, as it stands: only `noisy_histogram` of it may leave.
    """
    bins = plan.metrics.bins
    held_out = np.flatnonzero(opened.held_out)
    # One row per customer: the first in a random order of the rows.
    order = held_out[np.argsort(stream.uniforms(len(held_out)), kind="stable")]
    _, first = np.unique(opened.customer[order], return_index=True)
    rows = order[first]
    columns = {name: values[rows] for name, values in opened.columns.items()}
    # Row by row: in one product of matrices a customer more would move others across an edge.
    logits = row_logits(plan, weights, inputs_of(plan, columns))
    place = np.searchsorted(bin_edges(bins), logits, side="right")
    line = 2 * _groups(plan, columns) + opened.labels[rows].astype(np.int64)
    return np.bincount(line * bins + place, minlength=2 * plan.grouped * bins).reshape(-1, bins).astype(np.int64)


def _groups(plan: Plan, columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.int64] | int:
    """Return each row's group: its word of the plan's column, and who has none is in the last."""
    if not plan.metrics.groups:
        return 0
    words = columns[plan.metrics.groups].astype(np.int64)
    return np.where(words < 0, plan.grouped - 1, words)


def noisy_histogram(counts: NDArray[np.int64], sigma: float, stream: Stream) -> NDArray[np.int64]:
    """Add discrete Gaussian noise of scale `sigma` to every count, also to those that are 0."""
    return counts + discrete_gaussians(sigma, counts.size, stream).reshape(counts.shape)
