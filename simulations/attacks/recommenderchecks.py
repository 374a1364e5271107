"""White-box conformance of recommenders' sums: their noise, their sample, and what one customer moves.

Noise is measured on what is released over customers without an item, who add nothing. What customers add is measured
before the noise, in whole numbers, by taking each out in turn, and held against dense arithmetic (`ownparts.py`).
"""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import initial_weights, recommender_of
from coterie.models.histories import Histories
from coterie.models.propensity import Weights
from coterie.models.recommenders import gram
from coterie.models.recommenders.draws import halves, negatives
from coterie.models.recommenders.popularity import kept_items, places
from coterie.models.recommenders.towerscores import log_popularity
from coterie.privacy.auditing import conformance
from coterie.privacy.auditing.conformance import Check
from coterie.privacy.plan import SECURE, TRAINED, Partner, Plan, Recommendation, Training
from coterie.privacy.randomness import RandomSource
from coterie.privacy.sums import numbers_of
from coterie.simulations.attacks.ownparts import Shown, count_vector, gradient_rows, gram_vector, sweep_vector
from coterie.simulations.attacks.recommenders import histories_of, recommender_plan
from coterie.simulations.attacks.studies import Named, Step, noiseless, released, scale_of

__all__ = ["run_recommender_checks"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_ITEMS, _KEEP = 60_000, 450  # coordinates enough to see noise that is 2 % too small
_WIDTH = 2
_BLANK = 30
_SUMS = (
    ("popularity", "train/1"),
    ("item-gram", "count/1"),
    ("item-gram", "train/1"),
    ("ials", "train/1"),
    *((family, "train/1") for family in TRAINED),
)
_LENGTHS = (1, 2, 5, 8, 12, 36)  # up to more than the eight that some sums look at, and nearly all that there are
_PEOPLE_ITEMS, _PEOPLE_KEEP = 40, 30
_CLIP = 0.37  # below the greatest gradient of every family, and above some customer's
_SAMPLED, _STEPS = 300, 25


def run_recommender_checks(random: RandomSource) -> tuple[Check, ...]:
    """Run every check on the sums of recommenders.

    Args:
        random: Where noise and samples come from.
    """
    found = [*_statistics_noise(random), *_gradient_noise(random), _partners_noise(random), _sampling(random)]
    for family, name in _SUMS:
        found += _one_customer(family, name, random)
    return (*found, _reconstruction(random))


def _statistics_noise(random: RandomSource) -> tuple[Check, ...]:
    """Check the noise of popularity and of two attempts at item-Gram's sum."""
    plan = recommender_plan(
        "item-gram",
        _ITEMS,
        epsilon=1.0,
        declared=100,
        training=_training(rate=1.0, spare=1),
        recommendation=Recommendation(keep=_KEEP),
    )
    counts = _blank(plan, "count/1", random)
    tries = [_blank(plan, "train/1", random, attempt=attempt) for attempt in (1, 2)]
    scale = scale_of(plan, tries[0])
    noise = np.stack([attempt.total.astype(np.float64) for attempt in tries])
    matrix = gram.symmetric(noise[0])
    beside = matrix[np.triu_indices(_KEEP, 1)]
    return (
        conformance.noise_scale(counts.total.astype(np.float64), scale_of(plan, counts), name="noise of counts"),
        conformance.noise_scale(np.diag(matrix), scale, name="noise on the Gram's diagonal"),
        conformance.noise_scale(beside, scale / np.sqrt(2.0), name="noise beside the Gram's diagonal"),
        conformance.noise_shape(noise[0], scale, name="shape of the Gram's noise"),
        conformance.independence(noise, name="Gram's noise of one attempt beside another's"),
        conformance.independence(_folded(noise[0]), name="Gram's noise of one cell beside another's"),
    )


def _gradient_noise(random: RandomSource) -> tuple[Check, ...]:
    """Check the noise of four steps' sums of gradients."""
    plan = recommender_plan(
        "mf-softmax",
        _ITEMS,
        epsilon=1.0,
        declared=100,
        training=_training(rate=0.25, steps=4),
        recommendation=Recommendation(dimension=_WIDTH, negatives=16),
    )
    steps = [_blank(plan, f"train/{number}", random) for number in range(1, 5)]
    scale = scale_of(plan, steps[0])
    noise = np.stack([step.total.astype(np.float64) for step in steps])
    return (
        conformance.noise_scale(noise[0], scale, name="noise of gradient sums"),
        conformance.noise_shape(noise[0], scale, name="shape of gradient sums' noise"),
        conformance.independence(noise, name="gradient sums' noise of one step beside another's"),
        conformance.independence(_folded(noise[0]), name="gradient sums' noise of one coordinate beside another's"),
    )


def _partners_noise(random: RandomSource) -> Check:
    """Check that the shares of as many partners as are counted on add up to the noise of a secure sum."""
    plan = recommender_plan("item-gram", _ITEMS, epsilon=1.0, declared=100, recommendation=Recommendation(keep=_KEEP))
    others = (Partner(name="second", customers=100), Partner(name="third", customers=100))
    privacy = dataclasses.replace(plan.privacy, trust=SECURE, threshold=3, colluders=1)
    plan = dataclasses.replace(plan, privacy=privacy, partners=(*plan.partners, *others))
    steps = [_blank(plan, "train/1", Named(random, f"partner/{number}")) for number in range(2)]
    noise = np.sum([step.total for step in steps], axis=0).astype(np.float64)
    return conformance.noise_scale(noise, scale_of(plan, steps[0]), name="noise of a secure sum's honest partners")


def _sampling(random: RandomSource) -> Check:
    """Check who is sampled: each customer has two rows to itself, which have a gradient when it is."""
    plan = recommender_plan(
        "mf-softmax",
        4 * _SAMPLED,
        epsilon=1.0,
        declared=_SAMPLED,
        training=_training(rate=0.25, steps=4),
        recommendation=Recommendation(dimension=16, negatives=16),
    )
    settings, weights = recommender_of(plan), initial_weights(plan)
    apart = halves(settings, 1)
    free = np.setdiff1d(np.arange(settings.items), negatives(settings, 1))
    # A customer's two items are in different halves, so that each is to be found from the other.
    pairs = [np.flatnonzero(apart[free] == half) for half in (0, 1)]
    count = min(_SAMPLED, *(len(places) for places in pairs))
    own = np.stack([free[places[:count]] for places in pairs], axis=1)
    histories, included = histories_of(own.tolist()), []
    for number in range(_STEPS):
        total = noiseless(plan, "train/1", weights, histories, stream=random.stream(f"sampling/{number}"))
        included.append(total.reshape(settings.items, -1)[own[:, 0]].any(axis=1))
    name = "share of customers that a sum of gradients samples"
    return conformance.inclusion(np.stack(included), plan.training.sample_rate, name=name)


def _one_customer(family: str, name: str, random: RandomSource) -> tuple[Check, ...]:
    """Check what one customer adds to a sum."""
    plan, weights, people = _people(family)
    moves, parts = _moves(plan, name, weights, people, random)
    units, of = numbers_of(plan, name).sensitivity, f"{family}, {name}"
    checks = (
        conformance.whole_sensitivity(moves, units, name=f"most that one customer moves: {of}"),
        conformance.alone(moves, parts, name=f"a customer's part alone and among others: {of}"),
    )
    vectors = _vectors(plan, name, weights, people)
    if vectors is None:
        return checks
    clip = plan.training.clip if family in TRAINED else 1.0
    said = f"distance from a customer's own vector: {of}"
    return *checks, conformance.gradients_match(
        moves.astype(np.float64) * (clip / units), vectors, clip=clip, name=said
    )


def _reconstruction(random: RandomSource) -> Check:
    """Check that the server reads from a sum without noise the matrix that customers' rows make."""
    plan, weights, people = _people("item-gram")
    total = noiseless(plan, "train/1", weights, people, stream=random.stream("reconstruction"))
    _, scale = kept_items(weights[0], recommender_of(plan))
    expected = np.zeros((len(scale), len(scale)))
    for own in _kept(plan, weights, people):
        row = np.zeros(len(scale))
        row[own] = scale[own]
        row /= np.linalg.norm(row) or 1.0
        expected += np.outer(row, row)
    found = gram.symmetric(total / numbers_of(plan, "train/1").sensitivity)
    name = "the Gram's symmetric matrix as the server reads it"
    return conformance.reconstructed(found, expected, name=name, room=1e-4 * len(people))


def _training(*, rate: float, steps: int = 1, spare: int = 0, clip: float = 0.05) -> Training:
    return Training(rounds=1, local_steps=steps, sample_rate=rate, learning_rate=1.0, clip=clip, spare=spare)


def _blank(plan: Plan, name: str, random: RandomSource, *, attempt: int = 1) -> Step:
    """Release a sum over customers who add nothing to it."""
    nobody = histories_of([[] for _ in range(_BLANK)])
    return released(plan, name, initial_weights(plan), nobody, random=random, attempt=attempt)


def _folded(noise: Floats) -> Floats:
    """Cut noise into eight rows, to hold the coordinates of one against those of the others."""
    return noise[: len(noise) // 8 * 8].reshape(8, -1)


@functools.cache
def _people(family: str) -> tuple[Plan, Weights, Histories]:
    """Return a plan, weights away from the start, and customers of few items and many; public, and so seeded."""
    plan = recommender_plan(
        family,
        _PEOPLE_ITEMS,
        epsilon=1.0,
        declared=100,
        training=_training(rate=1.0, clip=_CLIP),
        recommendation=Recommendation(keep=_PEOPLE_KEEP, dimension=4, negatives=6),
    )
    draw = np.random.default_rng(11)
    first, *rest = initial_weights(plan)
    popularity = draw.random(len(first)).astype(np.float32)
    others = tuple((part + 0.3 * draw.normal(size=part.shape)).astype(np.float32) for part in rest)
    owned = [draw.choice(_PEOPLE_ITEMS, length, replace=False).tolist() for length in _LENGTHS]
    return plan, (popularity, *others), histories_of(owned)


def _moves(
    plan: Plan, name: str, weights: Weights, people: Histories, random: RandomSource
) -> tuple[Integers, Integers]:
    """Return what each customer adds to the sum of all, and its sum alone, (customers, coordinates) each."""

    def total(label: str, who: Integers) -> Integers:
        stream = random.stream(f"moves/{plan.model.family}/{name}/{label}")
        return noiseless(plan, name, weights, people.of(who), stream=stream)

    everybody = np.arange(len(people))
    whole = total("all", everybody)
    moves = [whole - total(f"less/{one}", everybody[everybody != one]) for one in everybody]
    parts = [total(f"only/{one}", everybody[[one]]) for one in everybody]
    return np.stack(moves), np.stack(parts)


def _kept(plan: Plan, weights: Weights, people: Histories) -> list[Integers]:
    """Return each customer's places among the kept items, of its last items that count."""
    settings = recommender_of(plan)
    index, _ = kept_items(weights[0], settings)
    where = places(index, settings.items)
    last = [where[items[-settings.longest :]] for items in np.split(people.items, people.starts[1:-1])]
    return [own[own >= 0] for own in last]


def _vectors(plan: Plan, name: str, weights: Weights, people: Histories) -> Floats | None:
    """Return customers' vectors by dense arithmetic, unclipped, (customers, coordinates); None for some families."""
    settings = recommender_of(plan)
    owned = np.split(people.items, people.starts[1:-1])
    if name == "count/1" or settings.family == "popularity":
        return np.stack([count_vector(items.tolist(), settings.items) for items in owned])
    if settings.family == "item-gram":
        _, scale = kept_items(weights[0], settings)
        return np.stack([gram_vector(own.tolist(), scale) for own in _kept(plan, weights, people)])
    if settings.family == "ials":
        return np.stack([sweep_vector(own.tolist(), weights[1]) for own in _kept(plan, weights, people)])
    if settings.family != "mf-softmax":
        return None
    shown = Shown(weights[1], log_popularity(weights[0]), negatives(settings, 1), halves(settings, 1))
    return np.stack([_gradient(items[-settings.longest :], shown) for items in owned])


def _gradient(own: Integers, shown: Shown) -> Floats:
    slots, rows = gradient_rows(own[None], shown)
    table = np.zeros(shown.table.shape)
    np.add.at(table, slots[0], rows[0])
    return table.ravel()
