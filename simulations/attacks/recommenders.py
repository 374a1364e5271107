"""Studies of recommenders over made-up histories, sum by sum, as one partner and the coordinator run them.

Everything between a question and its answer is what a partner runs: `OwnSums.add` or `SumNode.add`, the parts that they
open, the plan's calibrated noise. What is missing stands in `desk.py`.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.clients.ownsums import OwnSums
from coterie.clients.parts import open_part
from coterie.clients.task import SumTask, initial_weights
from coterie.models.histories import Histories
from coterie.models.propensity import Weights
from coterie.privacy.calibration import TRAINING
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.events import Event, Nothing
from coterie.privacy.plan import (
    SECURE,
    Catalogued,
    Cohort,
    Metrics,
    Model,
    Partner,
    Plan,
    Privacy,
    Recommendation,
    Secure,
    Training,
)
from coterie.privacy.randomness import RandomSource, Stream
from coterie.privacy.schedule import trained
from coterie.privacy.sums import numbers_of
from coterie.server.optimizers import OptimizerState
from coterie.server.steps import Total, stepped
from coterie.simulations.attacks.canaries import DELTA, PARTNER
from coterie.simulations.attacks.desk import Desk, Unmasked

__all__ = ["Made", "Named", "Step", "histories_of", "made", "noiseless", "recommender_plan", "released"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Named:
    """A source of randomness that puts a name before every stream's own.

    Args:
        source: Where streams come from.
        prefix: The name.
    """

    source: RandomSource
    prefix: str

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    def stream(self, label: str) -> Stream:
        """Return a fresh stream."""
        return self.source.stream(f"{self.prefix}/{label}")


@dataclass(frozen=True)
class Step:
    """One released sum.

    Args:
        name: Which sum of the plan.
        weights: What it was about.
        total: With noise, in units, shape (coordinates,).
        event: What was charged for it; nothing where there is no noise.
    """

    name: str
    weights: Weights
    total: Integers
    event: Event


@dataclass(frozen=True)
class Made:
    """A study from its first sum to its model.

    Args:
        steps: What was released.
        weights: The model.
    """

    steps: tuple[Step, ...]
    weights: Weights


def recommender_plan(
    family: str,
    items: int,
    *,
    epsilon: float,
    declared: int,
    training: Training | None = None,
    recommendation: Recommendation | None = None,
) -> Plan:
    """Return a plan of one partner that makes a recommender of sums of its own.

    Args:
        family: Which.
        items: Items of the catalogue.
        epsilon: What the plan claims, all of it for training customers.
        declared: The partner's declared number of customers.
        training: How it trains; None for one sum over everybody.
        recommendation: How it is made; None for the defaults, with all items kept.
    """
    once = Training(rounds=1, local_steps=1, sample_rate=1.0, learning_rate=1.0, clip=1.0)
    rows = Interactions(item="item", time="day", most=8, least=1, earliest="2000-01-01", latest="2001-01-01")
    return Plan(
        name="audit",
        purpose="audit of this build",
        task="recommendation",
        expires=datetime.date.max,
        contract=Contract(customer="customer", interactions=rows),
        model=Model(family=family),
        training=training or once,
        privacy=Privacy(
            unit="customer of one partner", epsilon=epsilon, delta=DELTA, trust="local", threshold=1, colluders=1
        ),
        metrics=Metrics(rounds=(training.rounds if training else 1,)),
        cohort=Cohort(),
        partners=(Partner(name=PARTNER, customers=declared),),
        catalogue=Catalogued(items=items, digest="sha256:" + "0" * 64),
        recommendation=recommendation or Recommendation(keep=items),
        secure=Secure(momentum=0.0, averaging=0.0),
    )


def histories_of(customers: Sequence[Sequence[int]]) -> Histories:
    """Return the histories of customers with these items, oldest first."""
    starts = np.concatenate([[0], np.cumsum([len(items) for items in customers])]).astype(np.int64)
    items = np.array([item for items in customers for item in items], dtype=np.int64)
    return Histories(starts, items, np.arange(len(items), dtype=np.int64))


def released(
    plan: Plan, name: str, weights: Weights, histories: Histories, *, random: RandomSource, attempt: int = 1
) -> Step:
    """Return one of a plan's sums as the partner releases it, masks apart.

    Args:
        plan: The plan.
        name: Which sum.
        weights: What it is about.
        histories: The partner's training customers.
        random: Where sample and noise come from.
        attempt: Which; each is charged by itself, and has noise of its own.
    """
    work: Any = Desk(plan, histories, random)
    node = Unmasked(work) if plan.privacy.trust == SECURE else OwnSums(work)
    answer: Any = node.add(SumTask(plan.digest(), name, attempt, weights, 1, (PARTNER,), ()))
    return Step(name, weights, answer.arrays[0], answer.event)


def noiseless(plan: Plan, name: str, weights: Weights, histories: Histories, *, stream: Stream) -> Integers:
    """Return one of a plan's sums before its noise, shape (coordinates,).

    Args:
        plan: The plan.
        name: Which sum.
        weights: What it is about.
        histories: The partner's training customers.
        stream: Of the sample.
    """
    work: Any = Desk(plan, histories, None)
    agreed = work.agreed(plan.digest())
    event, _ = agreed.declared(name)
    charge = work.charge(agreed, name, 1, (TRAINING, event))
    task = SumTask(plan.digest(), name, 1, weights, 1, (PARTNER,), ())
    numbers = numbers_of(plan, name)
    return open_part(work, agreed, task, charge, numbers=numbers, rows=lambda _: stream).total(stream)


def made(plan: Plan, histories: Histories, *, random: RandomSource, noise: bool = True) -> Made:
    """Take all of a plan's sums, each with what the coordinator makes of it.

    Args:
        plan: The plan.
        histories: The partner's training customers.
        random: Where samples and noise come from.
        noise: Whether there is any; without, nothing is private.
    """
    state = OptimizerState.start(initial_weights(plan))
    steps: list[Step] = []
    for name in trained(plan):
        if noise:
            step = released(plan, name, state.weights, histories, random=random)
        else:
            total = noiseless(plan, name, state.weights, histories, stream=random.stream(f"noiseless/{name}"))
            step = Step(name, state.weights, total, Nothing())
        steps.append(step)
        state = stepped(plan, state, name, Total(step.total, (PARTNER,)), noise=None if noise else 0.0)
    return Made(tuple(steps), state.weights)
