"""What the federation is held against: each partner alone, and everything pooled, with and without privacy.

The baselines without privacy are made as strong as the family allows (trained to convergence with the usual
ridge of scikit-learn's default), so that the comparison does not flatter the federation. The private baseline
is the plan itself with one partner: the same events, and so the same guarantee.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from coterie.clients.task import encoding_of
from coterie.clients.training import trainer_for, trainer_settings
from coterie.models import propensity
from coterie.models.propensity import Weights
from coterie.privacy.calibration import Mechanisms, central_noise
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.plan import Plan, Secure
from coterie.privacy.randomness import RandomSource
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.training import Customers, Summer, SumSettings
from coterie.server.aggregate import fedavg, weighted_mean
from coterie.server.optimizers import OptimizerState, advance, optimizer_settings, published, split_flat
from coterie.simulations.rows import Rows

__all__ = ["alone_private", "converged", "federated", "pooled_private", "summed_private"]

_FEDERATED_ROUNDS, _FEDERATED_STEPS = 40, 10
_UNITS = 2**20  # of the clip, in sums of whole numbers


def converged(plan: Plan, rows: Rows) -> Weights:
    """Train the plan's family on rows without privacy, to convergence.

    The loss counts every customer once, as the private training does, plus ||w||**2 / (2 n).
    """
    module = _module(plan)
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = _loss(module, rows)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return _weights(module)


def federated(plan: Plan, rows: Mapping[str, Rows]) -> Weights:
    """Train by FedAvg without clipping or noise, weighted by true sizes, with Adam at the partners."""
    module = _module(plan)
    weights = _weights(module)
    sizes = {name: float(part.customers) for name, part in rows.items()}
    for _ in range(_FEDERATED_ROUNDS):
        updates = {}
        for name, part in rows.items():
            _load(module, weights)
            optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
            for _ in range(_FEDERATED_STEPS):
                optimizer.zero_grad()
                _loss(module, part).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            updates[name] = [new - old for new, old in zip(_weights(module), weights, strict=True)]
        weights = fedavg(weights, weighted_mean(updates, sizes), 1.0)
    return weights


def alone_private(plan: Plan, partner: str, rows: Rows, *, mechanisms: Mechanisms, random: RandomSource) -> Weights:
    """Train on one partner's rows with the very steps, clip and epsilon that the federation asks of it."""
    if isinstance(mechanisms.update, DistributedGaussian):
        entry = plan.partner(partner)
        declared = entry.customers if entry is not None else 1
        return summed_private(plan, {partner: rows}, declared=declared, random=random)
    width = encoding_of(plan.contract).width
    weights = propensity.initial(plan.model.family, width, plan.model.hidden, seed=0)
    trainer = trainer_for(plan.model.family, width, plan.model.hidden)
    customers = Customers(rows.features, rows.labels, rows.customer)
    change, _ = trainer.train(
        weights,
        customers,
        settings=trainer_settings(plan, partner, mechanisms.update.noise_multiplier),
        steps=plan.training.rounds * plan.training.local_steps,
        stream=random.stream(f"baseline/{partner}"),
    )
    return tuple(old + new for old, new in zip(weights, change, strict=True))


def pooled_private(plan: Plan, rows: Rows, *, random: RandomSource) -> Weights:
    """Train on everything pooled, by a curator who adds the noise once: what secure sums are to be as good as.

    The steps, the clip, the epsilon and the accountant are the plan's; the noise is that of one party with no margin
    for others who drop out or collude.
    """
    declared = sum(partner.customers for partner in plan.partners)
    return summed_private(plan, {"everyone": rows}, declared=declared, random=random)


def summed_private(plan: Plan, rows: Mapping[str, Rows], *, declared: int, random: RandomSource) -> Weights:
    """Take the plan's steps along plain sums over these parts, each with its share of exactly the noise charged for.

    With every partner as a part it is secure aggregation at zero margin: the very sums, without masks.

    Args:
        plan: Its steps, clip, epsilon and optimiser.
        rows: The parts.
        declared: Customers of all parts together, as their partners declared them.
        random: Where noise and samples come from.
    """
    steps, multiplier = central_noise(plan)
    secure, training, width = plan.secure or Secure(), plan.training, encoding_of(plan.contract).width
    share = math.ceil(multiplier * _UNITS / math.sqrt(len(rows)))
    numbers = SumSettings(
        clip=training.clip,
        sensitivity=_UNITS,
        bound=2**62 // len(rows),
        sample_rate=training.sample_rate,
        positive_weight=training.positive_weight,
    )
    summer = Summer(propensity.build(plan.model.family, width, plan.model.hidden))
    parts = [Customers(part.features, part.labels, part.customer) for part in rows.values()]
    stream = random.stream("baseline/sums")
    settings = optimizer_settings(plan, secure)
    scale = training.clip / _UNITS / (training.sample_rate * declared)
    state = OptimizerState.start(propensity.initial(plan.model.family, width, plan.model.hidden, seed=0))
    for _ in range(steps):
        sums = [summer.total(state.weights, part, settings=numbers, stream=stream) for part in parts]
        total = np.sum([one + discrete_gaussians(share, len(one), stream) for one in sums], axis=0)
        state = advance(settings, state, split_flat(total * scale, [w.shape for w in state.weights]))
    return published(settings, state)


def _module(plan: Plan) -> nn.Module:
    width = encoding_of(plan.contract).width
    module = propensity.build(plan.model.family, width, plan.model.hidden)
    _load(module, propensity.initial(plan.model.family, width, plan.model.hidden, seed=0))
    return module


def _loss(module: nn.Module, rows: Rows) -> torch.Tensor:
    logits = module(torch.from_numpy(rows.features))[:, 0]
    weights = torch.from_numpy((rows.weights / rows.customers).astype(np.float32))
    labels = torch.from_numpy(rows.labels)
    ridge = torch.stack([p.square().sum() for p in module.parameters() if p.dim() > 1]).sum()
    loss = functional.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")
    return loss + ridge / (2 * rows.customers)


def _load(module: nn.Module, weights: Weights) -> None:
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(value))


def _weights(module: nn.Module) -> Weights:
    return tuple(parameter.detach().numpy().copy() for parameter in module.parameters())
