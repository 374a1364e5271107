"""Layers for catalogues: embeddings and linear layers over many items of each customer, computed row by row.

A customer's gradient of an embedding table has few rows that are not zero: those that were looked up. They are kept as
the places of the lookup, (customers, places, numbers), and never as tables, (customers, items, numbers). That is the
gradient, row for row, where no two places of a customer with a gradient hold the same item.
"""

import copy
from typing import Any

import torch
from opacus.grad_sample import register_grad_sampler
from torch import nn

from coterie.privacy.training.rowwise import rowwise, tree_sum

__all__ = ["RowEmbedding", "RowPointwise", "rowwise_module"]


class _Lookup(torch.autograd.Function):
    """Rows of a table; the table gets no gradient of the batch as a whole, which would be dense."""

    @staticmethod
    def forward(_ctx: Any, weight: torch.Tensor, places: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context
        return weight[places]

    @staticmethod
    def backward(_ctx: Any, *_gradients: torch.Tensor) -> tuple[None, None]:  # noqa: ANN401 - likewise
        return None, None


class RowEmbedding(nn.Embedding):
    """An embedding whose per-customer gradients are those of the places looked up."""

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """Return rows, (customers, places, numbers)."""
        rows: torch.Tensor = _Lookup.apply(self.weight, places)  # type: ignore[no-untyped-call]
        return rows


@register_grad_sampler(RowEmbedding)  # type: ignore[untyped-decorator] # Opacus ships no types
def _places(
    layer: RowEmbedding,
    activations: list[torch.Tensor],  # noqa: ARG001 - Opacus passes it
    backprops: torch.Tensor,
) -> dict[torch.Tensor, torch.Tensor]:
    """Return every customer's gradient at the places it looked up, (customers, places, numbers)."""
    return {layer.weight: backprops}


class _Pointwise(torch.autograd.Function):
    """A weight times numbers that stand in the second place; terms are added from the first to the last."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context
        ctx.save_for_backward(weight)
        return _product(weight, x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None]:  # noqa: ANN401 - likewise
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        return (_product(weight.T, gradient) if ctx.needs_input_grad[0] else None), None


def _product(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return weight (outputs, inputs) times x (B, inputs, C), (B, outputs, C)."""
    summed = weight[:, 0, None] * x[:, 0, None]
    for k in range(1, weight.shape[1]):
        summed = summed + weight[:, k, None] * x[:, k, None]
    return summed


class RowPointwise(nn.Conv1d):
    """A convolution of kernel size 1, a linear layer over numbers in the second place, computed row by row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (customers, outputs, places) for (customers, inputs, places)."""
        product: torch.Tensor = _Pointwise.apply(x, self.weight[:, :, 0])  # type: ignore[no-untyped-call]
        return product


@register_grad_sampler(RowPointwise)  # type: ignore[untyped-decorator] # Opacus ships no types
def _pointwise(
    layer: RowPointwise, activations: list[torch.Tensor], backprops: torch.Tensor
) -> dict[torch.Tensor, torch.Tensor]:
    """Return every customer's gradient of the weight; a customer's places are added as a tree."""
    x = activations[0]
    if x.shape[1] < backprops.shape[1]:
        columns = [tree_sum(backprops * x[:, k, None], dim=2) for k in range(x.shape[1])]
        return {layer.weight: torch.stack(columns, dim=2)[..., None]}
    rows = [tree_sum(x * backprops[:, k, None], dim=2) for k in range(backprops.shape[1])]
    return {layer.weight: torch.stack(rows, dim=1)[..., None]}


def rowwise_module(module: nn.Module) -> nn.Module:
    """Return a copy of a module in float64 whose layers are computed row by row.

    What the module does between its layers is its own, and must be made of single operations on elements and of trees.

    Raises:
        ValueError: The module has a layer with parameters of which that is not known.
    """
    copied = copy.deepcopy(module).double()
    for name, layer in list(copied.named_modules()):
        if any(True for _ in layer.parameters(recurse=False)):
            copied.set_submodule(name, _row_layer(layer))
    return copied


def _row_layer(layer: nn.Module) -> nn.Module:
    if type(layer) is nn.Linear:
        own: nn.Module = rowwise(layer)
    elif type(layer) is nn.Embedding and not _special(layer):
        own = RowEmbedding(layer.num_embeddings, layer.embedding_dim, dtype=torch.float64)
    elif type(layer) is nn.Conv1d and layer.kernel_size == (1,) and layer.bias is None:
        own = RowPointwise(layer.in_channels, layer.out_channels, 1, bias=False, dtype=torch.float64)
    else:
        raise ValueError(f"{type(layer).__name__} is not known to be computed row by row")
    own.load_state_dict(layer.state_dict())
    return own


def _special(layer: nn.Embedding) -> bool:
    """Return whether some rows of a table are treated otherwise than others."""
    return layer.padding_idx is not None or layer.max_norm is not None or bool(layer.scale_grad_by_freq)
