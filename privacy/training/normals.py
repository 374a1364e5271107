"""Gaussian noise for large tensors, drawn from a `Stream` in pieces that fit the processor's cache.

A float32 tensor gets the normal quantile of one 32-bit word per coordinate, computed in float32; one draw in 256,
chosen by independent coins, is a draw of the tails and computed in float64. Small and float64 tensors get
`Stream.normals`. Nothing here allocates memory that grows with the tensor.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from coterie.privacy.randomness import Stream

__all__ = ["CHUNK", "SMALL", "Normals"]

CHUNK = 2**18
"""Coordinates drawn at a time: buffers of this length stay in a processor's cache, and calls cost little."""

SMALL = 2**13
"""Fewer coordinates than this are cheaper to draw in float64, which takes fewer calls."""

_OUTER = 2.0**-8  # probability of the tails: |x| above 2.88
_END = 1.0 - 2.0**-53


class Normals:
    """Adds independent normals to tensors in place.

    Guarantees:
        Every coordinate gets a draw of its own: sqrt(2) erfinv(u) for u uniform on (-1, 1). For float32, |u| is above
        1 - 2^-8 with that probability, and then uniform there with 53 bits; else u is one of 2^32 values, rounded to
        float32, which leaves steps below 1e-5 standard deviations between neighbouring draws. Tails end at 8.2, which
        leaves out a mass below 1e-15. Draws for float64 tensors, and for fewer than `SMALL`
        coordinates, are those of `Stream.normals`.

    Leaks:
        Floating-point noise is not exactly Gaussian (Mironov 2012). See `docs/limitations.md`.

    Args:
        stream: Secret randomness, for this mechanism alone.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = torch.empty(CHUNK)
        self._numbers = self._buffer.numpy()

    def add_to(self, target: torch.Tensor, scale: float) -> None:
        """Add N(0, scale^2) to every coordinate of `target`, in place."""
        if scale == 0.0:
            return
        if not target.is_contiguous():
            target.add_(self.draw(target.shape, target), alpha=scale)
            return
        for piece in torch.split(target.view(-1), CHUNK):
            if target.dtype == torch.float64 or len(piece) < SMALL:
                noise = torch.from_numpy(self._stream.normals(len(piece)))
                piece.add_(noise.to(target), alpha=scale)
            else:
                piece.add_(self._halves(len(piece)).to(target.device), alpha=scale * math.sqrt(2.0))

    def draw(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Return standard normals of this shape, with the type and device of `like`."""
        noise = torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)
        self.add_to(noise, 1.0)
        return noise

    def rows(self, deviations: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return independent rows N(0, deviation^2 I), as wide and of the type of `like`, for immediate use.

        Args:
            deviations: (n,).
            like: (rows, columns).

        Returns:
            Shape (n, columns); the next draw may overwrite it.
        """
        shape = (len(deviations), like.shape[1])
        count = shape[0] * shape[1]
        if like.dtype != torch.float32 or like.device.type != "cpu" or count > CHUNK:
            noise = self.draw(shape, like)
        else:
            noise, deviations = self._halves(count).view(shape), deviations * math.sqrt(2.0)
        return noise.mul_(deviations.to(noise.dtype)[:, None])

    def coins(self, count: int, probability: float) -> torch.Tensor:
        """Return which of `count` independent coins of this probability fall on heads, in order."""
        if probability > 0.05:
            return torch.from_numpy(np.flatnonzero(self._stream.uniforms(count) < probability))
        found, last = [np.empty(0, dtype=np.int64)], -1
        # From one head to the next there is a geometric number of coins.
        while probability > 0.0 and last < count:
            expected = probability * count
            steps = np.log1p(-self._stream.uniforms(16 + int(expected + 4 * math.sqrt(expected))))
            steps /= math.log1p(-probability)
            heads = last + (np.minimum(steps, count).astype(np.int64) + 1).cumsum()
            found.append(heads)
            last = int(heads[-1])
        heads = np.concatenate(found)
        return torch.from_numpy(heads[: np.searchsorted(heads, count)])

    def _halves(self, count: int) -> torch.Tensor:
        """Return `count` draws of N(0, 1/2) in a buffer that the next call overwrites."""
        words = np.frombuffer(self._stream.bits(4 * count), dtype=np.int32)
        found, numbers = self._buffer[:count], self._numbers[:count]
        np.copyto(numbers, words, casting="unsafe")
        torch.erfinv(found.mul_((1.0 - _OUTER) * 2.0**-31), out=found)
        tails = self.coins(count, _OUTER).numpy()
        place = 2.0 * self._stream.uniforms(len(tails)) - 1.0
        outer = torch.from_numpy(np.copysign(np.minimum(1.0 - _OUTER * np.abs(place), _END), place))
        numbers[tails] = torch.erfinv(outer).numpy()
        return found
