"""Canaries among a recommender's customers, and guesses at who was in, from what is released and from the model.

A canary owns six items that nobody else has, so that what it adds stands by itself: in item-Gram's sums in 21 cells of
the matrix and in six counts, in sums of gradients in six rows of the item table. Whoever attacks knows its items, the
plan and all that is released, computes what the canary would add, and sees how far the sums point that way.

    item-gram     the sum of popularity and the Gram, each weighed by its noise; final: the model's popularity
    mf-softmax    the gradient sums of all steps; final: how far the model moved along the canary's gradients

Rows here are made up; nothing of a partner is opened.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import recommender_of
from coterie.models.histories import Histories
from coterie.models.recommenders import family, gram
from coterie.models.recommenders.draws import halves, negatives
from coterie.models.recommenders.popularity import kept_items, places
from coterie.models.recommenders.towerscores import log_popularity
from coterie.privacy.auditing.bounds import attack, fdp_bound, guess, most_true_positives, snj_bound
from coterie.privacy.calibration import calibrate
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.plan import Plan, Recommendation, Training
from coterie.privacy.randomness import RandomSource, Stream
from coterie.privacy.sums import numbers_of
from coterie.simulations.attacks.canaries import CONFIDENCE, DELTA, Audited
from coterie.simulations.attacks.membership import FALSE_POSITIVES, Membership
from coterie.simulations.attacks.ownparts import Shown, gradient_rows
from coterie.simulations.attacks.recommenders import histories_of, recommender_plan
from coterie.simulations.attacks.studies import Made, Named, made

__all__ = ["AUDITED", "audit_recommender", "infer_history"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

AUDITED = ("item-gram", "mf-softmax")
"""One family of sums made once, and one that is trained by gradients."""

_OWN = 6  # items of a canary, so that a build that does not bring it to unit length shows
_BASE, _BASE_ITEMS = 50, 40  # ordinary customers, and items that they alone have
_BLOCKS = {"item-gram": 40, "mf-softmax": 1000}  # canaries of one study
_STEPS, _RATE, _CLIP = 8, 0.5, 0.05
_COUNTS = 0.01  # share of the budget that popularity gets beside gradients, which are what is attacked

# As in `canaries.py`, both are shared out beforehand; most goes to the score that sees most.
_ITERATES_FDP, _FINAL_FDP, _FINAL_SNJ = 0.8, 0.1, 0.1
_GUESSED, _GUESSED_SNJ = 0.10, 0.05

_MEMBERS, _CATALOGUE, _HISTORY = 300, 150, 5


@dataclass(frozen=True)
class _Scores:
    """How much each canary seems to be in, by the model and by all sums; shape (canaries,) each."""

    final: Floats
    iterates: Floats


def audit_recommender(kind: str, claim: float, *, canaries: int, random: RandomSource) -> Audited:
    """Make recommenders with canaries, and bound epsilon from below.

    Args:
        kind: One of `AUDITED`.
        claim: Epsilon to be refuted.
        canaries: How many, at least 100. Blocks of them are studies apart, which is one run of the product of their
            mechanisms, in which each canary still meets one mechanism under one claim.
        random: Where noise, samples and coins come from.

    Guarantees:
        If the build keeps the claim, all three bounds lie below it with probability 95 %.
    """
    coins = random.stream(f"audit/coins/{kind}/{claim}").uniforms(canaries) < 0.5
    block, found = _BLOCKS[kind], []
    plan = _plan(kind, claim, min(block, canaries))
    for start in range(0, canaries, block):
        source = Named(random, f"canaries/{kind}/{claim}/{start}")
        inside = coins[start : start + block]
        study = made(plan, _customers(inside, source.stream("base")), random=source)
        own = np.arange(_OWN * len(inside)).reshape(len(inside), _OWN)
        found.append((_gram_scores if kind == "item-gram" else _gradient_scores)(plan, study, own))
    final, iterates = (np.concatenate([getattr(one, name) for one in found]) for name in ("final", "iterates"))
    event, alarm = _attacked(plan), 1 - CONFIDENCE

    def made_of(share: float) -> int:
        return 2 * max(1, round(share * canaries / 2))

    most, few = made_of(_GUESSED), made_of(_GUESSED_SNJ)
    by_model, by_sums = guess(final, coins, made=most), guess(iterates, coins, made=most)
    return Audited(
        claim=claim,
        event=event,
        snj_final=snj_bound(guess(final, coins, made=few), DELTA, significance=alarm * _FINAL_SNJ),
        fdp_final=fdp_bound(by_model, event, delta=DELTA, significance=alarm * _FINAL_FDP),
        fdp_iterates=fdp_bound(by_sums, event, delta=DELTA, significance=alarm * _ITERATES_FDP),
        model=kind,
    )


def infer_history(claim: float, *, random: RandomSource) -> Membership:
    """Make item-Gram recommenders with and without noise, and tell their customers from strangers by their lists.

    Histories are drawn blindly, so that a model can only know them by heart: each customer is scored by how high
    the model scores its last item for the rest of its history.

    Args:
        claim: Epsilon of the private model.
        random: Where noise and histories come from.
    """
    plan = recommender_plan("item-gram", _CATALOGUE, epsilon=claim, declared=_MEMBERS)
    draws = random.stream("membership/histories").uniforms(2 * _MEMBERS * _CATALOGUE).reshape(-1, _CATALOGUE)
    owned = np.argsort(draws, axis=1)[:, :_HISTORY]
    members, strangers = histories_of(owned[:_MEMBERS].tolist()), histories_of(owned[_MEMBERS:].tolist())
    found = []
    for noise in (True, False):
        study = made(plan, members, random=Named(random, f"membership/{claim}"), noise=noise)
        scored = [_known(plan, study, people) for people in (members, strangers)]
        found.append(attack(*scored, false_positives=FALSE_POSITIVES))
    return Membership(
        claim=claim,
        private=found[0],
        without_noise=found[1],
        allowed=most_true_positives(FALSE_POSITIVES, claim=claim, delta=DELTA),
        model="item-gram",
    )


def _known(plan: Plan, study: Made, people: Histories) -> Floats:
    """Return how high the model scores each customer's last item for it."""
    seen, held = people.without_last()
    scores = family.scorer(recommender_of(plan), study.weights)(seen).astype(np.float64)
    return np.asarray(scores[np.arange(len(held)), held])


