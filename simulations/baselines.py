"""What the federation is held against: each partner alone, and everything pooled, with and without privacy.

The baselines without privacy are made as strong as the family allows (trained to convergence with the usual
ridge of scikit-learn's default), so that the comparison does not flatter the federation. The private baseline
is the plan itself with one partner: the same events, and so the same guarantee.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from coterie.clients.task import encoding_of
from coterie.clients.training import trainer_for, trainer_settings
from coterie.models import propensity
from coterie.models.propensity import Weights
from coterie.privacy.calibration import Mechanisms
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import RandomSource
from coterie.privacy.training import Customers
from coterie.server.aggregate import fedavg, weighted_mean
from coterie.simulations.rows import Rows

__all__ = ["alone_private", "converged", "federated"]

_FEDERATED_ROUNDS, _FEDERATED_STEPS = 40, 10


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
    """Train on one partner's rows with the very steps, clip and noise that the federation asks of it."""
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
