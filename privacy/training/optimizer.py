"""Opacus' optimiser with noise from a cryptographic stream."""

import torch
from opacus.optimizers import DPOptimizer

from coterie.privacy.randomness import Stream

__all__ = ["SecretNoiseOptimizer"]


# Opacus ships no types.
class SecretNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """A `DPOptimizer` that clips as Opacus does and draws its noise from a `Stream`.

    Guarantees:
        A step releases the sum of per-customer gradients, each of L2 norm at most `max_grad_norm`, plus
        N(0, (noise_multiplier * max_grad_norm)**2) in every coordinate, divided by a public constant. Sum and
        noise are added in float64 and rounded once to float32.

    Leaks:
        Floating-point noise is not exactly Gaussian (Mironov 2012); the rounding after addition narrows, and
        does not close, that gap. See `docs/limitations.md`.
    """

    def use(self, stream: Stream) -> None:
        """Draw noise from `stream` until told otherwise."""
        self._stream = stream

    def add_noise(self) -> None:
        """Set each parameter's gradient to its clipped sum plus noise, once per step."""
        scale = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            summed = parameter.summed_grad
            noise = torch.from_numpy(self._stream.normals(summed.numel())).view_as(summed)
            parameter.grad = (summed.double() + scale * noise).to(parameter.dtype).view_as(parameter)
            # A sum that has been released must not meet fresh noise: averaging would undo it.
            parameter.summed_grad = None