def _plan(kind: str, claim: float, block: int) -> Plan:
    items, declared = _OWN * block + _BASE_ITEMS, _BASE + block // 2
    if kind == "item-gram":
        how = Recommendation(keep=items, exponent=0.0, rank=16)
        return recommender_plan(kind, items, epsilon=claim, declared=declared, recommendation=how)
    steps = Training(rounds=1, local_steps=_STEPS, sample_rate=_RATE, learning_rate=1.0, clip=_CLIP)
    how = Recommendation(dimension=4, negatives=16, counts=_COUNTS)
    return recommender_plan(kind, items, epsilon=claim, declared=declared, training=steps, recommendation=how)


def _attacked(plan: Plan) -> PoissonGaussian:
    """Return what the scores are made of, as one event: Gaussians over everybody add up, steps of samples are one."""
    mechanisms = calibrate(plan)
    update, counting = mechanisms.update, mechanisms.counting
    if plan.model.family != "item-gram" or counting is None:
        return PoissonGaussian(update.noise_multiplier, update.sample_rate, _STEPS)
    precision = update.noise_multiplier**-2 + counting.noise_multiplier**-2
    return PoissonGaussian(precision**-0.5, 1.0, 1)


def _customers(inside: NDArray[np.bool_], stream: Stream) -> Histories:
    """Make the canaries that are in, with six items each, and ordinary customers with some of their own items."""
    own = np.arange(_OWN * len(inside)).reshape(len(inside), _OWN)[inside]
    liked = stream.uniforms(_BASE * _BASE_ITEMS).reshape(_BASE, _BASE_ITEMS) < 0.1
    others = [_OWN * len(inside) + np.flatnonzero(row) for row in liked]
    return histories_of([*own.tolist(), *(items.tolist() for items in others)])


def _gram_scores(plan: Plan, study: Made, own: Integers) -> _Scores:
    """Score by the counts of a canary's items, and by z' S z of the noisy matrix S and its row z."""
    mechanisms, scores = calibrate(plan), np.zeros(len(own))
    counts, products = study.steps
    if mechanisms.counting is not None:
        along = counts.total[own].sum(axis=1) / _OWN**0.5 / numbers_of(plan, counts.name).sensitivity
        scores += along * mechanisms.counting.noise_multiplier**-2
    index, _ = kept_items(products.weights[0], recommender_of(plan))
    where = places(index, len(products.weights[0]))[own]
    matrix = gram.symmetric(products.total / numbers_of(plan, products.name).sensitivity)
    along = matrix[where[:, :, None], where[:, None, :]].sum(axis=(1, 2)) / _OWN
    scores += along * mechanisms.update.noise_multiplier**-2
    return _Scores(study.weights[0][own].sum(axis=1).astype(np.float64), scores)


def _gradient_scores(plan: Plan, study: Made, own: Integers) -> _Scores:
    """Score by how far sums, and the model, point along a canary's own clipped gradient, in its own rows."""
    settings, clip = recommender_of(plan), plan.training.clip
    units = numbers_of(plan, "train/1").sensitivity / clip
    iterates, heading = np.zeros(len(own)), np.zeros((*own.shape, settings.dimension))
    for number, step in enumerate(study.steps[1:], start=1):
        popularity, table = step.weights
        shown = Shown(table, log_popularity(popularity), negatives(settings, number), halves(settings, number))
        _, rows = gradient_rows(own, shown)
        norms = np.sqrt(np.square(rows).sum(axis=(1, 2)))
        clipped = (rows * np.minimum(1.0, clip / np.maximum(norms, 1e-300))[:, None, None])[:, :_OWN]
        total = step.total.reshape(table.shape)[own] / units
        iterates += (total * clipped).sum(axis=(1, 2))
        heading += clipped
    moved = (study.steps[1].weights[1] - study.weights[1])[own]
    return _Scores((moved * heading).sum(axis=(1, 2)), iterates)
