"""Operations on customers side by side in which no customer's numbers meet another's.

Modules that are trained on customers' gradients are made of these alone, and of layers (`privacy/training/rowwise.py`
says why): single operations of IEEE 754 on elements, sums as trees of halves, forwards and backwards. Products of
matrices, and functions that libraries compute by pieces, would let a customer's last bits depend on who stands beside.

Embeddings are laid out (customers, numbers, items): a sum over numbers then adds long rows, which is fast.
"""

from typing import Any

import torch

__all__ = ["dot", "exponential", "meet", "pool", "tree_sum"]

_LEAST, _HALVINGS, _TERMS = -700.0, 13, 8


def tree_sum(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the sum over one dimension, by adding halves: the order depends on that dimension's length alone."""
    length = values.shape[dim]
    if length == 0:
        return values.sum(dim=dim)
    while length > 1:
        half = length // 2
        summed = values.narrow(dim, 0, half) + values.narrow(dim, half, half)
        values = torch.cat([summed, values.narrow(dim, 2 * half, 1)], dim=dim) if length % 2 else summed
        length = values.shape[dim]
    return values.squeeze(dim)


def exponential(values: torch.Tensor) -> torch.Tensor:
    """Return e to the power of numbers from -700 to 0, by products and sums alone; below -700 as at -700.

    The power of a number 2**13 times nearer to 0 is a short Taylor series, squared 13 times: right to 1e-9, and to
    1e-11 for what is not below -30. It is not differentiated.
    """
    near = values.clamp(min=_LEAST) * 2.0**-_HALVINGS
    power = torch.ones_like(near)
    for term in range(_TERMS, 0, -1):
        power.mul_(near).div_(term).add_(1.0)
    for _ in range(_HALVINGS):
        power.mul_(power)
    return power


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context
        ctx.save_for_backward(weights)
        return torch.stack([tree_sum(rows * weights[:, None, h], dim=2) for h in range(weights.shape[1])], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401 - likewise
        (weights,), (gradient,) = ctx.saved_tensors, gradients
        return _outer(gradient, weights), None


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, customers: torch.Tensor, items: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - likewise
        ctx.save_for_backward(customers, items)
        return torch.stack([tree_sum(items * one[:, :, None], dim=1) for one in customers.unbind(dim=1)], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - likewise
        (customers, items), (gradient,) = ctx.saved_tensors, gradients
        own = torch.stack([tree_sum(items * one[:, None], dim=2) for one in gradient.unbind(dim=1)], dim=1)
        return own, _outer(customers, gradient)


class _Meet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, customers: torch.Tensor, items: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - likewise
        met = (customers.transpose(1, 2)[..., None] + items[:, :, None]).clamp_(min=0.0)  # (B, d, views, C)
        ctx.save_for_backward(met)
        return met

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - likewise
        (met,), (gradient,) = ctx.saved_tensors, gradients
        passed = torch.where(met > 0, gradient, 0.0)
        return tree_sum(passed, dim=3).transpose(1, 2), tree_sum(passed, dim=2)


def _outer(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the sum over views of left (B, views, d) times right (B, views, C), (B, d, C)."""
    first, *others = zip(left.unbind(dim=1), right.unbind(dim=1), strict=True)
    summed = first[0][:, :, None] * first[1][:, None]
    for one, other in others:
        summed.add_(one[:, :, None] * other[:, None])
    return summed


def pool(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return weighted sums of each customer's rows.

    Args:
        rows: (customers, numbers, rows).
        weights: One set of weights for each view of a customer, (customers, views, rows); not differentiated.

    Returns:
        (customers, views, numbers).
    """
    pooled: torch.Tensor = _Pool.apply(rows, weights)  # type: ignore[no-untyped-call]
    return pooled


def dot(customers: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Return the products of each customer's views with its items.

    Args:
        customers: (customers, views, numbers).
        items: (customers, numbers, items).

    Returns:
        (customers, views, items).
    """
    product: torch.Tensor = _Dot.apply(customers, items)  # type: ignore[no-untyped-call]
    return product


def meet(customers: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Return the positive part of each view of a customer plus each item.

    Args:
        customers: (customers, views, numbers).
        items: (customers, numbers, items).

    Returns:
        (customers, numbers, views, items).
    """
    met: torch.Tensor = _Meet.apply(customers, items)  # type: ignore[no-untyped-call]
    return met
