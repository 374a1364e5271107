"""Canaries among the customers of a model on private bins, and guesses at who was in, from sums and from the model.

Every canary has a word of its own in each of eight columns, so that what it adds stands by itself: eight cells of the
count, eight slots of every sum of gradients; only the intercept is everybody's. It has two rows, alike, so that a
build that does not share a customer's bound among its rows doubles its pull. Whoever attacks knows its words, the plan
and all that is released, and sees how far the sums point along what the canary would add: the count and every step,
each weighed by its noise. The final model is looked at by how far it moved along the canary's gradients; and, after
gross faults alone, by the counts that it carries, which in the score of all sums hardly weigh.

In secure sums the attacker subtracts the colluders' noise, and sees the sum with as much noise as was counted on.
Rows here are made up; nothing of a partner is opened.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.clients.predicting import inputs_of, logits_of
from coterie.clients.task import binning_of, initial_weights
from coterie.models.propensity import Weights
from coterie.privacy.auditing.bounds import Guesses, attack, fdp_bound, guess, most_true_positives, snj_bound
from coterie.privacy.calibration import calibrate
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.plan import Bins, Model, Plan, Training
from coterie.privacy.randomness import RandomSource, Stream
from coterie.privacy.sums import numbers_of
from coterie.simulations.attacks.binned import binned_plan, numeric, rows_of, secured, worded
from coterie.simulations.attacks.binnedparts import heading
from coterie.simulations.attacks.canaries import CONFIDENCE, DELTA, Audited, Rows
from coterie.simulations.attacks.membership import FALSE_POSITIVES, Membership
from coterie.simulations.attacks.studies import Made, Named, made

__all__ = ["AUDITED_BINS", "audit_bins", "infer_rows"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


_KINDS = {
    "additive": (Model(family="additive"), False),
    "additive, secure sums": (Model(family="additive"), True),
    "logistic on bins": (Model(family="logistic"), False),
    "mlp on bins": (Model(family="mlp", hidden=4), False),
}
"""What is attacked: a model, and whether by secure sums."""

AUDITED_BINS = tuple(_KINDS)

_BLOCK, _STEPS = 600, 8  # canaries, and sums of gradients, of one study
_COLUMNS = 8
_BASE = 50  # ordinary customers, without a word
_COUNTS = 0.1  # share of the budget that the count has
_CLIP = 0.3  # far below a canary's gradient, which a build that does not clip adds whole

# As in `canaries.py`, both are shared out beforehand; most goes to the score that sees most.
_ITERATES_FDP, _FINAL_FDP, _FINAL_SNJ = 0.8, 0.1, 0.1
_GUESSED, _GUESSED_SNJ = 0.10, 0.05

_MEMBERS, _NUMBERS = 300, 100


@dataclass(frozen=True)
class _Scores:
    """How much each canary seems to be in, by the model, by its counts, and by all sums; shape (canaries,) each."""

    final: Floats
    counted: Floats
    iterates: Floats


def audit_bins(name: str, claim: float, *, canaries: int, random: RandomSource) -> Audited:
    """Train on private bins with canaries, and bound epsilon from below.

    Args:
        name: One of `AUDITED_BINS`.
        claim: Epsilon to be refuted.
        canaries: How many, at least 100. Blocks of them are studies apart, which is one run of the product of their
            mechanisms, in which each canary still meets one mechanism under one claim.
        random: Where noise and coins come from.

    Guarantees:
        If the build keeps the claim, all three bounds lie below it with probability 95 %.
    """
    coins = random.stream(f"audit/coins/{name}/{claim}").uniforms(canaries) < 0.5
    found, plan = [], _plan(name, claim)
    for start in range(0, canaries, _BLOCK):
        source = Named(random, f"canaries/{name}/{claim}/{start}")
        inside = coins[start : start + _BLOCK]
        study = made(plan, _rows(inside, source.stream("base")), random=source)
        found.append(_scores(plan, study, len(inside)))
    event, alarm = _attacked(plan), 1 - CONFIDENCE

    def guessed(which: str, share: float) -> Guesses:
        scores = np.concatenate([getattr(one, which) for one in found])
        return guess(scores, coins, made=2 * max(1, round(share * canaries / 2)))

    by_counts = guessed("counted", _GUESSED_SNJ)
    by_model, by_sums = guessed("final", _GUESSED), guessed("iterates", _GUESSED)
    return Audited(
        claim=claim,
        event=event,
        snj_final=snj_bound(by_counts, DELTA, significance=alarm * _FINAL_SNJ),
        fdp_final=fdp_bound(by_model, event, delta=DELTA, significance=alarm * _FINAL_FDP),
        fdp_iterates=fdp_bound(by_sums, event, delta=DELTA, significance=alarm * _ITERATES_FDP),
        model=name,
    )


def infer_rows(claim: float, *, random: RandomSource) -> Membership:
    """Train the additive family with and without noise, and tell its customers from strangers by their loss.

    Labels are coins, and there are more slots than customers, so that a model can only know them by heart.

    Args:
        claim: Epsilon of the private model.
        random: Where noise and rows come from.
    """
    steps = Training(rounds=1, local_steps=_STEPS, sample_rate=1.0, learning_rate=0.04, clip=3.0)
    columns = [numeric(f"c{index}") for index in range(_NUMBERS)]
    how = {"epsilon": claim, "training": steps, "declared": _MEMBERS}
    plan = binned_plan(Model(family="additive"), columns, **how, bins=Bins(most=8, cells=16, counts=_COUNTS))  # type: ignore[arg-type]
    stream, count = random.stream("membership/rows"), 2 * _MEMBERS
    values = {column.name: 2 * stream.uniforms(count) - 1 for column in columns}
    labels = (stream.uniforms(count) < 0.5).astype(np.float32)
    rows, member = rows_of(values, labels, np.arange(count)), np.arange(count) < _MEMBERS
    found = []
    for noise in (True, False):
        study = made(plan, rows.of(np.flatnonzero(member)), random=Named(random, f"membership/{claim}"), noise=noise)
        margins = logits_of(plan, study.weights, inputs_of(plan, values))
        scores = -np.logaddexp(0.0, np.where(labels > 0, -margins, margins))
        found.append(attack(scores[member], scores[~member], false_positives=FALSE_POSITIVES))
    return Membership(
        claim=claim,
        private=found[0],
        without_noise=found[1],
        allowed=most_true_positives(FALSE_POSITIVES, claim=claim, delta=DELTA),
        model="additive",
    )


def _plan(name: str, claim: float) -> Plan:
    model, secure = _KINDS[name]
    steps = Training(rounds=1, local_steps=_STEPS, sample_rate=1.0, learning_rate=0.05, clip=_CLIP)
    columns = [worded(f"c{index}", _BLOCK) for index in range(_COLUMNS)]
    bins, declared = Bins(counts=_COUNTS), _BASE + _BLOCK // 2
    plan = binned_plan(model, columns, epsilon=claim, training=steps, declared=declared, bins=bins)
    return secured(plan) if secure else plan


def _attacked(plan: Plan) -> PoissonGaussian:
    """Return what the scores are made of, as one event: Gaussians over everybody add up."""
    mechanisms = calibrate(plan)
    precision = mechanisms.updates * mechanisms.update.noise_multiplier**-2
    if mechanisms.counting is not None:
        precision += mechanisms.counting.noise_multiplier**-2
    return PoissonGaussian(precision**-0.5, 1.0, 1)


def _rows(inside: NDArray[np.bool_], stream: Stream) -> Rows:
    """Make two rows for each canary that is in, and one for each ordinary customer."""
    words = np.repeat(np.flatnonzero(inside), 2)
    values = np.concatenate([words, np.full(_BASE, -1)]).astype(np.float64)
    labels = np.concatenate([np.ones(len(words)), stream.uniforms(_BASE) < 0.5]).astype(np.float32)
    customer = np.concatenate([np.repeat(np.arange(len(words) // 2), 2), len(words) // 2 + np.arange(_BASE)])
    return rows_of({f"c{index}": values for index in range(_COLUMNS)}, labels, customer)


def _scores(plan: Plan, study: Made, canaries: int) -> _Scores:
    """Score by how far sums, and the model, point along what a canary adds to its own cells and slots."""
    mechanisms, binning = calibrate(plan), binning_of(plan)
    mine = np.arange(canaries)[:, None]
    cells = np.array([span.start for span in binning.cell_spans()]) + mine
    slots = np.array([span.start for span in binning.slot_spans()]) + mine
    counts, *steps = study.steps
    iterates = np.zeros(canaries)
    if mechanisms.counting is not None:
        along = counts.total[cells].sum(axis=1) / _COLUMNS**0.5 / numbers_of(plan, counts.name).sensitivity
        iterates += along * mechanisms.counting.noise_multiplier**-2
    units = numbers_of(plan, "train/1").sensitivity * mechanisms.update.noise_multiplier**2 * _CLIP
    heads = np.zeros((canaries, study.weights[1].shape[0]))
    for step in steps:
        towards = heading(plan, step.weights, slots)
        layer = step.total[: heads.shape[1] * binning.slots].reshape(-1, binning.slots)
        iterates += _along(layer.astype(np.float64), slots, towards) / units
        heads += towards
    counted = study.weights[0][cells].sum(axis=1).astype(np.float64)
    return _Scores(_along(_moved(initial_weights(plan), study.weights), slots, heads), counted, iterates)


def _moved(start: Weights, end: Weights) -> Floats:
    """Return how far the first layer moved against its gradient, shape (hidden or 1, slots)."""
    return start[1].astype(np.float64) - end[1]


def _along(layer: Floats, slots: Integers, towards: Floats) -> Floats:
    """Return how far a layer points along each canary's direction in its slots, shape (canaries,)."""
    return np.asarray((layer[:, slots].sum(axis=2).T * towards).sum(axis=1))
