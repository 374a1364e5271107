"""White-box conformance of this build: small trainings by the partner's own code, measured against their events.

Where a check needs to see what noise hides, the training is asked for next to none; sampling, clipping, grouping and
the optimiser's step are the same code with any noise.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from coterie.clients import training
from coterie.clients.task import encoding_of
from coterie.models import propensity
from coterie.models.features import encode
from coterie.privacy.auditing import conformance
from coterie.privacy.auditing.conformance import Check
from coterie.privacy.plan import Model, Plan, Training
from coterie.privacy.randomness import RandomSource
from coterie.simulations.attacks.canaries import LARGE, PARTNER, Rows, audit_plan, customers_of, play

__all__ = ["run_checks"]

Floats = NDArray[np.float64]

_COLUMNS, _HIDDEN = 40, 1024  # 40,960 coordinates that no row has a gradient in: noise alone
_QUIET = 1e-9  # a noise multiplier that hides nothing
_SAMPLED, _STEPS = 300, 80
_PEOPLE, _WIDTH = 16, 6


def run_checks(random: RandomSource) -> tuple[Check, ...]:
    """Run every check on the real trainer.

    Args:
        random: Where noise and samples come from.
    """
    return (*_noise(random), _several_steps(random), _sampling(random), *_one_customer(random))


def _noise(random: RandomSource) -> tuple[Check, ...]:
    """Check the noise of four rounds of one step each."""
    plan = _noise_plan(rounds=4, local_steps=1)
    released, event = play(plan, _blank(30), random=random, label="conforming/noise")
    noise = released[:, : _COLUMNS * _HIDDEN]
    scale = _scale(plan, event.noise_multiplier)
    return (
        conformance.noise_scale(noise.ravel(), scale),
        conformance.noise_shape(noise.ravel(), scale),
        conformance.independence(noise, name="noise of one round beside another's"),
        conformance.independence(noise.reshape(8, -1)[:2], name="noise of one coordinate beside another's"),
    )


def _several_steps(random: RandomSource) -> Check:
    """Check that the noise of four steps in one release adds up as independent noise does, to twice one step's."""
    plan = _noise_plan(rounds=1, local_steps=4)
    released, event = play(plan, _blank(30), random=random, label="conforming/steps")
    scale = _scale(plan, event.noise_multiplier) * np.sqrt(event.steps)
    noise = released[0, : _COLUMNS * _HIDDEN]
    return conformance.noise_scale(noise, float(scale), name="noise of several steps in one release")


def _sampling(random: RandomSource) -> Check:
    """Check who is sampled: each customer moves a coordinate of its own when it is."""
    steps = Training(rounds=_STEPS, local_steps=1, sample_rate=0.25, learning_rate=1e-3, clip=1.0)
    plan = audit_plan(_SAMPLED, epsilon=1.0, training=steps, declared=_SAMPLED)
    columns = {f"c{index}": np.where(np.arange(_SAMPLED) == index, LARGE, np.nan) for index in range(_SAMPLED)}
    rows = _rows(columns, np.ones(_SAMPLED, dtype=np.float32), np.arange(_SAMPLED))
    released, event = play(plan, rows, random=random, label="conforming/sampling", noise=_QUIET)
    one = plan.training.learning_rate * plan.training.clip / (plan.training.sample_rate * _SAMPLED)
    return conformance.inclusion(released[:, :_SAMPLED] > one / 2, event.sample_rate)


def _one_customer(random: RandomSource) -> tuple[Check, ...]:
    """Check what one customer, of one row or two, adds to a sum, by taking each out in turn."""
    steps = Training(rounds=1, local_steps=1, sample_rate=1.0, learning_rate=1.0, clip=0.8, positive_weight=3.0)
    model = Model(family="mlp", hidden=3)
    plan = audit_plan(_WIDTH, epsilon=1.0, training=steps, declared=1, model=model)
    everybody = _people()
    names = np.unique(everybody.customer)
    weights = _start(plan)
    whole = _sum(plan, everybody, weights, random, "all")
    moves = np.stack(
        [whole - _sum(plan, _some(everybody, everybody.customer != name), weights, random, str(name)) for name in names]
    )
    gradients = np.stack([_gradient(plan, _some(everybody, everybody.customer == name), weights) for name in names])
    units = len(customers_of(everybody, plan))
    return (
        conformance.one_unit_each(units, len(names)),
        conformance.sensitivity(np.linalg.norm(moves, axis=1), steps.clip),
        conformance.gradients_match(moves, gradients, clip=steps.clip),
    )


