"""Propensity families: the chance that a customer does something, from encoded features.

Small enough to read whole: `logistic` is one linear layer, and so is `additive`, on private bins (`additive.py`); `mlp`
has one hidden layer with tanh (bounded, and kind to clipped gradients). Weights travel as a tuple of float32 arrays in
parameter order.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["Weights", "build", "initial", "logits", "shapes"]

Weights = tuple[NDArray[np.float32], ...]

_LINEAR = ("additive", "logistic")


def build(family: str, inputs: int, hidden: int) -> nn.Module:
    """Return an untrained module that maps (..., inputs) to logits (..., 1).

    Raises:
        ValueError: The family is not known.
    """
    if family in _LINEAR:
        return nn.Linear(inputs, 1)
    if family == "mlp":
        return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1))
    raise ValueError(f"family {family!r} is not one of additive, logistic, mlp")


def shapes(family: str, inputs: int, hidden: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a family's weights."""
    if family in _LINEAR:
        return ((1, inputs), (1,))
    return ((hidden, inputs), (hidden,), (1, hidden), (1,))


def initial(family: str, inputs: int, hidden: int, *, seed: int) -> Weights:
    """Return public starting weights: zeros, but for the hidden layer, which must break symmetry.

    Args:
        family: As in `build`.
        inputs: Width of the encoding.
        hidden: Width of the hidden layer.
        seed: Public; the same everywhere.
    """
    start = [np.zeros(shape, dtype=np.float32) for shape in shapes(family, inputs, hidden)]
    if family == "mlp":
        # Glorot and Bengio 2010, equation 16; public randomness, so a seeded generator is right.
        bound = np.sqrt(6 / (inputs + hidden))
        start[0] = np.random.default_rng(seed).uniform(-bound, bound, (hidden, inputs)).astype(np.float32)
        bound = np.sqrt(6 / (hidden + 1))
        start[2] = np.random.default_rng(seed + 1).uniform(-bound, bound, (1, hidden)).astype(np.float32)
    return tuple(start)


def logits(
    family: str, hidden: int, weights: Sequence[NDArray[np.float32]], features: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return log-odds, shape (rows,), for features of shape (rows, inputs)."""
    module = build(family, features.shape[1], hidden)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(np.array(value, dtype=np.float32)))
        result: NDArray[np.float64] = module(torch.from_numpy(features))[:, 0].double().numpy()
    return result
