"""Layers that record what book-keeping needs while autograd runs once.

A recorded layer computes what PyTorch's does. Backwards it passes on the gradient of its input, keeps its input and the
gradient of its output, and makes no gradient of its parameters.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from coterie.privacy.training.contributions import Contribution, Products, Rows, Sums

__all__ = ["Recorder", "Recording", "Table", "record", "unrecord"]


_Lookups = nn.Embedding | nn.EmbeddingBag


class Table:
    """What is known of an embedding table: carried by its parameter as `parameter.table`.

    Args:
        padding: The row that is never trained.
    """

    def __init__(self, padding: int | None) -> None:
        self.padding = padding
        self.before_read: Callable[[torch.Tensor], None] | None = None
        """Called with the indices of every look-up, before it."""
        self.owed: Callable[[], bool] | None = None
        """Says whether rows are owed noise, so that they must not be released."""

    def check(self) -> None:
        """Refuse to go on where rows are owed noise.

        Raises:
            RuntimeError: They are.
        """
        if self.owed is not None and self.owed():
            raise RuntimeError("rows are owed noise: call the optimizer's flush() before weights are released")


class Recording:
    """What one forward and backward pass said of its customers' gradients.

    Args:
        mean: Whether the loss was the mean over customers, and not the sum.
    """

    def __init__(self, *, mean: bool) -> None:
        self.contributions: dict[nn.Parameter, Contribution] = {}
        self.customers: int | None = None
        self._mean = mean
        self.closed = False

    @property
    def scale(self) -> float:
        """What a recorded gradient must be multiplied by to be that of the customer's own loss."""
        return float(self.customers or 0) if self._mean else 1.0

    def close(self) -> None:
        """Forget everything: customers' gradients die with the step."""
        self.contributions.clear()
        self.closed = True

    def join(self, customers: int) -> None:
        """Take note of how many customers a use was of.

        Raises:
            RuntimeError: The step of this pass was taken already.
            ValueError: Another use in this pass was of another number of customers.
        """
        if self.closed:
            raise RuntimeError("a backward pass through a graph whose gradients were used already")
        if self.customers is None:
            self.customers = customers
        if self.customers != customers:
            raise ValueError(
                f"layers saw {self.customers} and {customers} customers in one pass: "
                "the first dimension of every layer's input must be the customer"
            )


class Recorder:
    """Opens a recording for every pass, and leaves it with the parameters as Opacus leaves `grad_sample`.

    Args:
        parameters: Those that are trained.
        mean: Whether losses are means over customers, and not sums.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, mean: bool) -> None:
        self._parameters: list[Any] = list(parameters)
        self._mean = mean
        self._current: Recording | None = None

    def current(self) -> Recording:
        """Return the recording that a use made now belongs to: a new one once gradients have arrived in the last."""
        if self._current is None or self._current.customers is not None:
            self._current = Recording(mean=self._mean)
        return self._current

    def arrived(self, recording: Recording, customers: int) -> dict[nn.Parameter, Contribution]:
        """Return where to write a gradient; the first one of a pass leaves the recording with all parameters."""
        fresh = recording.customers is None
        recording.join(customers)
        if fresh:
            for parameter in self._parameters:
                parameter.grad_sample = [*(parameter.grad_sample or []), recording]
        return recording.contributions

    def linear(self, recording: Recording, layer: nn.Linear, inputs: torch.Tensor, gradient: torch.Tensor) -> None:
        """Write down a use of a linear layer."""
        found = self.arrived(recording, len(inputs))
        weight: Any = layer.weight
        if weight.requires_grad:
            products = found.setdefault(weight, Products())
            if isinstance(products, Products):
                products.add(inputs, gradient)
        bias: Any = layer.bias
        if bias is not None and bias.requires_grad:
            sums = found.setdefault(bias, Sums())
            if isinstance(sums, Sums):
                sums.add(gradient)

    def look_up(self, recording: Recording, layer: _Lookups, indices: torch.Tensor, gradient: torch.Tensor) -> None:
        """Write down a look-up in a layer's table: indices (B, ...), gradient (B, ..., D)."""
        found = self.arrived(recording, len(indices))
        weight: Any = layer.weight
        rows = found.setdefault(weight, Rows(len(weight), weight.table.padding))
        if layer.padding_idx is not None:
            gradient = gradient.masked_fill((indices == layer.padding_idx).unsqueeze(-1), 0.0)
        if isinstance(rows, Rows):
            rows.add(indices, gradient)


