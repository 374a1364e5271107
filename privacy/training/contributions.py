"""What customers contribute to one parameter's gradient: exact norms and clipped sums, without their gradients.

Book-keeping (Bu et al. 2023, arXiv 2210.00038): a layer's input and the gradient of its output determine every
customer's gradient, its norm and any weighted sum of such gradients. Nothing of size customers x rows x dimension is
ever made of a table.

Notation: B customers, T places of one customer (uses of a layer, and steps of a sequence), I inputs, O outputs,
V rows of a table and D columns.
"""

from dataclasses import dataclass, field

import torch

__all__ = ["CELLS", "Contribution", "Products", "RowSum", "Rows", "Sums"]

CELLS = 2**22
"""Numbers held at a time where the customers of a batch are gone through in pieces."""


def _places(tensor: torch.Tensor) -> torch.Tensor:
    """Return (B, ..., n) as (B, T, n)."""
    return tensor.reshape(tensor.shape[0], tensor.shape[1:-1].numel(), tensor.shape[-1])


def _squares(tensor: torch.Tensor) -> torch.Tensor:
    """Return each customer's sum of squares, (B,)."""
    return tensor.square().flatten(start_dim=1).sum(dim=1)


@dataclass
class Products:
    """Contributions to a linear layer's weight: each customer's is the sum over its places of g a^T, (O, I)."""

    inputs: list[torch.Tensor] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)

    def add(self, inputs: torch.Tensor, gradient: torch.Tensor) -> None:
        """Note one use: its inputs, (B, ..., I), and the gradient of its outputs, (B, ..., O)."""
        self.inputs.append(_places(inputs))
        self.gradients.append(_places(gradient))

    def _joined(self) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.inputs) > 1:
            self.inputs, self.gradients = [torch.cat(self.inputs, dim=1)], [torch.cat(self.gradients, dim=1)]
        return self.inputs[0], self.gradients[0]

    def squares(self) -> torch.Tensor:
        """Return the squared norms of the customers' gradients, (B,)."""
        a, g = self._joined()
        places = a.shape[1]
        if places == 1:
            return _squares(a) * _squares(g)
        whole = a.shape[2] * g.shape[2]
        # Either each customer's (O, I) gradient or its (T, T) inner products, whichever is less to compute.
        if whole <= places * (a.shape[2] + g.shape[2]):
            size = max(1, CELLS // max(1, whole))
            pieces = zip(torch.split(a, size), torch.split(g, size), strict=True)
            return torch.cat([_squares(torch.bmm(some_g.mT, some_a)) for some_a, some_g in pieces])
        size = max(1, CELLS // max(1, places * places))
        pieces = zip(torch.split(a, size), torch.split(g, size), strict=True)
        return torch.cat([_inner(some_a, some_g) for some_a, some_g in pieces])

    def keep(self, chosen: torch.Tensor) -> None:
        """Drop the customers that are not `chosen`, (B,) of booleans."""
        a, g = self._joined()
        self.inputs, self.gradients = [a[chosen]], [g[chosen]]

    def total(self, factors: torch.Tensor) -> torch.Tensor:
        """Return the sum of the customers' gradients times their `factors`, (O, I)."""
        a, g = self._joined()
        return (g * factors[:, None, None]).flatten(0, 1).T @ a.flatten(0, 1)


def _inner(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Return sum over s, t of <a_s, a_t> <g_s, g_t> for each customer (equation 2 of the paper's section 2.3)."""
    # In float64: where places cancel, float32 products would leave a norm that is far too small.
    wide_a, wide_g = a.double(), g.double()
    found = (torch.bmm(wide_a, wide_a.mT) * torch.bmm(wide_g, wide_g.mT)).sum(dim=(1, 2))
    return found.clamp(min=0.0).to(a.dtype)


@dataclass
class Sums:
    """Contributions to a bias: each customer's is the sum of its output gradients, (O,)."""

    gradients: list[torch.Tensor] = field(default_factory=list)

    def add(self, gradient: torch.Tensor) -> None:
        """Note one use: the gradient of its outputs, (B, ..., O)."""
        places = _places(gradient)
        self.gradients.append(places.sum(dim=1) if places.shape[1] != 1 else places.squeeze(1))

    def _joined(self) -> torch.Tensor:
        if len(self.gradients) > 1:
            self.gradients = [torch.stack(self.gradients).sum(dim=0)]
        return self.gradients[0]

    def squares(self) -> torch.Tensor:
        """Return the squared norms of the customers' gradients, (B,)."""
        return _squares(self._joined())

    def keep(self, chosen: torch.Tensor) -> None:
        """Drop the customers that are not `chosen`, (B,) of booleans."""
        self.gradients = [self._joined()[chosen]]

    def total(self, factors: torch.Tensor) -> torch.Tensor:
        """Return the sum of the customers' gradients times their `factors`, (O,)."""
        return factors @ self._joined()


@dataclass
class RowSum:
    """A sum over customers of gradients of a table, as the rows that it has: indices (n,) with repeats, rows (n, D)."""

    indices: list[torch.Tensor] = field(default_factory=list)
    rows: list[torch.Tensor] = field(default_factory=list)

    def __add__(self, other: "RowSum") -> "RowSum":
        """Return the sum of both."""
        return RowSum(self.indices + other.indices, self.rows + other.rows)

    def within(self, chosen: torch.Tensor, rows: int) -> "RowSum":
        """Return the part of the sum that lies in the `chosen` rows, of `rows` in all."""
        kept = torch.zeros(rows, dtype=torch.bool, device=chosen.device).index_fill_(0, chosen, value=True)
        pairs = [(index, part, kept[index]) for index, part in zip(self.indices, self.rows, strict=True)]
        return RowSum([index[keep] for index, _, keep in pairs], [part[keep] for _, part, keep in pairs])

    def add_to(self, table: torch.Tensor, scale: float) -> None:
        """Add `scale` times the sum to a table, (V, D), in place; this uses the sum up."""
        for index, rows in zip(self.indices, self.rows, strict=True):
            table.scatter_add_(0, index[:, None].expand_as(rows), rows.mul_(scale))
        self.indices, self.rows = [], []


@dataclass
class Rows:
    """Contributions to a table: each customer's is a row g_t added at index i_t, for each of its places t.

    Args:
        rows: V.
        padding: The row whose gradients are zero.
    """

    rows: int
    padding: int | None
    indices: list[torch.Tensor] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)

    def add(self, indices: torch.Tensor, gradient: torch.Tensor) -> None:
        """Note one use: indices, (B, ...), and the gradient of what was looked up, (B, ..., D)."""
        self.indices.append(indices.reshape(indices.shape[0], indices.shape[1:].numel()))
        self.gradients.append(_places(gradient))

    def _joined(self) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.indices) > 1:
            self.indices, self.gradients = [torch.cat(self.indices, dim=1)], [torch.cat(self.gradients, dim=1)]
        return self.indices[0], self.gradients[0]

    def squares(self) -> torch.Tensor:
        """Return the squared norms of the customers' gradients, (B,)."""
        index, g = self._joined()
        found = _squares(g)
        if index.shape[1] > 1:
            # Rows that a customer has once are orthogonal; only those that it has again need adding up.
            again = self._repeating(index).nonzero().squeeze(1)
            if len(again):
                found[again] = self._merged(index[again], g[again])
        return found

    def _repeating(self, index: torch.Tensor) -> torch.Tensor:
        """Return which customers have a row more than once, (B,)."""
        if self.padding is not None:
            apart = -1 - torch.arange(index.shape[1], device=index.device)
            index = torch.where(index == self.padding, apart, index)
        ordered = index.sort(dim=1).values
        return (ordered[:, 1:] == ordered[:, :-1]).any(dim=1)

    def _merged(self, index: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """Return squared norms after adding up the rows that a customer has more than once."""
        owner = torch.arange(len(index), device=index.device)
        keys, place = torch.unique((owner[:, None] * self.rows + index).flatten(), return_inverse=True)
        merged = g.new_zeros(len(keys), g.shape[2]).index_add_(0, place, g.flatten(0, 1))
        return g.new_zeros(len(index)).index_add_(0, keys // self.rows, _squares(merged))

    def keep(self, chosen: torch.Tensor) -> None:
        """Drop the customers that are not `chosen`, (B,) of booleans."""
        index, g = self._joined()
        self.indices, self.gradients = [index[chosen]], [g[chosen]]

    def total(self, factors: torch.Tensor) -> RowSum:
        """Return the sum of the customers' gradients times their `factors`."""
        index, g = self._joined()
        return RowSum([index.flatten()], [(g * factors[:, None, None]).flatten(0, 1)])

    def distinct(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return who has which row, each pair once and without padding: customers (n,) and rows (n,)."""
        index, _ = self._joined()
        owner = torch.arange(len(index), device=index.device)
        keys = torch.unique((owner[:, None] * self.rows + index).flatten())
        who, row = keys // self.rows, keys % self.rows
        kept = torch.ones_like(row, dtype=torch.bool) if self.padding is None else row != self.padding
        return who[kept], row[kept]


Contribution = Products | Sums | Rows
