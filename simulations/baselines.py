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

from coterie.clients.binnedsums import BinnedCustomers
from coterie.clients.predicting import layout_for
from coterie.clients.task import encoding_of, initial_weights
from coterie.clients.training import trainer_for, trainer_settings
from coterie.models import propensity
from coterie.models.binning import slots_of
from coterie.models.propensity import Weights
from coterie.privacy.calibration import Mechanisms
from coterie.privacy.centralnoise import central_noise
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.plan import Plan, Secure
from coterie.privacy.randomness import RandomSource
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.training import Customers, Summer, SumSettings
from coterie.server.aggregate import fedavg, weighted_mean
from coterie.server.optimizers import OptimizerState, advance, optimizer_settings, published, split_flat
from coterie.simulations import oneparty
from coterie.simulations.binnedpath import binned_model, own_shares
from coterie.simulations.rows import Rows, everyone

__all__ = ["alone_private", "converged", "federated", "pooled_private", "summed_private"]

_FEDERATED_ROUNDS, _FEDERATED_STEPS = 40, 10
_UNITS = 2**20  # of the clip, in sums of whole numbers


def converged(plan: Plan, rows: Rows) -> Weights:
    """Train the plan's family on rows without privacy, to convergence.

    The loss counts every customer once, as the private training does, plus ||w||**2 / (2 n).
    """
    counts, module = _module(plan, rows)
    features = _inputs(plan, counts, rows)
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = _loss(module, rows, features)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return *counts, *_weights(module)


def federated(plan: Plan, rows: Mapping[str, Rows]) -> Weights:
    """Train by FedAvg without clipping or noise, weighted by true sizes, with Adam at the partners."""
    counts, module = _module(plan, everyone(rows))
    weights = _weights(module)
    features = {name: _inputs(plan, counts, part) for name, part in rows.items()}
    sizes = {name: float(part.customers) for name, part in rows.items()}
    for _ in range(_FEDERATED_ROUNDS):
        updates = {}
        for name, part in rows.items():
            _load(module, weights)
            optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
            for _ in range(_FEDERATED_STEPS):
                optimizer.zero_grad()
                _loss(module, part, features[name]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            updates[name] = [new - old for new, old in zip(_weights(module), weights, strict=True)]
        weights = fedavg(weights, weighted_mean(updates, sizes), 1.0)
    return *counts, *weights


def alone_private(plan: Plan, partner: str, rows: Rows, *, mechanisms: Mechanisms, random: RandomSource) -> Weights:
    """Train on one partner's rows with the very steps, clip and epsilon that the federation asks of it."""
    entry = plan.partner(partner)
    declared = entry.customers if entry is not None else 1
    if plan.bins is not None:
        return _on_bins(oneparty.alone(plan, declared), rows, random)
    if isinstance(mechanisms.update, DistributedGaussian):
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
    if plan.bins is not None:
        return _on_bins(oneparty.alone(plan, declared), rows, random)
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
    whole = central_noise(plan)
    secure, training, width = plan.secure or Secure(), plan.training, encoding_of(plan.contract).width
    share = math.ceil(whole.update * _UNITS / math.sqrt(len(rows)))
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
    for _ in range(whole.steps):
        sums = [summer.total(state.weights, part, settings=numbers, stream=stream) for part in parts]
        total = np.sum([one + discrete_gaussians(share, len(one), stream) for one in sums], axis=0)
        state = advance(settings, state, split_flat(total * scale, [w.shape for w in state.weights]))
    return published(settings, state)


def _on_bins(plan: Plan, rows: Rows, random: RandomSource) -> Weights:
    """Make the plan's model of one party that adds all the noise itself."""
    parts = {oneparty.ALONE: BinnedCustomers(rows.features, rows.labels, rows.customer)}
    return binned_model(plan, parts, shares=own_shares(plan), stream=random.stream("baseline/bins"))


def _module(plan: Plan, rows: Rows) -> tuple[Weights, nn.Module]:
    """Return the exact counts from which bins are made without privacy, where there are any, and a fresh module."""
    start = initial_weights(plan)
    parameters = start if plan.bins is None else start[1:]
    module = propensity.build(plan.model.family, parameters[0].shape[1], plan.model.hidden)
    if plan.bins is None:
        _load(module, parameters)
        return (), module
    module = _on_slots(module)
    _load(module, parameters)
    weight = np.repeat(rows.weights / rows.customers, rows.features.shape[1])
    counts = np.bincount(rows.features.ravel(), weights=weight, minlength=len(start[0]))
    return (counts.astype(np.float32),), module


def _inputs(plan: Plan, counts: Weights, rows: Rows) -> torch.Tensor:
    """Return what a module takes of rows: their features, or their slots."""
    if plan.bins is None:
        return torch.from_numpy(rows.features)
    return torch.from_numpy(slots_of(layout_for(plan, counts), rows.features))


class _SlotSum(nn.Linear):
    """A linear layer on indicators of slots, which are never made."""

    def forward(self, slots: torch.Tensor) -> torch.Tensor:
        """Return (rows, outputs) for slots, (rows, active)."""
        found = [functional.embedding(column, self.weight.T) for column in slots.T]
        return torch.stack(found).sum(dim=0) + self.bias


def _on_slots(module: nn.Module) -> nn.Module:
    """Return a family's module with its first layer on slots."""
    first, *others = module if isinstance(module, nn.Sequential) else [module]
    if not isinstance(first, nn.Linear):
        raise TypeError("a family begins with a linear layer")
    return nn.Sequential(_SlotSum(first.in_features, first.out_features), *others)


def _loss(module: nn.Module, rows: Rows, features: torch.Tensor) -> torch.Tensor:
    logits = module(features)[:, 0]
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