class _Linear(torch.autograd.Function):
    """x W^T + b."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: nn.Linear, recorder: Recorder, *_: Any) -> torch.Tensor:  # noqa: ANN401 - torch's context
        ctx.save_for_backward(x, layer.weight)
        ctx.layer, ctx.recorder, ctx.recording = layer, recorder, recorder.current()
        return functional.linear(x, layer.weight, layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - likewise
        x, weight = ctx.saved_tensors
        ctx.recorder.linear(ctx.recording, ctx.layer, x, gradient)
        return gradient.matmul(weight) if ctx.needs_input_grad[0] else None, None, None, None, None


class _LookUp(torch.autograd.Function):
    """Rows of a table."""

    @staticmethod
    def forward(ctx: Any, indices: torch.Tensor, layer: _Lookups, recorder: Recorder, *_: Any) -> torch.Tensor:  # noqa: ANN401 - likewise
        ctx.save_for_backward(indices)
        ctx.layer, ctx.recorder, ctx.recording = layer, recorder, recorder.current()
        return functional.embedding(indices, layer.weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, ...]:  # noqa: ANN401 - likewise
        (indices,) = ctx.saved_tensors
        ctx.recorder.look_up(ctx.recording, ctx.layer, indices, gradient)
        return None, None, None, None


def _linear(layer: nn.Linear, recorder: Recorder, x: torch.Tensor) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return functional.linear(x, layer.weight, layer.bias)
    if x.dim() < 2:
        raise ValueError("a linear layer's input needs a first dimension for customers")
    # The parameters are arguments so that autograd knows that the output depends on them.
    found: torch.Tensor = _Linear.apply(x, layer, recorder, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return found


def _embedding(layer: _Lookups, recorder: Recorder, indices: torch.Tensor) -> torch.Tensor:
    weight: Any = layer.weight
    if weight.table.before_read is not None:
        weight.table.before_read(indices)
    if not torch.is_grad_enabled():
        return functional.embedding(indices, weight)
    if indices.dim() < 1:
        raise ValueError("an embedding's input needs a first dimension for customers")
    found: torch.Tensor = _LookUp.apply(indices, layer, recorder, weight)  # type: ignore[no-untyped-call]
    return found


def _bag(layer: nn.EmbeddingBag, recorder: Recorder, indices: torch.Tensor) -> torch.Tensor:
    if indices.dim() != 2:
        raise ValueError("an embedding bag takes (customers, places): fill short bags with padding_idx")
    kept = torch.ones_like(indices) if layer.padding_idx is None else (indices != layer.padding_idx).long()
    rows = _embedding(layer, recorder, indices)  # (B, L, D)
    total = (rows * kept.unsqueeze(-1)).sum(dim=1)
    return total if layer.mode == "sum" else total / kept.sum(dim=1, keepdim=True).clamp(min=1)


_FORWARD: dict[type[nn.Module], Callable[..., torch.Tensor]] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _bag,
}


def record(module: nn.Module, recorder: Recorder) -> list[RemovableHandle]:
    """Make the trained layers of a module record, each in place of its own forward; return what hooks that needs."""
    hooks = []
    for layer in _layers(module):
        table: Any = layer  # PyTorch's hooks have no types
        if isinstance(layer, _Lookups):
            weight: Any = layer.weight
            weight.table = getattr(weight, "table", Table(layer.padding_idx))
            if weight.table.padding != layer.padding_idx:
                weight.table.padding = None  # a row that one of its layers trains is trained
            hooks += [
                table.register_state_dict_pre_hook(_check_table),
                table.register_load_state_dict_pre_hook(_check_table),
            ]
        vars(layer)["forward"] = functools.partial(_FORWARD[type(layer)], layer, recorder)
    return hooks


def _check_table(layer: _Lookups, *_: object) -> None:
    weight: Any = layer.weight
    weight.table.check()


def unrecord(module: nn.Module) -> None:
    """Give the layers their own forward back."""
    for layer in module.modules():
        vars(layer).pop("forward", None)
        for parameter in layer.parameters(recurse=False):
            if hasattr(parameter, "table"):
                del parameter.table


def _layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers with parameters of their own that are trained.

    Raises:
        ValueError: A layer's per-customer gradients are not known here, or two kinds of layers share a parameter.
    """
    found: list[nn.Module] = []
    owners: dict[nn.Parameter, type[nn.Module]] = {}
    for name, layer in module.named_modules():
        own = [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]
        if not own:
            continue
        if type(layer) not in _FORWARD:
            known = ", ".join(kind.__name__ for kind in _FORWARD)
            raise ValueError(f"{name or 'the module'} is a {type(layer).__name__} with parameters: known are {known}")
        _check(name, layer)
        for parameter in own:
            kind = nn.Linear if isinstance(layer, nn.Linear) else nn.Embedding
            if owners.setdefault(parameter, kind) is not kind:
                raise ValueError(f"{name} shares a parameter with a layer of another kind")
        found.append(layer)
    return found


def _check(name: str, layer: nn.Module) -> None:
    if not isinstance(layer, _Lookups):
        return
    if layer.max_norm is not None:
        raise ValueError(f"{name} has max_norm, which changes weights without noise")
    if layer.scale_grad_by_freq:
        raise ValueError(f"{name} has scale_grad_by_freq, which makes a gradient depend on other customers")
    if isinstance(layer, nn.EmbeddingBag) and layer.mode == "max":
        raise ValueError(f"{name} takes maxima: known are bags that add up or take the mean")
