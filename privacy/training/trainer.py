"""DP-SGD over customers with Opacus: built once per process, used for every round.

Mechanism: Poisson sampling over customers, one clipped gradient per customer (user-level sampling, "ULS" of
Charles et al. 2024, arXiv 2407.07737), Gaussian noise, a public normaliser. Its cost is the event
`PoissonGaussian(noise_multiplier, sample_rate, steps)`.

Opacus traps that this module steps around: the rate and the normaliser are arguments and never counted from
the data (opacus #571, #819); an empty sample takes a step of noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from coterie.privacy.events import PoissonGaussian
from coterie.privacy.randomness import Stream
from coterie.privacy.training.customers import Customers
from coterie.privacy.training.engine import Engine
from coterie.privacy.training.optimizer import SecretNoiseOptimizer

__all__ = ["Trainer", "TrainerSettings"]

MOST = 1e6  # greatest change of one weight that is released


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """What a step is; all public.

    Args:
        clip: Greatest L2 norm of a customer's gradient.
        noise_multiplier: Noise's standard deviation over the clip.
        sample_rate: Poisson rate over customers.
        normaliser: What a noisy sum is divided by: the rate times the declared number of customers.
        learning_rate: Step size.
        positive_weight: Weight of rows with label 1.
    """

    clip: float
    noise_multiplier: float
    sample_rate: float
    normaliser: float
    learning_rate: float
    positive_weight: float


class Trainer(Engine[SecretNoiseOptimizer]):
    """A model and Opacus' engine around it, for any partner's data and any round.

    Args:
        module: Maps features to logits of shape (..., 1); a copy of it is trained.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, SecretNoiseOptimizer)

    def train(
        self,
        weights: Sequence[NDArray[np.float32]],
        customers: Customers,
        *,
        settings: TrainerSettings,
        steps: int,
        stream: Stream,
    ) -> tuple[tuple[NDArray[np.float32], ...], PoissonGaussian]:
        """Take private steps from `weights`.

        Args:
            weights: Where to start, in the module's parameter order.
            customers: Private.
            settings: Public.
            steps: How many.
            stream: Secret randomness for sampling and noise, used for this call alone.

        Returns:
            New weights minus old, and the event that pays for them.

        Guarantees:
            The difference is a function of the noisy sums that the event describes.
        """
        self._load(weights)
        self._configure(settings, stream)
        with self._at_work():
            for _ in range(steps):
                self._step(customers, settings, stream)
        event = PoissonGaussian(settings.noise_multiplier, settings.sample_rate, steps)
        return self._difference(weights), event

    def _step(self, customers: Customers, settings: TrainerSettings, stream: Stream) -> None:
        chosen = self._sample(customers, settings.sample_rate, stream)
        *first, last = self._pieces(chosen, customers)
        for few in first:
            self._differentiate(few, customers, settings.positive_weight)
            self._optimizer.signal_skip_step(do_skip=True)  # Opacus adds up, and waits for the whole sample
            self._optimizer.step()
        self._differentiate(last, customers, settings.positive_weight)
        self._optimizer.signal_skip_step(do_skip=False)
        self._optimizer.step()

    def _configure(self, settings: TrainerSettings, stream: Stream) -> None:
        self._optimizer.noise_multiplier = settings.noise_multiplier
        self._optimizer.max_grad_norm = settings.clip
        self._optimizer.expected_batch_size = settings.normaliser
        self._optimizer.param_groups[0]["lr"] = settings.learning_rate
        self._optimizer.use(stream)

    def _difference(self, weights: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
        """Return new weights minus old, held to finite numbers: a release never fails for what noise did."""
        pairs = zip(self._model.parameters(), weights, strict=True)
        changes = (p.detach().numpy() - np.asarray(w, dtype=np.float32) for p, w in pairs)
        return tuple(np.clip(np.nan_to_num(c, nan=0.0), -MOST, MOST).astype(np.float32) for c in changes)
