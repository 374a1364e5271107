"""Why a customer scores as it does: what each column adds to its log-odds.

A column's contribution is the log-odds of the row minus the log-odds with that column alone put at the
encoding's public reference (the middle of its bounds, every word equally likely). For the logistic family the
contributions add up to the score exactly; for others they are a one-column-at-a-time explanation.
"""

import numpy as np
from numpy.typing import NDArray

from coterie.models import propensity
from coterie.models.features import Encoding, reference
from coterie.models.modelfile import ModelFile

__all__ = ["contributions", "top_reasons"]


def contributions(model: ModelFile, encoding: Encoding, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what each column adds, shape (rows, columns).

    Args:
        model: The model.
        encoding: Its encoding.
        features: Encoded rows, shape (rows, encoding.width).
    """
    whole = propensity.logits(model.family, model.hidden, model.weights, features)
    middle = reference(encoding)
    added = np.empty((len(features), len(encoding.blocks)))
    without = features.copy()
    for index, span in enumerate(encoding.spans()):
        without[:, span] = middle[span]
        added[:, index] = whole - propensity.logits(model.family, model.hidden, model.weights, without)
        without[:, span] = features[:, span]
    return added


def top_reasons(added: NDArray[np.float64], encoding: Encoding, count: int) -> list[list[str]]:
    """Return the columns that matter most for each row, strongest first, as "column +0.41".

    Args:
        added: From `contributions`.
        encoding: Its encoding.
        count: How many per row.
    """
    names = [block.name for block in encoding.blocks]
    order = np.argsort(-np.abs(added), axis=1, kind="stable")[:, :count]
    return [[f"{names[c]} {added[row, c]:+.2f}" for c in columns] for row, columns in enumerate(order)]
