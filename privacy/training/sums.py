"""One step's sum over a partner's customers in whole numbers, for a sum over partners that is opened as a whole.

Noise is no matter of this module: every partner adds its share of it to the whole numbers, where it is exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.numbers import greatest_norm
from coterie.privacy.training.customers import Customers
from coterie.privacy.training.engine import Engine
from coterie.privacy.training.optimizer import SumOptimizer

__all__ = ["IntegerSumOptimizer", "SumSettings", "Summer", "greatest_norm", "whole_numbers"]

_MOST_UNITS, _MOST_BOUND = 2**20, 2**62


@dataclass(frozen=True, kw_only=True)
class SumSettings:
    """What a step's sum is; all public.

    Args:
        clip: Greatest L2 norm of a customer's gradient.
        sensitivity: How many units the clip is; at most 2**20, so that squares and sums fit in 64 bits.
        bound: Greatest size of a coordinate of the sum, in units.
        sample_rate: Poisson rate over customers.
        positive_weight: Weight of rows with label 1.

    Raises:
        ValueError: The clip is not a number above 0, or a number of units is out of range.
    """

    clip: float
    sensitivity: int
    bound: int
    sample_rate: float
    positive_weight: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ValueError("the clip is not a number above 0")
        if not (1 <= self.sensitivity <= _MOST_UNITS and 1 <= self.bound <= _MOST_BOUND):
            raise ValueError(f"sensitivity is not 1 to {_MOST_UNITS}, or the bound not 1 to {_MOST_BOUND}")


def whole_numbers(gradients: torch.Tensor, norms: torch.Tensor, *, clip: float, sensitivity: int) -> torch.Tensor:
    """Scale gradients so that the clip is the sensitivity, clip them, and round to nearest, ties to even.

    Args:
        gradients: float64, (customers, parameters).
        norms: Their L2 norms, (customers,).
        clip: What the sensitivity stands for.
        sensitivity: D, in units.

    Returns:
        int64, (customers, parameters).

    Raises:
        ValueError: As `greatest_norm`.

    Guarantees:
        The squares of every row add up to at most D**2. That is verified on the whole numbers, and relies on none
        of the arithmetic before: a row that breaks it, or is not finite, is zeros.
    """
    limit = greatest_norm(sensitivity, gradients.shape[1])
    factors = (limit / norms).clamp(max=sensitivity / clip)
    rounded = (factors[:, None] * gradients).round()
    # What is not finite or not in range has no whole number; a comparison with what is not a number is false.
    ranged = rounded.abs().amax(dim=1) <= sensitivity
    whole = torch.where(ranged[:, None], rounded, 0.0).to(torch.int64)
    kept = whole.square().sum(dim=1) <= sensitivity**2
    return whole * kept[:, None]


class IntegerSumOptimizer(SumOptimizer):
    """A `DPOptimizer` that adds up customers' clipped gradients as whole numbers, over as many samples as it is given.

    It takes no step and draws no noise: `noise_multiplier`, `max_grad_norm` and `expected_batch_size` play no part.

    Guarantees:
        Adding or removing one customer changes the total by a vector of whole numbers of L2 norm at most
        `sensitivity`, exactly: no bit of another's gradient depends on it (`engine.py`), every
        customer's vector is verified in whole numbers, their sum in 64 bits is exact (2**20 units leave room for
        2**42 customers), and holding each coordinate within the bound moves no two sums apart.

    Leaks:
        The total has no noise and is as secret as the customers are.
    """

    def begin(self, settings: SumSettings) -> None:
        """Start a new total.

        Raises:
            ValueError: The sensitivity leaves no room for rounding so many parameters.
        """
        parameters = sum(parameter.numel() for parameter in self.params)
        greatest_norm(settings.sensitivity, parameters)
        self._settings = settings
        self._total = torch.zeros(parameters, dtype=torch.int64)

    def clip_and_accumulate(self) -> None:
        """Add the sample's customers to the total."""
        gradients, norms = self.gradients()
        together = torch.cat([gradient.flatten(start_dim=1) for gradient in gradients], dim=1)
        settings = self._settings
        whole = whole_numbers(together, norms, clip=settings.clip, sensitivity=settings.sensitivity)
        self._total += whole.sum(dim=0)

    def total(self) -> torch.Tensor:
        """Return the total, int64, (parameters,), each coordinate held within the bound; the next is from zero."""
        total = self._total.clamp(-self._settings.bound, self._settings.bound)
        self._total = torch.zeros_like(self._total)
        return total


class Summer(Engine[IntegerSumOptimizer]):
    """A model and Opacus' engine around it that makes whole-number sums, for any partner's data and any step.

    Args:
        module: Maps features to logits of shape (..., 1); a copy of it is differentiated.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, IntegerSumOptimizer)

    def total(
        self,
        weights: Sequence[NDArray[np.float32]],
        customers: Customers,
        *,
        settings: SumSettings,
        stream: Stream,
    ) -> NDArray[np.int64]:
        """Sum the clipped gradients of a Poisson sample of customers at `weights`.

        Args:
            weights: Where, in the module's parameter order.
            customers: Private.
            settings: Public.
            stream: Secret randomness for sampling, used for this call alone.

        Returns:
            Units, shape (parameters,): the parameters in order, each flattened row by row. Divide by
            `sensitivity` / `clip` for a gradient.

        Raises:
            ValueError: The sensitivity leaves no room for rounding so many parameters.

        Guarantees:
            Adding or removing one customer changes the total by a vector of L2 norm at most `sensitivity`, exactly,
            in whole numbers: every other customer's part stays what it was, bit for bit.

        Leaks:
            The total has no noise: it is for masking together with the partner's share of noise, and for nothing
            else.
        """
        self._load(weights)
        self._optimizer.begin(settings)
        chosen = self._sample(customers, settings.sample_rate, stream)
        with self._at_work():
            for few in self._pieces(chosen, customers):
                self._differentiate(few, customers, settings.positive_weight)
                self._optimizer.clip_and_accumulate()
            total: NDArray[np.int64] = self._optimizer.total().numpy()
        return total
