"""A model under Opacus' engine: what every kind of private step over customers shares.

Opacus traps that this module steps around: the engine is built once and not again every round (opacus #688); rare
labels are weighted in the loss, before clipping, so that Poisson sampling stays what it is (#600).
"""

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.nn import functional

from coterie.privacy.randomness import Stream
from coterie.privacy.training.customers import Batch, Customers
from coterie.privacy.training.optimizer import CustomerOptimizer
from coterie.privacy.training.rowwise import PIECE, rowwise

__all__ = ["CELLS", "Engine"]

CELLS = 2**18
"""How many numbers, of features and gradients together, are held of customers at a time."""

Optimizer = TypeVar("Optimizer", bound=CustomerOptimizer)


class Engine(Generic[Optimizer]):
    """A copy of a module whose gradients are found customer by customer, and the optimiser that takes them.

    Args:
        module: Maps features to logits of shape (..., 1); a copy of it is computed in float64, row by row.
        optimizer: What is done with gradients.

    Guarantees:
        A customer's gradient depends on the weights and on that customer's rows alone, bit for bit: not on who else is
        in the sample or in the table (`rowwise.py`). Customers go through in pieces whose size follows from the
        model and from public constants, the last one filled up with a customer whose second gradient is dropped.
    """

    def __init__(self, module: nn.Module, optimizer: type[Optimizer]) -> None:
        self._module = rowwise(module)
        self._parameters = sum(parameter.numel() for parameter in self._module.parameters())
        self._kind = optimizer
        self._build()

    def _build(self) -> None:
        # "sum" keeps each customer's gradient as it is, whatever the size of the sample.
        self._model = GradSampleModule(copy.deepcopy(self._module), loss_reduction="sum")
        self._optimizer = self._kind(
            torch.optim.SGD(self._model.parameters(), lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=1.0,
            expected_batch_size=1,
        )

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Run private steps; nothing of a customer stays in the engine after them, whatever happens."""
        try:
            with warnings.catch_warnings():
                # Opacus hooks modules whose inputs need no gradient; torch wonders why, each time.
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                yield
            # The last sample's per-customer gradients are rows in another form: they die with the call.
            self._optimizer.zero_grad(set_to_none=True)
        except BaseException:
            # Opacus keeps what a broken step left in its modules: the next round must not meet it.
            self._build()
            raise

    def _load(self, weights: Sequence[NDArray[np.float32]]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._model.parameters(), weights, strict=True):
                parameter.copy_(torch.from_numpy(np.array(value, dtype=np.float32)))

    def _sample(self, customers: Customers, rate: float, stream: Stream) -> NDArray[np.int64]:
        """Return who is in a step, by position: each by an independent coin, as the accountant assumes."""
        return np.flatnonzero(stream.uniforms(len(customers)) < rate)

    def _size(self, customers: Customers) -> int:
        """Return how many customers a piece has; it follows from public constants."""
        return max(1, CELLS // (self._parameters * customers.longest + customers.cells) // PIECE) * PIECE

    def _pieces(self, chosen: NDArray[np.int64], customers: Customers) -> list[NDArray[np.int64]]:
        """Split a sample so that memory does not grow with it; at least one piece, which may be empty."""
        size = self._size(customers)
        return [chosen[start : start + size] for start in range(0, max(1, len(chosen)), size)]

    def _differentiate(self, few: NDArray[np.int64], customers: Customers, positive_weight: float) -> None:
        """Leave each customer's gradient with the optimiser."""
        filled = np.concatenate([few, np.full(self._size(customers) - len(few), few[0])]) if len(few) else few
        self._optimizer.zero_grad(set_to_none=True)
        self._losses(customers.batch(filled), positive_weight).sum().backward()  # type: ignore[no-untyped-call]
        for parameter in self._optimizer.params:
            parameter.grad_sample = parameter.grad_sample[: len(few)]

    def _losses(self, batch: Batch, positive_weight: float) -> torch.Tensor:
        """Return one loss per customer: the weighted mean over its rows, shape (customers,)."""
        logits = self._model(batch.features).reshape(batch.labels.shape)  # (B, L)
        weight = torch.ones_like(batch.labels).masked_fill(batch.labels > 0, positive_weight) * batch.mask
        losses = functional.binary_cross_entropy_with_logits(logits, batch.labels, weight, reduction="none")
        return losses.sum(dim=1) / batch.mask.sum(dim=1)
