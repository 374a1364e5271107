"""Models computed row by row: what comes out for a row does not depend, in any bit, on which other rows are there.

Matrix libraries add up products in an order that follows from the shape of the whole batch. One customer more then
changes the last bits of everybody's gradient, and whoever chooses the weights can make last bits matter: by numbers
that cancel, by ties of a rounding, by an edge of a bin. A sensitivity that is proved for sums over customers would not
hold. Here every row goes through the same single operations, whatever stands beside it:

- products and sums are elementwise, each rounded once as IEEE 754 says, and a row's sum is a tree of such sums;
- functions like tanh are elementwise too, over pieces of one fixed size, so that no row falls into the rest that a
  vector loop leaves over, which other code computes.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import register_grad_sampler
from torch import nn

__all__ = ["PIECE", "RowLinear", "rowwise", "scores", "tree_sum"]

PIECE = 64
"""Pieces hold a multiple of so many rows: more than any vector register has lanes, unrolled."""


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


class _RowProduct(torch.autograd.Function):
    """x times the transpose of a weight, row by row, forwards and backwards.

    The weight gets no gradient of the batch as a whole: nobody asks for it, and customers' own are Opacus' to find.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context
        ctx.save_for_backward(weight)
        return tree_sum(x.unsqueeze(-2) * weight, dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None]:  # noqa: ANN401 - likewise
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        if not ctx.needs_input_grad[0]:
            return None, None
        return tree_sum(gradient.unsqueeze(-1) * weight, dim=-2), None


class RowLinear(nn.Linear):
    """A linear layer that is computed row by row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return weight x + bias for every row of shape (..., inputs)."""
        product: torch.Tensor = _RowProduct.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


@register_grad_sampler(RowLinear)  # type: ignore[untyped-decorator] # Opacus ships no types
def _gradients(
    layer: RowLinear, activations: list[torch.Tensor], backprops: torch.Tensor
) -> dict[torch.Tensor, torch.Tensor]:
    """Return every customer's gradient of the layer's weight and bias; a customer's rows are added as a tree."""
    weight = backprops.unsqueeze(-1) * activations[0].unsqueeze(-2)  # (B, [L,] outputs, inputs)
    bias = backprops
    while bias.dim() > 2:
        weight, bias = tree_sum(weight, dim=1), tree_sum(bias, dim=1)
    return {layer.weight: weight} if layer.bias is None else {layer.weight: weight, layer.bias: bias}


def rowwise(module: nn.Module) -> nn.Module:
    """Return a copy of a module in float64 whose linear layers are computed row by row.

    Raises:
        ValueError: The module has a layer of which that is not known.
    """
    if type(module) is nn.Linear:
        bias = module.bias is not None
        layer = RowLinear(module.in_features, module.out_features, bias=bias, dtype=torch.float64)
        layer.load_state_dict(module.state_dict())
        return layer
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*(rowwise(part) for part in module))
    if isinstance(module, nn.Tanh):
        return copy.deepcopy(module)
    raise ValueError(f"{type(module).__name__} is not known to be computed row by row")


def scores(
    module: nn.Module, weights: Sequence[NDArray[np.float32]], features: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return a module's outputs for rows, each by itself.

    Args:
        module: Maps (..., inputs) to (..., 1).
        weights: In the module's parameter order.
        features: (rows, inputs).

    Returns:
        Shape (rows,).

    Guarantees:
        A row's output is the same, bit for bit, whatever other rows are there and wherever it stands.
    """
    model = rowwise(module)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = max(1, 2**18 // (parameters + features.shape[1]) // PIECE) * PIECE
    found = np.empty(len(features), dtype=np.float64)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(np.array(value, dtype=np.float32)))
        for start in range(0, len(features), size):
            part = features[start : start + size]
            piece = np.zeros((size, features.shape[1]))
            piece[: len(part)] = part
            found[start : start + len(part)] = model(torch.from_numpy(piece))[: len(part), 0].numpy()
    return found
