"""The canary audit: customers made to be seen, put in or out by coins, and guessed at from what training releases.

Every canary has a column of its own and a value in it far beyond the contract's bounds, so that its clipped
gradient is almost C along one coordinate of the model, at every step (a Dirac canary: Nasr et al. 2023, arXiv
2302.07956). The guarantee does not rest on bounds; the vault's check of them is passed by. Each canary has two
rows, so that a build that takes rows for customers doubles its pull. From there on everything is what a partner
runs: `training_customers`, `train` and the plan's calibrated noise, round by round.

Rows here are made up; nothing of a partner is opened.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.clients import training
from coterie.clients.task import weight_shapes
from coterie.privacy.auditing.bounds import Guesses, fdp_bound, guess, snj_bound
from coterie.privacy.calibration import calibrate
from coterie.privacy.contract import Column, Contract
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.plan import Cohort, Metrics, Model, Partner, Plan, Privacy, Training
from coterie.privacy.randomness import RandomSource, Stream
from coterie.privacy.training import Customers

__all__ = [
    "CONFIDENCE",
    "DELTA",
    "LARGE",
    "PARTNER",
    "Audited",
    "Rows",
    "audit_canaries",
    "audit_plan",
    "bounds_of",
    "customers_of",
    "play",
]

Floats = NDArray[np.float64]
Weights = tuple[NDArray[np.float32], ...]

PARTNER = "audited"
DELTA = 1e-5
CONFIDENCE = 0.95
ROUNDS = 40  # of one step each, so that every step's model is seen
RATE = 0.25
LARGE = 100.0  # a canary's value where the contract's bounds are -1 and 1
BASE = 200  # ordinary customers beside the canaries
BLOCK = 2000  # canaries of one training; more are spread over several partners, who have no customer in common
BASE_COLUMNS = 5

# The chance of a false alarm, 5 %, is shared out among the scores beforehand (Bonferroni); so are the shares of
# canaries that are guessed. The last score is after gross faults alone and needs little.
_FINAL_FDP, _FINAL_SNJ, _ITERATES_FDP = 0.6, 0.2, 0.2
_GUESSED, _GUESSED_SNJ = 0.10, 0.05


@dataclass(frozen=True)
class Rows:
    """Made-up rows with the fields of the vault's own.

    Args:
        columns: Shape (rows,) each; NaN where a row has nothing.
        labels: 0 or 1, shape (rows,).
        customer: Equal for rows of one customer, shape (rows,).
        held_out: Whether the row's customer is held out, shape (rows,).
    """

    columns: Mapping[str, Floats]
    labels: NDArray[np.float32]
    customer: NDArray[np.int64]
    held_out: NDArray[np.bool_]

    @property
    def counts(self) -> Mapping[str, int]:
        """Nothing: no ledger commits to how many there are of them."""
        return {}

    def of(self, customers: NDArray[np.int64]) -> "Rows":
        """Return the rows of these customers."""
        keep = np.isin(self.customer, customers)
        columns = {name: values[keep] for name, values in self.columns.items()}
        return Rows(columns, self.labels[keep], self.customer[keep], self.held_out[keep])


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What the canaries say about one claim.

    Args:
        claim: Epsilon that the plan asks for.
        event: The whole training, as charged; for recommenders, what the attack looks at of it.
        snj_final: Greatest epsilon refuted by the final model (Steinke et al. 2023).
        fdp_final: Greatest epsilon refuted by the final model (Mahloujifar et al. 2024).
        fdp_iterates: The same from all published models, or from all released sums.
        model: What was trained.
    """

    claim: float
    event: PoissonGaussian
    snj_final: float
    fdp_final: float
    fdp_iterates: float
    model: str = "logistic"

    @property
    def most(self) -> float:
        """The greatest lower bound; all three hold together at 95 % confidence."""
        return max(self.snj_final, self.fdp_final, self.fdp_iterates)


def audit_plan(columns: int, *, epsilon: float, training: Training, declared: int, model: Model | None = None) -> Plan:
    """Return a plan over numeric columns `c0`, `c1`, ... within -1 and 1, for one partner.

    Args:
        columns: How many.
        epsilon: What the plan claims.
        training: How it trains.
        declared: The partner's declared number of customers.
        model: Logistic when None.
    """
    names = (f"c{index}" for index in range(columns))
    bounded = tuple(Column(name=name, kind="numeric", low=-1.0, high=1.0, missing="centre") for name in names)
    return Plan(
        name="audit",
        purpose="audit of this build",
        task="propensity",
        expires=datetime.date.max,
        contract=Contract(customer="customer", label="label", columns=bounded, rows_per_customer=2),
        model=model or Model(family="logistic"),
        training=training,
        privacy=Privacy(
            unit="customer of one partner", epsilon=epsilon, delta=DELTA, trust="local", threshold=1, colluders=1
        ),
        metrics=Metrics(rounds=(training.rounds,)),
        cohort=Cohort(),
        partners=(Partner(name=PARTNER, customers=declared),),
    )


