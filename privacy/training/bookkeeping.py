"""DP-SGD for models with large tables and Opacus: exact per-customer clipping in one backward pass.

Opacus' hooks make a dense gradient of every table for every customer; ghost clipping runs backwards twice. Here a
backward pass records, and a step computes exact norms and clipped sums from that (book-keeping: Bu et al. 2023, arXiv
2210.00038). For any Opacus user:

    model = BookkeepingModule(model, loss_reduction="mean")
    optimizer = BookkeepingOptimizer(torch.optim.Adam(model.parameters()), noise_multiplier=1.0, max_grad_norm=1.0,
                                     expected_batch_size=256, loss_reduction="mean")
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=0.01))

The first dimension of every layer's input is the customer, and the loss is a sum or mean of one loss per customer.
"""

from collections.abc import Callable
from typing import Any

import torch
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import nn

from coterie.privacy.randomness import OsSource, Stream
from coterie.privacy.training.contributions import RowSum
from coterie.privacy.training.normals import Normals
from coterie.privacy.training.recording import Recorder, Recording, record, unrecord

__all__ = ["BookkeepingModule", "BookkeepingOptimizer", "BookkeepingSGD"]


# Opacus ships no types.
class BookkeepingModule(AbstractGradSampleModule):  # type: ignore[misc]
    """A module whose per-customer gradients are kept as what determines them, for a `BookkeepingOptimizer`.

    Args:
        m: Its trained layers are `nn.Linear`, `nn.Embedding` and `nn.EmbeddingBag` (sum or mean); layers may be used
            several times and may share parameters with layers of their kind.
        batch_first: Must be true: the first dimension is the customer.
        loss_reduction: "mean" or "sum": how one loss per customer became the loss.

    Raises:
        ValueError: A layer that is not known here.
        UnsupportedModuleError: A layer that mixes customers (Opacus' validator).
    """

    def __init__(self, m: nn.Module, *, batch_first: bool = True, loss_reduction: str = "mean") -> None:
        if not batch_first or loss_reduction not in {"mean", "sum"}:
            raise ValueError("the first dimension must be the customer, and loss_reduction 'mean' or 'sum'")
        ModuleValidator.validate(m, strict=True)
        super().__init__(m, batch_first=batch_first, loss_reduction=loss_reduction)
        trained: list[Any] = [parameter for parameter in m.parameters() if parameter.requires_grad]
        self._recorder = Recorder(trained, mean=loss_reduction == "mean")
        self._hooks = record(m, self._recorder)
        self._hooks += [parameter.register_hook(_refuse) for parameter in trained]

    def remove_hooks(self) -> None:
        """Give the layers their own forward back."""
        for hook in self._hooks:
            hook.remove()
        unrecord(self._module)

    def to_standard_module(self) -> nn.Module:
        """Return the wrapped module as it was, with the weights it has now.

        Raises:
            RuntimeError: Rows are owed noise (`LazySGD.flush`).
        """
        for parameter in self._module.parameters():
            if hasattr(parameter, "table"):
                parameter.table.check()
        found: nn.Module = super().to_standard_module()
        return found


def _refuse(gradient: torch.Tensor | None) -> None:
    if gradient is not None:
        raise RuntimeError("a gradient reached a parameter past its layer: such a use would not be clipped")


class BookkeepingOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' `DPOptimizer` over a `BookkeepingModule`, with any PyTorch optimiser inside.

    Args:
        optimizer: What makes steps of noisy gradients.
        noise_multiplier: Noise's standard deviation over the clip, at least 0.
        max_grad_norm: The clip: greatest L2 norm of a customer's gradient, of all parameters together.
        expected_batch_size: What a noisy sum is divided by where `loss_reduction` is "mean"; a public constant.
        loss_reduction: "mean" or "sum".
        stream: Secret randomness for the noise, for this optimiser alone; by default the operating system's.

    Guarantees:
        A step releases the sum of the customers' gradients, each of L2 norm at most `max_grad_norm`, plus
        N(0, (noise_multiplier * max_grad_norm)^2) in every coordinate, divided by a public constant. A customer whose
        gradient is not finite contributes nothing. Rows that are padding have no gradient, no noise and no release.

    Leaks:
        Sums are as precise as the module's parameters: in float32 their rounding is not bounded by the clip, and the
        noise is not exactly Gaussian (`Normals`). See `docs/limitations.md`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: int | None,
        loss_reduction: str = "mean",
        stream: Stream | None = None,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction=loss_reduction,
        )
        self.normals = Normals(OsSource().stream("book-keeping") if stream is None else stream)

    @property
    def recordings(self) -> list[Recording]:
        """The passes since gradients were last cleared.

        Raises:
            ValueError: There was none, or its step was taken already.
        """
        found: list[Recording] | None = getattr(self.params[0], "grad_sample", None)
        if not found:
            raise ValueError("no gradients were recorded: wrap the model in BookkeepingModule, and call backward()")
        return found

    @property
    def grad_samples(self) -> list[Any]:
        """Opacus asks for it to see whether there is anything to train; there are no per-customer gradients here."""
        return [parameter.grad_sample for parameter in self.params]

    def clip_and_accumulate(self) -> None:
        """Add every recorded customer's clipped gradient to each parameter's `summed_grad`, and forget the customer."""
        if any(recording.closed for recording in self.recordings):
            raise ValueError("gradients were not cleared since the last step: call zero_grad()")
        for recording in self.recordings:
            self.accumulate(recording)
            recording.close()

    def accumulate(self, recording: Recording) -> torch.Tensor:
        """Add one pass; return who is in it after customers without a finite gradient were taken out, (B,)."""
        found = {p: recording.contributions[p] for p in self.params if p in recording.contributions}
        present = list(found.values())
        if not present:
            raise ValueError("no gradient arrived at the parameters that are optimised")
        squares = torch.stack([contribution.squares() for contribution in present]).sum(dim=0)
        norms = squares.sqrt() * recording.scale
        finite = torch.isfinite(norms)
        if not bool(finite.all()):
            # Zero times a number that is not finite is not zero: such customers are taken out, not weighted by zero.
            for contribution in present:
                contribution.keep(finite)
            norms = norms[finite]
        factors = recording.scale * (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        for parameter, contribution in found.items():
            total = contribution.total(factors)
            parameter.summed_grad = total if parameter.summed_grad is None else parameter.summed_grad + total
        return finite

    @property
    def gradient_multiplier(self) -> float:
        """Standard deviation of the gradient's noise over the clip."""
        return float(self.noise_multiplier)

    def add_noise(self) -> None:
        """Set each parameter's gradient to its clipped sum plus noise, once per step."""
        for parameter in self.params:
            parameter.grad = torch.zeros_like(parameter)
            self.release(parameter, parameter.grad, 1.0)

    def release(self, parameter: Any, target: torch.Tensor, scale: float) -> None:  # noqa: ANN401 - with what Opacus and recording hang on it
        """Add `scale` times the parameter's noisy clipped sum to `target`, in place, and forget the sum."""
        padding = parameter.table.padding if hasattr(parameter, "table") else None
        kept = None if padding is None else target[padding].clone()
        self.normals.add_to(target, abs(scale) * self.gradient_multiplier * self.max_grad_norm)
        if kept is not None:
            target[padding] = kept
        self.add_sum(parameter, target, scale)

    def add_sum(self, parameter: Any, target: torch.Tensor, scale: float) -> None:  # noqa: ANN401 - likewise
        """Add `scale` times the parameter's clipped sum to `target`, in place, and forget it."""
        summed = parameter.summed_grad
        if isinstance(summed, RowSum):
            summed.add_to(target, scale)
        elif summed is not None:
            target.add_(summed, alpha=scale)
        # A sum that has been released must not meet fresh noise: averaging would undo it.
        parameter.summed_grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - PyTorch's signature
        """Clear gradients and recordings, and sums unless they wait for more (a virtual step)."""
        super().zero_grad(set_to_none)


class BookkeepingSGD(BookkeepingOptimizer):
    """A `BookkeepingOptimizer` around plain SGD that changes the weights in place: no gradient is ever dense.

    Args:
        optimizer: `torch.optim.SGD` without momentum, weight decay or maximising.
        settings: As for `BookkeepingOptimizer`.

    Guarantees:
        Each step is that of `BookkeepingOptimizer`: noise on every coordinate of every parameter, every step. The inner
        optimiser gives the step sizes; its own `step` is not called.

    Raises:
        ValueError: The optimiser is not plain SGD.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, **settings: Any) -> None:  # noqa: ANN401 - the base's arguments
        super().__init__(optimizer, **settings)
        self._check()

    def _check(self) -> None:
        plain = {"momentum": 0, "weight_decay": 0, "maximize": False, "nesterov": False}
        if type(self.original_optimizer) is not torch.optim.SGD or any(
            group[name] != value for group in self.param_groups for name, value in plain.items()
        ):
            raise ValueError("only torch.optim.SGD without momentum, weight decay or maximising can be done in place")

    def add_noise(self) -> None:
        """Leave noise to `step`, which adds it to the weights."""

    def scale_grad(self) -> None:
        """Leave the division to `step`."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step: clip and add up, let the accountant know, then change the weights."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        if not self.pre_step():
            return None
        self._check()  # schedulers may change what is optimised how
        with torch.no_grad():
            for group in self.param_groups:
                scale = float(group["lr"]) / self.divisor
                for parameter in group["params"]:
                    if parameter.requires_grad:
                        self.move(parameter, scale)
        return None

    @property
    def divisor(self) -> float:
        """What a noisy sum is divided by."""
        return float(self.expected_batch_size * self.accumulated_iterations) if self.loss_reduction == "mean" else 1.0

    def move(self, parameter: nn.Parameter, scale: float) -> None:
        """Subtract `scale` times the parameter's noisy clipped sum from it."""
        self.release(parameter, parameter, -scale)
