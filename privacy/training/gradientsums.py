"""One step's sum of gradients over customers' histories, in whole numbers, for models of a catalogue.

The mechanism is that of `sums.py`; what is different is what a customer is: items, of which few are its own and which
are found in tables of many. Its gradient is kept as the rows that it has (`rowlookups.py`), clipped and rounded there,
and meets the table only as whole numbers, whose sum is exact.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.numbers import greatest_norm
from coterie.privacy.training.baskets import Baskets, Few, Public
from coterie.privacy.training.engine import Engine
from coterie.privacy.training.optimizer import SumOptimizer
from coterie.privacy.training.rowlookups import RowEmbedding, rowwise_module
from coterie.privacy.training.rowwise import tree_sum
from coterie.privacy.training.sums import whole_numbers

__all__ = ["GradientSettings", "GradientSummer"]

_MOST_UNITS, _MOST_BOUND = 2**20, 2**62
_CELLS = 2**19
"""How many numbers of customers' gradients are held at a time."""


@dataclass(frozen=True, kw_only=True)
class GradientSettings:
    """What a step's sum is; all public.

    Args:
        clip: Greatest L2 norm of a customer's gradient.
        sensitivity: How many units the clip is; at most 2**20, so that squares and sums fit in 64 bits.
        bound: Greatest size of a coordinate of the sum, in units.
        sample_rate: Poisson rate over customers.
        longest: Items of a customer that are used; the newest, where it has more.

    Raises:
        ValueError: The clip is not a number above 0, or a number is out of range.
    """

    clip: float
    sensitivity: int
    bound: int
    sample_rate: float
    longest: int

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ValueError("the clip is not a number above 0")
        if not (1 <= self.sensitivity <= _MOST_UNITS and 1 <= self.bound <= _MOST_BOUND):
            raise ValueError(f"sensitivity is not 1 to {_MOST_UNITS}, or the bound not 1 to {_MOST_BOUND}")
        if self.longest < 1:
            raise ValueError("no item of a customer would be used")


class _RowSumOptimizer(SumOptimizer):
    """A `DPOptimizer` that adds up customers' clipped gradients as whole numbers, tables' by their rows.

    It takes no step and draws no noise: `noise_multiplier`, `max_grad_norm` and `expected_batch_size` play no part.
    """

    def begin(self, settings: GradientSettings, tables: Sequence[bool]) -> None:
        """Start a new total.

        Args:
            settings: Of the sum.
            tables: For each parameter, whether its gradients are rows of a table.
        """
        self._settings, self._tables = settings, tables
        self._totals = [torch.zeros(parameter.shape, dtype=torch.int64) for parameter in self.params]

    def add(self, few: Few) -> None:
        """Add some customers to the total: clip, round, verify, and put rows where they belong."""
        gradients = [sample[: few.count] for sample in self.grad_samples]
        shapes = [gradient.shape for gradient in gradients]
        flat = [
            (few.kept(gradient) if table else gradient).flatten(start_dim=1)
            for gradient, table in zip(gradients, self._tables, strict=True)
        ]
        # By trees: a customer's norm depends on its gradient alone, in every bit.
        squares = torch.stack([tree_sum(numbers * numbers, dim=1) for numbers in flat], dim=1)
        whole = whole_numbers(
            torch.cat(flat, dim=1),
            tree_sum(squares, dim=1).sqrt(),
            clip=self._settings.clip,
            sensitivity=self._settings.sensitivity,
        )
        parts = torch.split(whole, [numbers.shape[1] for numbers in flat], dim=1)
        for total, numbers, shape, table in zip(self._totals, parts, shapes, self._tables, strict=True):
            if table:
                few.put(total, numbers.reshape(shape))
            else:
                total.add_(numbers.sum(dim=0).view_as(total))

    def total(self) -> torch.Tensor:
        """Return the total, int64, (parameters,), each coordinate held within the bound; nothing of it stays."""
        together = torch.cat([total.flatten() for total in self._totals])
        self._totals = []
        return together.clamp(-self._settings.bound, self._settings.bound)


class GradientSummer(Engine[_RowSumOptimizer]):
    """A model of a catalogue and Opacus' engine around it, for any partner's customers and any step.

    Args:
        module: Maps a `Few` to one loss per customer, (customers,); a copy of it is differentiated. It looks up each
            of its embeddings once, at `history` or at `slots`, and between its layers, linear ones, embeddings and
            convolutions of kernel size 1, it uses single operations on elements and trees alone.

    Raises:
        ValueError: The module has another layer with parameters.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = rowwise_module(module)
        tables = {layer.weight for layer in self._module.modules() if isinstance(layer, RowEmbedding)}
        self._tables = [parameter in tables for parameter in self._module.parameters()]
        self._wide = sum(table.shape[1] for table in tables)
        self._dense = sum(parameter.numel() for parameter in self._module.parameters() if parameter not in tables)
        self._kind = _RowSumOptimizer
        self._build()

    def total(
        self,
        parameters: Sequence[NDArray[np.float32]],
        histories: tuple[NDArray[np.int64], NDArray[np.int64]],
        *,
        settings: GradientSettings,
        public: Public,
        stream: Stream,
    ) -> NDArray[np.int64]:
        """Sum the clipped gradients of a Poisson sample of customers at `parameters`.

        Args:
            parameters: Where, in the module's order.
            histories: Private: where each customer's items begin and the last one's end, (customers + 1,), and their
                positions in the catalogue, oldest first, (interactions,); of one customer each is there once.
            settings: Public.
            public: What else the step is computed from, known to all.
            stream: Secret randomness for sampling, used for this call alone.

        Returns:
            Units, shape (parameters,): the parameters in order, each flattened row by row. Divide by
            `sensitivity` / `clip` for a gradient.

        Raises:
            ValueError: Histories are not as told, or the sensitivity leaves no room for rounding so many numbers.

        Guarantees:
            Adding or removing one customer changes the total by a vector of L2 norm at most `sensitivity`, exactly, in
            whole numbers: every other customer's part stays what it was, bit for bit; a customer's own is verified in
            whole numbers, on rows of which no two are the same; their sum in 64 bits is exact; and holding each
            coordinate within the bound moves no two sums apart.

        Leaks:
            The total has no noise: it is for masking together with the partner's share of noise, and for nothing
            else.
        """
        baskets = Baskets(*histories, public=public, longest=settings.longest)
        places = settings.longest + len(public.negatives)
        greatest_norm(settings.sensitivity, places * self._wide + self._dense)
        self._load(parameters)
        self._optimizer.begin(settings, self._tables)
        chosen = np.flatnonzero(stream.uniforms(len(baskets)) < settings.sample_rate)
        with self._at_work():
            for few in self._portions(baskets, chosen):
                self._optimizer.zero_grad(set_to_none=True)
                self._model(few).sum().backward()
                self._optimizer.add(few)
            total: NDArray[np.int64] = self._optimizer.total().numpy()
        return total

    def _portions(self, baskets: Baskets, chosen: NDArray[np.int64]) -> Iterator[Few]:
        """Split a sample so that memory does not grow with it; sizes follow from public constants."""
        for room in baskets.rooms:
            own = chosen[baskets.room[chosen] == room]
            size = max(1, _CELLS // (baskets.places(room) * self._wide + self._dense))
            for start in range(0, len(own), size):
                yield baskets.few(own[start : start + size], room=room, size=size)
