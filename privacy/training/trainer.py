"""DP-SGD over customers with Opacus: built once per process, used for every round.

Mechanism: Poisson sampling over customers, one clipped gradient per customer (user-level sampling, "ULS" of
Charles et al. 2024, arXiv 2407.07737), Gaussian noise, a public normaliser. Its cost is the event
`PoissonGaussian(noise_multiplier, sample_rate, steps)`.

Opacus traps that this module steps around: the rate and the normaliser are arguments and never counted from
the data (opacus #571, #819); the engine is not rebuilt every round (#688); rare labels are weighted in the
loss, before clipping, so that Poisson sampling stays what it is (#600); an empty sample takes a step of noise.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.nn import functional

from coterie.privacy.events import PoissonGaussian
from coterie.privacy.randomness import Stream
from coterie.privacy.training.customers import Batch, Customers
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


class Trainer:
    """A model and Opacus' engine around it, for any partner's data and any round.

    Args:
        module: Maps features to logits of shape (..., 1); a copy of it is trained.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._build()

    def _build(self) -> None:
        # "sum" keeps each customer's gradient as it is, whatever the size of the sample.
        self._model = GradSampleModule(copy.deepcopy(self._module), loss_reduction="sum")
        self._optimizer = SecretNoiseOptimizer(
            torch.optim.SGD(self._model.parameters(), lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=1.0,
            expected_batch_size=1,
        )

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
        try:
            with warnings.catch_warnings():
                # Opacus hooks modules whose inputs need no gradient; torch wonders why, each time.
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                for _ in range(steps):
                    self._step(customers, settings, stream)
            # The last sample's per-customer gradients are rows in another form: they die with the call.
            self._optimizer.zero_grad(set_to_none=True)
        except BaseException:
            # Opacus keeps what a broken step left in its modules: the next round must not meet it.
            self._build()
            raise
        event = PoissonGaussian(settings.noise_multiplier, settings.sample_rate, steps)
        return self._difference(weights), event

    def _step(self, customers: Customers, settings: TrainerSettings, stream: Stream) -> None:
        # Poisson sampling: each customer by an independent coin, as the accountant assumes.
        chosen = np.flatnonzero(stream.uniforms(len(customers)) < settings.sample_rate)
        batch = customers.batch(chosen)
        self._optimizer.zero_grad(set_to_none=True)
        self._losses(batch, settings.positive_weight).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _losses(self, batch: Batch, positive_weight: float) -> torch.Tensor:
        """Return one loss per customer: the weighted mean over its rows, shape (customers,)."""
        logits = self._model(batch.features).reshape(batch.labels.shape)  # (B, L)
        weight = torch.where(batch.labels > 0, positive_weight, 1.0) * batch.mask
        losses = functional.binary_cross_entropy_with_logits(logits, batch.labels, weight, reduction="none")
        return losses.sum(dim=1) / batch.mask.sum(dim=1)

    def _load(self, weights: Sequence[NDArray[np.float32]]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._model.parameters(), weights, strict=True):
                parameter.copy_(torch.from_numpy(np.array(value, dtype=np.float32)))

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
