"""Opacus' optimiser with noise from a cryptographic stream, and sums that keep the clip exactly."""

import torch
from opacus.optimizers import DPOptimizer

from coterie.privacy.randomness import Stream
from coterie.privacy.training.rowwise import tree_sum

__all__ = ["CustomerOptimizer", "SecretNoiseOptimizer", "SumOptimizer"]


# Opacus ships no types.
class CustomerOptimizer(DPOptimizer):  # type: ignore[misc]
    """A `DPOptimizer` that takes each customer's gradient, of all parameters together, in float64."""

    def gradients(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return each parameter's gradients, (customers, *shape), and the customers' L2 norms, (customers,)."""
        gradients = [sample.double() for sample in self.grad_samples]
        squares = [gradient.flatten(start_dim=1).square() for gradient in gradients]
        # By trees: a customer's norm depends on its gradient alone, in every bit.
        return gradients, tree_sum(torch.cat(squares, dim=1), dim=1).sqrt()


class SumOptimizer(CustomerOptimizer):
    """A `DPOptimizer` that adds customers up and takes no step: others mask its sums, add noise and open them."""

    def add_noise(self) -> None:
        """Refuse: a step along a sum without noise would be a release that nobody paid for.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("whole-number sums are masked and opened among partners, never stepped along")


class SecretNoiseOptimizer(CustomerOptimizer):
    """A `DPOptimizer` that sums in float64 and draws its noise from a `Stream`.

    Guarantees:
        A step releases the sum of per-customer gradients, each of L2 norm at most `max_grad_norm`, plus
        N(0, (noise_multiplier * max_grad_norm)**2) in every coordinate, divided by a public constant. A customer
        whose gradient is not finite contributes nothing, so that no choice of weights turns one customer's
        presence into a sum that is not a number. Gradients, clipping, sum, noise and step are float64: in float32 the
        rounding of a sum over millions of customers can exceed the clip.

    Leaks:
        Floating-point noise is not exactly Gaussian (Mironov 2012); the rounding to float32 of what a round changed
        narrows, and does not close, that gap. See `docs/limitations.md`.
    """

    def use(self, stream: Stream) -> None:
        """Draw noise from `stream` until told otherwise."""
        self._stream = stream

    def clip_and_accumulate(self) -> None:
        """Add the piece's clipped per-customer gradients to each parameter's `summed_grad`, in float64."""
        gradients, norms = self.gradients()
        # Zero times a number that is not finite is not zero: such customers are taken out, not weighted by zero.
        finite = torch.isfinite(norms)
        factors = (self.max_grad_norm / norms[finite].clamp(min=1e-30)).clamp(max=1.0)
        for parameter, gradient in zip(self.params, gradients, strict=True):
            summed = torch.einsum("i,i...->...", factors, gradient[finite])
            parameter.summed_grad = summed if parameter.summed_grad is None else parameter.summed_grad + summed

    def add_noise(self) -> None:
        """Set each parameter's gradient to its clipped sum plus noise, once per step."""
        scale = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            summed = parameter.summed_grad
            noise = torch.from_numpy(self._stream.normals(summed.numel())).view_as(summed)
            parameter.grad = (summed + scale * noise).to(parameter.dtype).view_as(parameter)
            # A sum that has been released must not meet fresh noise: averaging would undo it.
            parameter.summed_grad = None
