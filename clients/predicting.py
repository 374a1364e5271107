"""What a plan's propensity model says of rows: from opened columns to what it takes, and to log-odds.

What a model takes of rows does not depend on its weights: features of the contract's public encoding, or the cells of
private bins. Which slots cells are in, follows from the counts that the model carries.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import binning_of, encoding_of
from coterie.models import propensity
from coterie.models.additive import margins
from coterie.models.binning import Layout, cells_of, layout_of, slots_of
from coterie.models.features import encode
from coterie.models.propensity import Weights
from coterie.privacy.plan import Plan
from coterie.privacy.training import scores
from coterie.privacy.training.slotsums import slot_scores

__all__ = ["inputs_of", "layout_for", "logits_of", "parameters_of", "row_logits"]

Inputs = NDArray[Any]


def inputs_of(plan: Plan, columns: Mapping[str, NDArray[np.float64]]) -> Inputs:
    """Return what the plan's model takes of rows: features, (rows, features), or cells, (rows, columns)."""
    if plan.bins is None:
        return encode(encoding_of(plan.contract), columns)
    return cells_of(binning_of(plan), columns)


def layout_for(plan: Plan, weights: Weights) -> Layout:
    """Return the bins that a model's counts lead to.

    Raises:
        ValueError: The plan has none.
    """
    return layout_of(binning_of(plan), weights[0])


def parameters_of(plan: Plan, weights: Weights) -> Weights:
    """Return the weights that are trained: all but the counts of private bins."""
    return weights if plan.bins is None else weights[1:]


def logits_of(plan: Plan, weights: Weights, inputs: Inputs) -> NDArray[np.float64]:
    """Return log-odds of rows, shape (rows,), at home: last bits may depend on which rows are there together."""
    if plan.bins is not None:
        return row_logits(plan, weights, inputs)
    return propensity.logits(plan.model.family, plan.model.hidden, weights, inputs)


def row_logits(plan: Plan, weights: Weights, inputs: Inputs) -> NDArray[np.float64]:
    """Return log-odds of rows, shape (rows,).

    Guarantees:
        A row's are the same, bit for bit, whatever other rows are there and wherever it stands.
    """
    family, hidden = plan.model.family, plan.model.hidden
    if plan.bins is None:
        return scores(propensity.build(family, inputs.shape[1], hidden), weights, inputs)
    slots = slots_of(layout_for(plan, weights), inputs)
    if family == "mlp":
        return slot_scores(weights[1:], slots, hidden=hidden)
    return margins(weights[1:], slots)