def customers_of(rows: Rows, plan: Plan) -> Customers:
    """Make customers of rows, through the partner's own code."""
    # The vault alone makes what this asks for; made-up rows have the same fields and no vault.
    opened: Any = rows
    return training.training_customers(opened, plan)


def audit_canaries(claim: float, *, canaries: int, random: RandomSource) -> Audited:
    """Train with canaries, each of them once, and bound epsilon from below.

    Args:
        claim: Epsilon to be refuted.
        canaries: How many, at least 100; more see more. Blocks of them are trained apart, which is one run of the
            product of their trainings, in which each canary still meets one mechanism under one claim.
        random: Where noise, samples and coins come from.

    Guarantees:
        If the build keeps the claim, all three bounds lie below it with probability 95 %.
    """
    steps = Training(rounds=ROUNDS, local_steps=1, sample_rate=RATE, learning_rate=1e-3, clip=1.0)
    coins = random.stream(f"audit/coins/{claim}").uniforms(canaries) < 0.5
    released = []
    for start in range(0, canaries, BLOCK):
        block, label = coins[start : start + BLOCK], f"canaries/{claim}/{start}"
        width = len(block) + BASE_COLUMNS
        plan = audit_plan(width, epsilon=claim, training=steps, declared=BASE + BLOCK // 2)
        changes, event = play(plan, _rows(block, random.stream(f"{label}/base")), random=random, label=label)
        released.append(changes[:, : len(block)])
    return bounds_of(np.hstack(released), coins, claim=claim, event=event)


def bounds_of(released: Floats, coins: NDArray[np.bool_], *, claim: float, event: PoissonGaussian) -> Audited:
    """Score canaries on the final model and on all of them, and bound epsilon.

    Args:
        released: What each round added to each canary's coordinate, shape (rounds, canaries).
        coins: Who was in, shape (canaries,).
        claim: Epsilon.
        event: The whole training.
    """
    alarm = 1 - CONFIDENCE
    final = released.sum(axis=0)
    # A coordinate that holds a customer moves when it is sampled; where noise repeats, the others stand still.
    iterates = released.var(axis=0)

    def guessed(scores: Floats, share: float) -> Guesses:
        return guess(scores, coins, made=2 * max(1, round(share * len(coins) / 2)))

    return Audited(
        claim=claim,
        event=event,
        snj_final=snj_bound(guessed(final, _GUESSED_SNJ), DELTA, significance=alarm * _FINAL_SNJ),
        fdp_final=fdp_bound(guessed(final, _GUESSED), event, delta=DELTA, significance=alarm * _FINAL_FDP),
        fdp_iterates=fdp_bound(guessed(iterates, _GUESSED), event, delta=DELTA, significance=alarm * _ITERATES_FDP),
    )


def play(
    plan: Plan, rows: Rows, *, random: RandomSource, label: str, noise: float | None = None
) -> tuple[Floats, PoissonGaussian]:
    """Train all rounds, as a partner and a coordinator of one would.

    Args:
        plan: The plan.
        rows: Its rows.
        random: Where each round's stream comes from.
        label: Names the streams.
        noise: Noise multiplier; the plan's own when None.

    Returns:
        What each round released, first weights first, shape (rounds, parameters); and the event of all rounds.
    """
    multiplier = calibrate(plan).update.noise_multiplier if noise is None else noise
    customers = customers_of(rows, plan)
    weights: Weights = tuple(np.zeros(shape, dtype=np.float32) for shape in weight_shapes(plan))
    released, steps = [], 0
    for number in range(plan.training.rounds):
        stream = random.stream(f"{label}/{number}")
        change, event = training.train(plan, PARTNER, weights, customers, noise=multiplier, stream=stream)
        weights = tuple(old + new for old, new in zip(weights, change, strict=True))
        released.append(np.concatenate([part.ravel() for part in change]).astype(np.float64))
        steps += event.steps
    return np.stack(released), PoissonGaussian(event.noise_multiplier, event.sample_rate, steps)


def _rows(coins: NDArray[np.bool_], stream: Stream) -> Rows:
    """Make two rows for each canary that is in, and one for each ordinary customer."""
    inside = np.flatnonzero(coins)
    mine = np.repeat(np.arange(len(inside)), 2)
    count = len(mine) + BASE
    columns = {}
    for index in range(len(coins)):
        columns[f"c{index}"] = np.full(count, np.nan)
    for row, canary in enumerate(np.repeat(inside, 2)):
        columns[f"c{canary}"][row] = LARGE
    for index in range(len(coins), len(coins) + BASE_COLUMNS):
        values = np.full(count, np.nan)
        values[len(mine) :] = 2 * stream.uniforms(BASE) - 1
        columns[f"c{index}"] = values
    labels = np.ones(count, dtype=np.float32)
    labels[len(mine) :] = stream.uniforms(BASE) < 0.5
    customer = np.concatenate((mine, len(inside) + np.arange(BASE)))
    return Rows(columns, labels, customer, np.zeros(count, dtype=np.bool_))
