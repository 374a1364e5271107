"""Studies made of sums over made-up customers, sum by sum, as partners and the coordinator run them.

Everything between a question and its answer is what a partner runs: `OwnSums.add` or `SumNode.add`, the parts that they
open, the plan's calibrated noise. What is missing stands in `desk.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.clients.ownsums import OwnSums
from coterie.clients.parts import open_part
from coterie.clients.task import SumTask, initial_weights
from coterie.models.propensity import Weights
from coterie.privacy.calibration import TRAINING
from coterie.privacy.events import DistributedGaussian, Event, Nothing, PoissonGaussian
from coterie.privacy.plan import SECURE, Plan, Secure
from coterie.privacy.randomness import RandomSource, Stream
from coterie.privacy.schedule import trained
from coterie.privacy.sums import numbers_of
from coterie.server.optimizers import OptimizerState, optimizer_settings, published
from coterie.server.steps import Total, stepped
from coterie.simulations.attacks.canaries import PARTNER
from coterie.simulations.attacks.desk import Desk, People, Unmasked

__all__ = ["Made", "Named", "Step", "made", "noiseless", "opened", "released", "scale_of"]

Integers = NDArray[np.int64]

_NOBODY = np.zeros(0, dtype=np.int64)


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


def released(
    plan: Plan, name: str, weights: Weights, people: People, *, random: RandomSource, attempt: int = 1
) -> Step:
    """Return one of a plan's sums as the partner releases it, masks apart.

    Args:
        plan: The plan.
        name: Which sum.
        weights: What it is about.
        people: The partner's training customers.
        random: Where sample and noise come from.
        attempt: Which; each is charged by itself, and has noise of its own.
    """
    work: Any = Desk(plan, people, random)
    node = Unmasked(work) if plan.privacy.trust == SECURE else OwnSums(work)
    answer: Any = node.add(SumTask(plan.digest(), name, attempt, weights, 1, (PARTNER,), ()))
    return Step(name, weights, answer.arrays[0], answer.event)


def opened(plan: Plan, name: str, weights: Weights, people: People, *, random: RandomSource, attempt: int = 1) -> Step:
    """Return what a coordinator that does its worst sees of a sum: with no more noise than was counted on.

    In a secure sum as many partners as are counted on release theirs, of which all but the first have no customer; the
    colluders' own noise is known to who attacks. A sum of a partner's own is `released`.

    Args:
        plan: The plan.
        name: Which sum.
        weights: What it is about.
        people: The first partner's training customers.
        random: Where samples and noise come from.
        attempt: As in `released`.
    """
    first = released(plan, name, weights, people, random=random, attempt=attempt)
    if not isinstance(first.event, DistributedGaussian):
        return first
    total = first.total.copy()
    for number in range(1, first.event.shares):
        source = Named(random, f"partner/{number}")
        total += released(plan, name, weights, people.of(_NOBODY), random=source, attempt=attempt).total
    return Step(name, weights, total, first.event)


def scale_of(plan: Plan, step: Step) -> float:
    """Return the standard deviation, in units, that a sum's charge claims of its noise."""
    if not isinstance(step.event, PoissonGaussian | DistributedGaussian):
        return 0.0
    return step.event.noise_multiplier * numbers_of(plan, step.name).sensitivity


def noiseless(plan: Plan, name: str, weights: Weights, people: People, *, stream: Stream) -> Integers:
    """Return one of a plan's sums before its noise, shape (coordinates,).

    Args:
        plan: The plan.
        name: Which sum.
        weights: What it is about.
        people: The partner's training customers.
        stream: Of the sample.
    """
    work: Any = Desk(plan, people, None)
    agreed = work.agreed(plan.digest())
    event, _ = agreed.declared(name)
    charge = work.charge(agreed, name, 1, (TRAINING, event))
    task = SumTask(plan.digest(), name, 1, weights, 1, (PARTNER,), ())
    numbers = numbers_of(plan, name)
    return open_part(work, agreed, task, charge, numbers=numbers, rows=lambda _: stream).total(stream)


def made(plan: Plan, people: People, *, random: RandomSource, noise: bool = True) -> Made:
    """Take all of a plan's sums, each with what the coordinator makes of it.

    Args:
        plan: The plan.
        people: The partner's training customers.
        random: Where samples and noise come from.
        noise: Whether there is any; without, nothing is private.
    """
    state = OptimizerState.start(initial_weights(plan))
    steps: list[Step] = []
    for name in trained(plan):
        if noise:
            step = opened(plan, name, state.weights, people, random=random)
        else:
            total = noiseless(plan, name, state.weights, people, stream=random.stream(f"noiseless/{name}"))
            step = Step(name, state.weights, total, Nothing())
        steps.append(step)
        state = stepped(plan, state, name, Total(step.total, (PARTNER,)), noise=None if noise else 0.0)
    # What iterates show of words that hardly anybody has is not in the published weights; partners see the iterates.
    averaged = published(optimizer_settings(plan, plan.secure or Secure()), state)
    return Made(tuple(steps), averaged if plan.bins is None else (state.weights[0], *averaged[1:]))
