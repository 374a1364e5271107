"""Why a customer scores as it does: what each column adds to its log-odds.

On the contract's public encoding, a column's contribution is the log-odds of the row minus the log-odds with that
column alone put at the encoding's public reference (the middle of its bounds, every word equally likely). For the
logistic family the contributions add up to the score exactly; for others they are a one-column-at-a-time explanation.

On private bins, the reference is the mean over the noisy shares of customers. Where log-odds are sums of slots'
weights, a contribution is the slot's own, centred, and contributions add up to the score exactly, with the intercept
of `models/shapes.py`; for an mlp each column, and each pair, is put at its mean by itself.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.models import propensity
from coterie.models.binning import Layout, one_hot
from coterie.models.features import Encoding, reference
from coterie.models.modelfile import ModelFile
from coterie.models.propensity import Weights
from coterie.models.shapes import centred, shares_within

__all__ = ["contributions", "slot_contributions", "slot_differences", "slot_names", "top_reasons"]

Doubles = NDArray[np.float64]
Singles = NDArray[np.float32]
_PIECE = 4096  # rows whose slots are written out as indicators at a time


def contributions(model: ModelFile, encoding: Encoding, features: Singles) -> Doubles:
    """Return what each column adds, shape (rows, columns).

    Args:
        model: The model, on the contract's public encoding.
        encoding: Its encoding.
        features: Encoded rows, shape (rows, encoding.width).
    """
    return _differences(model, model.weights, features, spans=encoding.spans(), middle=reference(encoding))


def slot_contributions(parameters: Weights, layout: Layout, slots: NDArray[np.int64]) -> Doubles:
    """Return what each column and pair adds where log-odds are sums of slots' weights, shape (rows, columns + pairs).

    Args:
        parameters: Of slots, (1, slots), and the intercept, (1,).
        layout: The bins.
        slots: That rows are in, shape (rows, columns + pairs).
    """
    return np.asarray(centred(parameters, layout)[0][slots], dtype=np.float64)


def slot_differences(model: ModelFile, layout: Layout, slots: NDArray[np.int64]) -> Doubles:
    """Return what each column and pair of an mlp on bins adds, one at a time, shape (rows, columns + pairs).

    Args:
        model: Its weights begin with the counts of the bins.
        layout: The bins.
        slots: That rows are in, shape (rows, columns + pairs).
    """
    spans, middle = layout.binning.slot_spans(), shares_within(layout).astype(np.float32)
    added = np.empty(slots.shape)
    for start in range(0, len(slots), _PIECE):
        features = one_hot(slots[start : start + _PIECE], layout.binning.slots)
        added[start : start + _PIECE] = _differences(model, model.weights[1:], features, spans=spans, middle=middle)
    return added


def slot_names(layout: Layout) -> list[str]:
    """Return the names of a binning's columns, then of its pairs, as plans write them."""
    names = [column.name for column in layout.binning.columns]
    return names + [f"{names[one]} * {names[two]}" for one, two in layout.binning.pairs]


def top_reasons(added: Doubles, names: Sequence[str], count: int) -> list[list[str]]:
    """Return the columns that matter most for each row, strongest first, as "column +0.41".

    Args:
        added: What each column adds, shape (rows, columns).
        names: Of the columns.
        count: How many per row.
    """
    order = np.argsort(-np.abs(added), axis=1, kind="stable")[:, :count]
    return [[f"{names[c]} {added[row, c]:+.2f}" for c in columns] for row, columns in enumerate(order)]


def _differences(
    model: ModelFile, parameters: Weights, features: Singles, *, spans: Sequence[slice], middle: Singles
) -> Doubles:
    """Return log-odds less those with one column at a time put at its middle."""
    whole = propensity.logits(model.family, model.hidden, parameters, features)
    added = np.empty((len(features), len(spans)))
    without = features.copy()
    for index, span in enumerate(spans):
        without[:, span] = middle[span]
        added[:, index] = whole - propensity.logits(model.family, model.hidden, parameters, without)
        without[:, span] = features[:, span]
    return added
