"""One step's sum of clipped gradients on private bins, under Opacus' engine: for models whose first layer is linear.

A row of bins is the few slots that it is in. The first layer looks their weights up and adds them; its gradient by a
row is one vector, the same for every slot of the row, and zeros elsewhere. It is kept as that vector (book-keeping, Bu
et al. 2023, arXiv 2210.00038), clipped and rounded as it stands, and meets the table of weights only as whole numbers.

A sample is a row: a customer of m rows has the m-th part of the bound for each, so that its rows together keep it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import register_grad_sampler
from torch import nn
from torch.nn import functional

from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.numbers import clamped
from coterie.privacy.training.engine import Engine
from coterie.privacy.training.optimizer import SumOptimizer
from coterie.privacy.training.rowwise import PIECE, RowLinear, tree_sum
from coterie.privacy.training.sums import SumSettings

__all__ = ["SlotLinear", "SlotSummer", "slot_scores"]

_CELLS = 2**18
"""How many numbers of rows are held at a time."""


class _SlotSum(torch.autograd.Function):
    """Sums of columns of a weight; the weight gets no gradient of the batch as a whole, which would be dense."""

    @staticmethod
    def forward(_ctx: Any, weight: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context
        return tree_sum(weight.T[slots], dim=1)

    @staticmethod
    def backward(_ctx: Any, *_gradients: torch.Tensor) -> tuple[None, None]:  # noqa: ANN401 - likewise
        return None, None


class SlotLinear(nn.Linear):
    """A linear layer on indicators of slots, computed row by row from the slots themselves."""

    def forward(self, slots: torch.Tensor) -> torch.Tensor:
        """Return (rows, outputs) for slots, (rows, active)."""
        summed: torch.Tensor = _SlotSum.apply(self.weight, slots)  # type: ignore[no-untyped-call]
        return summed + self.bias


@register_grad_sampler(SlotLinear)  # type: ignore[untyped-decorator] # Opacus ships no types
def _vectors(
    layer: SlotLinear,
    activations: list[torch.Tensor],  # noqa: ARG001 - Opacus passes it
    backprops: torch.Tensor,
) -> dict[torch.Tensor, torch.Tensor]:
    """Return every row's gradient at each of its slots, and of the bias, (rows, outputs): they are one vector."""
    return {layer.weight: backprops, layer.bias: backprops}


class _SlotSumOptimizer(SumOptimizer):
    """A `DPOptimizer` that adds up rows' clipped gradients as whole numbers, the first layer's at their slots.

    It takes no step and draws no noise: `noise_multiplier`, `max_grad_norm` and `expected_batch_size` play no part.
    """

    def begin(self, settings: SumSettings) -> None:
        """Start a new total."""
        self._settings = settings
        self._totals = [torch.zeros(parameter.shape, dtype=torch.int64) for parameter in self.params]

    def add(self, slots: torch.Tensor, rows: torch.Tensor) -> None:
        """Add some rows to the total.

        Args:
            slots: Shape (rows, active).
            rows: How many rows each row's customer has, shape (rows,).
        """
        few, active = slots.shape
        parts = [sample[:few].double().flatten(start_dim=1) for sample in self.grad_samples]
        copies = [float(active)] + [1.0] * (len(parts) - 1)
        squares = [times * tree_sum(part * part, dim=1) for times, part in zip(copies, parts, strict=True)]
        norms = tree_sum(torch.stack(squares, dim=1), dim=1).sqrt()
        most = torch.div(self._settings.sensitivity, rows, rounding_mode="floor")
        factors = torch.minimum(most / norms, self._settings.sensitivity / self._settings.clip / rows)
        # Towards zero, so that rounding makes no part longer; and what arithmetic got wrong is found in whole numbers.
        rounded = [(factors[:, None] * part).trunc() for part in parts]
        ranged = torch.stack([part.abs().amax(dim=1) <= most for part in rounded]).all(dim=0)
        whole = [torch.where(ranged[:, None], part, 0.0).to(torch.int64) for part in rounded]
        lengths = [int(times) * part.square().sum(dim=1) for times, part in zip(copies, whole, strict=True)]
        kept = torch.stack(lengths).sum(dim=0) <= most.square()
        first, *others = (part * kept[:, None] for part in whole)
        for column in range(active):
            self._totals[0].index_add_(1, slots[:, column], first.T)
        for total, part in zip(self._totals[1:], others, strict=True):
            total.add_(part.sum(dim=0).view_as(total))

    def total(self) -> torch.Tensor:
        """Return the total, int64, (parameters,); nothing of it stays."""
        together = torch.cat([total.flatten() for total in self._totals])
        self._totals = []
        return together


