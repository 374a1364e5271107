"""What one customer adds to the sums of a model on private bins, by arithmetic that shares no code with the sums.

Cells are looked up one value at a time, and gradients come from plain autograd, one row at a time.
Only what all can compute of what was published is taken as it is: which slot a cell is in.
"""

import bisect
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from coterie.clients.task import binning_of
from coterie.models import propensity
from coterie.models.binning import BinnedColumn, layout_of, slots_of
from coterie.models.propensity import Weights
from coterie.privacy.plan import Plan
from coterie.simulations.attacks.canaries import Rows

__all__ = ["binned_vector", "cells_vector", "heading"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def cells_vector(plan: Plan, rows: Rows) -> Floats:
    """Return what one customer adds to the counts of cells, at most of length 1; shape (cells,)."""
    binning, cells = binning_of(plan), _cells(plan, rows)
    found = np.zeros(binning.cells)
    for row in cells:
        found[row] += 1.0 / math.sqrt(len(binning.columns)) / len(cells)
    return found


def binned_vector(plan: Plan, weights: Weights, rows: Rows) -> Floats:
    """Return what one customer adds to a sum of gradients: the mean of its rows', each clipped to C.

    Args:
        plan: The plan.
        weights: Counts of cells, and parameters.
        rows: Of one customer.

    Returns:
        Shape (parameters,).
    """
    found = []
    for row in range(len(rows.labels)):
        columns = {name: values[[row]] for name, values in rows.columns.items()}
        one = Rows(columns, rows.labels[[row]], rows.customer[[row]], rows.held_out[[row]])
        gradient = _gradient(plan, weights, one)
        found.append(gradient * min(1.0, plan.training.clip / max(float(np.linalg.norm(gradient)), 1e-300)))
    return np.asarray(np.mean(found, axis=0))


def heading(plan: Plan, weights: Weights, slots: Integers) -> Floats:
    """Return clipped gradients of customers with label 1, along the first layer's weights of one of their slots.

    Args:
        plan: The plan; its weight for label 1 counts.
        weights: Counts of cells, and parameters.
        slots: Of each customer, all of its rows alike, shape (customers, active).

    Returns:
        Shape (customers, hidden), or (customers, 1) without a hidden layer; the same for each of a customer's slots.
    """
    first, start, *last = (torch.from_numpy(part.astype(np.float64)) for part in weights[1:])
    within = (first[:, slots].sum(dim=2).T + start).requires_grad_()
    margin = torch.tanh(within) @ last[0][0] + last[1] if last else within[:, 0]
    losses = plan.training.positive_weight * functional.softplus(-margin)
    error, inner = torch.autograd.grad(losses.sum(), (margin, within))
    squares = inner.square().sum(dim=1) * (slots.shape[1] + 1)
    if last:
        squares = squares + error.square() * (torch.tanh(within).square().sum(dim=1) + 1)
    factors = (plan.training.clip / squares.sqrt().clamp(min=1e-300)).clamp(max=1.0)
    return np.asarray((factors[:, None] * inner).detach().numpy())


def _gradient(plan: Plan, weights: Weights, rows: Rows) -> Floats:
    """Return the gradient of the mean weighted log-loss over rows, by plain autograd."""
    layout = layout_of(binning_of(plan), weights[0])
    features = torch.zeros((len(rows.labels), layout.binning.slots), dtype=torch.float64)
    for feature, slots in zip(features, slots_of(layout, _cells(plan, rows)), strict=True):
        feature[torch.from_numpy(slots)] = 1.0
    labels = torch.from_numpy(rows.labels).double()
    module = propensity.build(plan.model.family, features.shape[1], plan.model.hidden).double()
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights[1:], strict=True):
            parameter.copy_(torch.from_numpy(value))
    weight = torch.where(labels > 0, plan.training.positive_weight, 1.0)
    logits = module(features)[:, 0]
    loss = (weight * (functional.softplus(logits) - labels * logits)).mean()
    found = torch.autograd.grad(loss, list(module.parameters()))
    return np.concatenate([part.reshape(-1).numpy() for part in found])


def _cells(plan: Plan, rows: Rows) -> Integers:
    """Return the cells that rows are in, shape (rows, columns)."""
    columns, found, before = binning_of(plan).columns, [], 0
    for column in columns:
        found.append([before + _cell(column, float(value)) for value in rows.columns[column.name]])
        before += column.cells
    return np.array(found, dtype=np.int64).reshape(len(columns), -1).T


def _cell(column: BinnedColumn, value: float) -> int:
    if column.words:
        return int(value) if value >= 0 else len(column.words)
    if math.isnan(value):
        return len(column.atoms) + len(column.edges) + 1
    if value in column.atoms:
        return column.atoms.index(value)
    return len(column.atoms) + bisect.bisect_right(column.edges, value)