def _noise_plan(*, rounds: int, local_steps: int) -> Plan:
    steps = Training(rounds=rounds, local_steps=local_steps, sample_rate=0.5, learning_rate=0.25, clip=0.7)
    model = Model(family="mlp", hidden=_HIDDEN)
    return audit_plan(_COLUMNS, epsilon=1.0, training=steps, declared=100, model=model)


def _scale(plan: Plan, noise: float) -> float:
    """Return the claimed standard deviation of one coordinate of one step's change."""
    steps = plan.training
    return noise * steps.clip * steps.learning_rate / (steps.sample_rate * plan.partners[0].customers)


def _sum(plan: Plan, rows: Rows, weights: propensity.Weights, random: RandomSource, label: str) -> Floats:
    """Return the sum of clipped gradients that one step over everybody releases, shape (parameters,)."""
    stream = random.stream(f"conforming/sum/{label}")
    change, _ = training.train(plan, PARTNER, weights, customers_of(rows, plan), noise=_QUIET, stream=stream)
    return -np.concatenate([part.ravel() for part in change]).astype(np.float64)


def _gradient(plan: Plan, rows: Rows, weights: propensity.Weights) -> Floats:
    """Return one customer's gradient by plain autograd: of the mean over its rows of the weighted log-loss."""
    features = torch.from_numpy(encode(encoding_of(plan.contract), rows.columns)).double()
    labels = torch.from_numpy(rows.labels).double()
    module = propensity.build(plan.model.family, features.shape[1], plan.model.hidden).double()
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(value))
    weight = torch.where(labels > 0, plan.training.positive_weight, 1.0)
    logits = module(features)[:, 0]
    loss = (weight * (functional.softplus(logits) - labels * logits)).mean()
    found = torch.autograd.grad(loss, list(module.parameters()))
    return np.concatenate([part.reshape(-1).numpy() for part in found])


def _start(plan: Plan) -> propensity.Weights:
    """Return weights away from zero; public, so a seeded generator is right."""
    rng = np.random.default_rng(5)
    start = propensity.initial(plan.model.family, _WIDTH, plan.model.hidden, seed=1)
    return tuple((part + 0.3 * rng.normal(size=part.shape)).astype(np.float32) for part in start)


def _people() -> Rows:
    """Make customers of one row or two, some with gradients far above the clip and some below it."""
    rng = np.random.default_rng(7)
    first = rng.normal(size=(_PEOPLE, _WIDTH)) * np.where(np.arange(_PEOPLE) % 2, 0.1, 50.0)[:, None]
    double = np.arange(_PEOPLE) % 4 < 2
    # A second row that pulls as the first does: taken for two customers, they weigh twice as much.
    table = np.vstack((first, 1.1 * first[double]))
    labels = rng.integers(0, 2, _PEOPLE).astype(np.float32)
    customer = np.concatenate((np.arange(_PEOPLE), np.flatnonzero(double)))
    columns = {f"c{index}": table[:, index] for index in range(_WIDTH)}
    return _rows(columns, np.concatenate((labels, labels[double])), customer)


def _blank(count: int) -> Rows:
    """Make customers with nothing in any column: their gradient is zero in every weight of the first layer."""
    columns = {f"c{index}": np.full(count, np.nan) for index in range(_COLUMNS)}
    return _rows(columns, np.zeros(count, dtype=np.float32), np.arange(count))


def _rows(columns: dict[str, Floats], labels: NDArray[np.float32], customer: Sequence[int] | NDArray[np.int64]) -> Rows:
    return Rows(columns, labels, np.asarray(customer, dtype=np.int64), np.zeros(len(labels), dtype=np.bool_))


def _some(rows: Rows, keep: NDArray[np.bool_]) -> Rows:
    columns = {name: values[keep] for name, values in rows.columns.items()}
    return Rows(columns, rows.labels[keep], rows.customer[keep], rows.held_out[keep])