class SlotSummer(Engine[_SlotSumOptimizer]):
    """A model on slots and Opacus' engine around it that makes whole-number sums, for any partner's rows and any step.

    Args:
        slots: How many slots there are.
        hidden: Width of the hidden layer, with tanh; 0 for none.
    """

    def __init__(self, slots: int, hidden: int) -> None:
        self._module = _module(slots, hidden)
        self._wide = max(hidden, 1)
        self._kind = _SlotSumOptimizer
        self._build()

    def total(
        self,
        weights: Sequence[NDArray[np.float32]],
        table: tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]],
        *,
        settings: SumSettings,
        stream: Stream,
    ) -> NDArray[np.int64]:
        """Sum the clipped gradients of a Poisson sample of customers at `weights`.

        Args:
            weights: Where, in the module's parameter order.
            table: Private: slots of rows, (rows, active), no slot twice in one row; labels, 0 or 1, (rows,); and whole
                numbers that are equal for rows of one customer, (rows,).
            settings: Public.
            stream: Secret randomness for sampling, used for this call alone.

        Returns:
            Units, shape (parameters,): the parameters in order, each flattened row by row. Divide by
            `sensitivity` / `clip` for a gradient.

        Guarantees:
            Adding or removing one customer changes the total by a vector of L2 norm at most `sensitivity`, exactly, in
            whole numbers: every other customer's part stays what it was, bit for bit; a row's own is verified in whole
            numbers; and holding each coordinate within the bound moves no two sums apart.

        Leaks:
            The total has no noise: it is for masking together with the partner's share of noise, and for nothing
            else.
        """
        slots, labels, customer = table
        self._load(weights)
        self._optimizer.begin(settings)
        known, index, counts = np.unique(customer, return_inverse=True, return_counts=True)
        chosen = np.flatnonzero((stream.uniforms(len(known)) < settings.sample_rate)[index])
        size = max(1, _CELLS // (slots.shape[1] * self._wide) // PIECE) * PIECE
        with self._at_work():
            for start in range(0, len(chosen), size):
                few = chosen[start : start + size]
                filled = torch.from_numpy(np.concatenate([few, np.full(size - len(few), few[0])]))
                self._optimizer.zero_grad(set_to_none=True)
                logits = self._model(torch.from_numpy(slots)[filled])[:, 0]
                self._lost(logits, torch.from_numpy(labels)[filled].double(), settings.positive_weight)
                self._optimizer.add(torch.from_numpy(slots[few]), torch.from_numpy(counts[index[few]]))
            total: NDArray[np.int64] = self._optimizer.total().numpy()
        return clamped(total, settings.bound)

    def _lost(self, logits: torch.Tensor, labels: torch.Tensor, positive_weight: float) -> None:
        """Leave each row's gradient with the optimiser."""
        weight = torch.ones_like(labels).masked_fill(labels > 0, positive_weight)
        losses = functional.binary_cross_entropy_with_logits(logits, labels, weight, reduction="sum")
        losses.backward()  # type: ignore[no-untyped-call]


def slot_scores(
    weights: Sequence[NDArray[np.float32]], slots: NDArray[np.int64], *, hidden: int
) -> NDArray[np.float64]:
    """Return a model's log-odds for rows, each by itself.

    Args:
        weights: In the module's parameter order.
        slots: Shape (rows, active).
        hidden: Width of the hidden layer; 0 for none.

    Returns:
        Shape (rows,).

    Guarantees:
        A row's log-odds are the same, bit for bit, whatever other rows are there and wherever it stands.
    """
    module = _module(weights[0].shape[1], hidden)
    size = max(1, _CELLS // (slots.shape[1] * max(hidden, 1)) // PIECE) * PIECE
    found = np.empty(len(slots), dtype=np.float64)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(np.array(value, dtype=np.float32)))
        for start in range(0, len(slots), size):
            part = slots[start : start + size]
            piece = np.repeat(part[:1], size, axis=0)
            piece[: len(part)] = part
            found[start : start + len(part)] = module(torch.from_numpy(piece))[: len(part), 0].numpy()
    return found


def _module(slots: int, hidden: int) -> nn.Module:
    """Return an untrained module that maps slots, (rows, active), to log-odds, (rows, 1), row by row."""
    if not hidden:
        return nn.Sequential(SlotLinear(slots, 1, dtype=torch.float64))
    first, last = SlotLinear(slots, hidden, dtype=torch.float64), RowLinear(hidden, 1, dtype=torch.float64)
    return nn.Sequential(first, nn.Tanh(), last)
