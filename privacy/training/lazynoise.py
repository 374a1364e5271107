"""Lazily drawn noise: a row of a table meets its noise when it is next read, not at every step.

LazyDP (Lim et al. 2024, arXiv 2404.08847). A row's noise of several steps of plain SGD is a sum of independent normals,
which is one normal of the summed variance; a row that nobody reads does not need it yet. Weights that are read, in a
look-up or by `flush`, are distributed as those of `BookkeepingSGD`, bit patterns of rounding aside.
"""

import functools
from typing import Any

import torch
from torch import nn

from coterie.privacy.training.bookkeeping import BookkeepingSGD
from coterie.privacy.training.normals import CHUNK

__all__ = ["LazySGD"]


class _Debt:
    """What noise a table's rows are owed.

    Args:
        parameter: The table, (V, D).
        padding: The row that gets none.
    """

    def __init__(self, parameter: torch.Tensor, padding: int | None) -> None:
        self.total = 0.0
        """Variance, of one coordinate, of the noise of all steps so far."""
        self._paid = torch.zeros(len(parameter), dtype=torch.float64, device=parameter.device)
        """How much of it each row has, (V,)."""
        self._padding = padding
        self.pay(slice(0, 0))

    def deviations(self, rows: torch.Tensor | slice) -> torch.Tensor:
        """Return the standard deviation of the noise that rows are owed."""
        return (self.total - self._paid[rows]).clamp_(min=0.0).sqrt_()

    def pay(self, rows: torch.Tensor | slice) -> None:
        """Note that rows have all the noise there was."""
        self._paid[rows] = self.total
        if self._padding is not None:
            self._paid[self._padding] = torch.inf

    def open(self) -> bool:
        """Return whether some row is owed noise."""
        return bool((self._paid < self.total).any())


class LazySGD(BookkeepingSGD):
    """A `BookkeepingSGD` whose tables' noise is drawn row by row, when a row is read.

    Args:
        optimizer: Plain `torch.optim.SGD` over a `BookkeepingModule`'s parameters.
        settings: As for `BookkeepingOptimizer`.

    Guarantees:
        After `flush`, the weights are distributed as after the same steps of `BookkeepingSGD` (sums of independent
        normals), and cost the same. A look-up reads no row that is owed noise. Until `flush`, the module refuses
        `state_dict`, `load_state_dict` and `to_standard_module`.

    Raises:
        RuntimeError: Rows are owed noise by an earlier optimiser.

    Leaks:
        Weights that are taken from a parameter directly, before `flush`, lack noise and have no guarantee at all.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, **settings: Any) -> None:  # noqa: ANN401 - the base's arguments
        super().__init__(optimizer, **settings)
        self._debts: dict[nn.Parameter, _Debt] = {}
        for parameter in self.params:
            if hasattr(parameter, "table"):
                parameter.table.check()  # an earlier optimiser's debts must not be forgotten
                debt = self._debts[parameter] = _Debt(parameter, parameter.table.padding)
                parameter.table.before_read = functools.partial(self._read, parameter)
                parameter.table.owed = debt.open

    @property
    def pending(self) -> bool:
        """Whether some row is owed noise."""
        return any(debt.open() for debt in self._debts.values())

    @torch.no_grad()
    def flush(self) -> None:
        """Draw all noise that is owed: before weights are released, saved or read past their layers."""
        for parameter, debt in self._debts.items():
            size = max(1, CHUNK // parameter.shape[1])
            for start in range(0, len(parameter), size):
                rows = slice(start, min(start + size, len(parameter)))
                deviations = debt.deviations(rows)
                if bool(deviations.any()):
                    parameter[rows].add_(self.normals.rows(deviations, parameter))
            debt.pay(slice(None))

    def move(self, parameter: nn.Parameter, scale: float) -> None:
        """Subtract `scale` times the clipped sum, and owe the noise where it is a table's."""
        if parameter not in self._debts:
            super().move(parameter, scale)
            return
        self._debts[parameter].total += (scale * self.gradient_multiplier * self.max_grad_norm) ** 2
        self.add_sum(parameter, parameter, -scale)

    @torch.no_grad()
    def _read(self, parameter: nn.Parameter, indices: torch.Tensor) -> None:
        """Draw the noise of the rows that are about to be read."""
        debt = self._debts[parameter]
        if debt.total > 0.0:
            rows = torch.unique(indices)
            noise = self.normals.rows(debt.deviations(rows), parameter)
            parameter.scatter_add_(0, rows[:, None].expand_as(noise), noise)
            debt.pay(rows)
