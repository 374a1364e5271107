"""White-box conformance of models on private bins: the noise of their sums, their sample, what one customer moves.

Noise is measured on what is released over customers with nothing in any column, in all cells and slots but those of
what is absent. What customers add is measured before the noise, in whole numbers, by taking each out in turn, and held
against arithmetic of its own (`binnedparts.py`). Counts are read where bins are made of them, in the model.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import binning_of, initial_weights
from coterie.models.propensity import Weights
from coterie.privacy.auditing import conformance
from coterie.privacy.auditing.conformance import Check
from coterie.privacy.plan import PROPENSITY, Bins, Model, Plan, Training
from coterie.privacy.randomness import RandomSource
from coterie.privacy.sums import numbers_of
from coterie.server.optimizers import OptimizerState
from coterie.server.steps import Total, stepped
from coterie.simulations.attacks.binned import binned_plan, numeric, rows_of, secured, worded
from coterie.simulations.attacks.binnedparts import binned_vector, cells_vector
from coterie.simulations.attacks.canaries import PARTNER, Rows
from coterie.simulations.attacks.studies import Step, noiseless, opened, scale_of

__all__ = ["customer_checks", "noise_checks", "run_binned_checks"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_ATTEMPTS, _GRADIENTS = 4, 8  # together coordinates enough to see noise that is 2 % too small
_WORDS, _NUMBERS = 5, 14  # columns of either kind
_BLANK = 30
_CLIP = 0.8  # below the greatest gradient of every family, and above some customer's
_SAMPLED, _SAMPLES = 300, 25
_ROWS_OF = (1, 1, 1, 1, 2, 2, 2, 3, 3, 3)  # of each customer whose part is measured
_SUMS = ((PROPENSITY[0], "count/1"), *((family, "train/1") for family in PROPENSITY))


def run_binned_checks(random: RandomSource) -> tuple[Check, ...]:
    """Run every check on the sums of models on private bins.

    Args:
        random: Where noise and samples come from.
    """
    return (*noise_checks(random), *customer_checks(random))


def noise_checks(random: RandomSource) -> tuple[Check, ...]:
    """Check the noise of sums, of the partner's own and of secure ones, as in `run_binned_checks`."""
    plan = _noise_plan()
    return (*_own_noise(plan, random), *_partners_noise(secured(plan), random))


def customer_checks(random: RandomSource) -> tuple[Check, ...]:
    """Check what sums are made of before their noise, as in `run_binned_checks`."""
    found = [_sampling(family, random) for family in ("additive", "logistic")]
    for family, name in _SUMS:
        found += _one_customer(family, name, random)
    return (*found, _reading(random))


def _own_noise(plan: Plan, random: RandomSource) -> tuple[Check, ...]:
    """Check the noise of four attempts at a partner's own counts, and of eight steps' gradients."""
    counts, steps = _counts(plan, random), _gradients(plan, random)
    some, more = _noise(plan, counts), _noise(plan, steps)
    counting, stepping = scale_of(plan, counts[0]), scale_of(plan, steps[0])
    one_of_each = np.stack([some[0, : more.shape[1]] / counting, more[0] / stepping])
    return (
        conformance.noise_scale(some.ravel(), counting, name="noise of counts of cells"),
        conformance.noise_shape(some[0], counting, name="shape of the noise of counts of cells"),
        conformance.independence(some, name="noise of cells' counts of one attempt beside another's"),
        conformance.independence(_folded(some[0]), name="noise of one cell's count beside another's"),
        _in_the_model(plan, counts, "noise of the counts that bins are made of"),
        conformance.noise_scale(more.ravel(), stepping, name="noise of gradient sums on bins"),
        conformance.noise_shape(more[0], stepping, name="shape of the noise of gradient sums on bins"),
        conformance.independence(more, name="noise of gradient sums on bins of one step beside another's"),
        conformance.independence(_folded(more[0]), name="noise of one slot's gradient beside another's"),
        conformance.independence(one_of_each, name="noise of counts of cells beside that of gradient sums on bins"),
    )


def _partners_noise(plan: Plan, random: RandomSource) -> tuple[Check, ...]:
    """Check that the shares of as many partners as are counted on add up to the noise of secure sums."""
    counts, steps = _counts(plan, random), _gradients(plan, random)
    some, more = _noise(plan, counts), _noise(plan, steps)
    secure = "of secure sums' honest partners"
    return (
        conformance.noise_scale(some.ravel(), scale_of(plan, counts[0]), name=f"noise of counts of cells {secure}"),
        _in_the_model(plan, counts, "noise of the counts that bins are made of, by secure sums"),
        conformance.noise_scale(more.ravel(), scale_of(plan, steps[0]), name=f"noise of gradients on bins {secure}"),
        conformance.independence(more, name=f"gradients' noise of one step beside another's, {secure}"),
    )


def _in_the_model(plan: Plan, counts: list[Step], name: str) -> Check:
    """Check the noise where bins are made of it: in the counts of the model that follows from every attempt."""
    found = [_counted(plan, step.total) for step in counts]
    noise = np.concatenate([shares[_present(plan, "count/1")] for shares in found])
    customers = scale_of(plan, counts[0]) / numbers_of(plan, "count/1").sensitivity / plan.partners[0].customers
    return conformance.noise_scale(noise, customers * np.sqrt(len(plan.contract.columns)), name=name)


def _sampling(family: str, random: RandomSource) -> Check:
    """Check who is sampled: each customer has two rows and a word to itself, whose slot has a gradient when it is."""
    steps = _training(rate=0.25, steps=_SAMPLES)
    plan = binned_plan(Model(family=family), [worded("own", _SAMPLED)], epsilon=1.0, training=steps, declared=_SAMPLED)
    customer = np.repeat(np.arange(_SAMPLED), 2)
    labels = customer % 2  # alike in both rows: different ones may cancel
    rows = rows_of({"own": customer.astype(np.float64)}, labels.astype(np.float32), customer)
    weights, included = _nudged(initial_weights(plan)), []
    for number in range(_SAMPLES):
        stream = random.stream(f"bins/sampling/{family}/{number}")
        included.append(noiseless(plan, "train/1", weights, rows, stream=stream)[:_SAMPLED] != 0)
    name = f"share of customers that a sum of gradients on bins samples: {family}"
    return conformance.inclusion(np.stack(included), plan.training.sample_rate, name=name)


def _one_customer(family: str, name: str, random: RandomSource) -> tuple[Check, ...]:
    """Check what one customer, of one row or more, adds to a sum."""
    plan, weights, people = _people(family)
    everybody = np.arange(len(_ROWS_OF))

    def total(who: Integers, label: str) -> Integers:
        stream = random.stream(f"bins/moves/{family}/{name}/{label}")
        return noiseless(plan, name, weights, people.of(who), stream=stream)

    whole = total(everybody, "all")
    moves = np.stack([whole - total(everybody[everybody != one], f"less/{one}") for one in everybody])
    parts = np.stack([total(everybody[[one]], f"only/{one}") for one in everybody])
    if name == "count/1":
        clip, of = 1.0, "counts of cells"
        vectors = [cells_vector(plan, people.of(everybody[[one]])) for one in everybody]
    else:
        clip, of = plan.training.clip, f"{family} on bins"
        vectors = [binned_vector(plan, weights, people.of(everybody[[one]])) for one in everybody]
    units = numbers_of(plan, name).sensitivity
    said = f"distance from a customer's own vector: {of}"
    return (
        conformance.whole_sensitivity(moves, units, name=f"most that one customer moves: {of}"),
        conformance.alone(moves, parts, name=f"a customer's part alone and among others: {of}"),
        conformance.gradients_match(moves * (clip / units), np.stack(vectors), clip=clip, name=said),
    )


def _reading(random: RandomSource) -> Check:
    """Check that the server reads from a sum without noise the shares of customers that are in each cell."""
    plan, weights, people = _people("additive")
    total = noiseless(plan, "count/1", weights, people, stream=random.stream("bins/reading"))
    vectors = [cells_vector(plan, people.of(np.array([one]))) for one in range(len(_ROWS_OF))]
    expected = np.sum(vectors, axis=0) * np.sqrt(len(plan.contract.columns)) / plan.partners[0].customers
    return conformance.reconstructed(
        _counted(plan, total), expected, name="the counts of cells as the server reads them", room=1e-4
    )


def _counted(plan: Plan, total: Integers) -> Floats:
    """Return the counts that the coordinator puts into the model, as shares of customers."""
    state = OptimizerState.start(initial_weights(plan))
    return stepped(plan, state, "count/1", Total(total, (PARTNER,))).weights[0].astype(np.float64)


def _noise_plan() -> Plan:
    columns = [worded(f"w{index}", 900) for index in range(_WORDS)]
    columns += [numeric(f"c{index}", atoms=(0.0,)) for index in range(_NUMBERS)]
    steps = _training(rate=0.25, steps=_GRADIENTS, spare=_ATTEMPTS - 1)
    bins = Bins(most=256, cells=1024, counts=0.1)
    return binned_plan(Model(family="additive"), columns, epsilon=1.0, training=steps, declared=100, bins=bins)


def _training(*, rate: float, steps: int = 1, spare: int = 0) -> Training:
    return Training(
        rounds=1, local_steps=steps, sample_rate=rate, learning_rate=1.0, clip=_CLIP, spare=spare, positive_weight=3.0
    )


def _counts(plan: Plan, random: RandomSource) -> list[Step]:
    """Count customers who are in no cell but those of what is absent, in every attempt."""
    weights, nobody = initial_weights(plan), _blank(plan)
    tries = range(1, _ATTEMPTS + 1)
    return [opened(plan, "count/1", weights, nobody, random=random, attempt=attempt) for attempt in tries]


def _gradients(plan: Plan, random: RandomSource) -> list[Step]:
    """Release the sums of gradients of the same customers."""
    weights, nobody = initial_weights(plan), _blank(plan)
    return [opened(plan, f"train/{n}", weights, nobody, random=random) for n in range(1, _GRADIENTS + 1)]


def _noise(plan: Plan, steps: list[Step]) -> Floats:
    """Return the noise of some sums of one kind, shape (sums, coordinates)."""
    return np.stack([step.total[_present(plan, step.name)].astype(np.float64) for step in steps])


@functools.cache
def _present(plan: Plan, name: str) -> Integers:
    """Return the coordinates of a sum but for those of what is absent, and the intercept."""
    binning = binning_of(plan)
    spans = binning.cell_spans() if name == "count/1" else binning.slot_spans()
    return np.concatenate([np.arange(span.start, span.stop - 1) for span in spans])


def _folded(noise: Floats) -> Floats:
    """Cut noise into eight rows, to hold the coordinates of one against those of the others."""
    return noise[: len(noise) // 8 * 8].reshape(8, -1)


def _blank(plan: Plan) -> Rows:
    columns = {c.name: np.full(_BLANK, -1.0 if c.values else np.nan) for c in plan.contract.columns}
    return rows_of(columns, np.zeros(_BLANK, dtype=np.float32), np.arange(_BLANK))


def _nudged(weights: Weights) -> Weights:
    """Return weights away from the start; public, and so seeded."""
    draw = np.random.default_rng(5)
    shares = draw.random(len(weights[0])).astype(np.float32)
    return shares, *((part + 0.5 * draw.normal(size=part.shape)).astype(np.float32) for part in weights[1:])


@functools.cache
def _people(family: str) -> tuple[Plan, Weights, Rows]:
    """Return a plan, weights, and customers of one row and more, with gradients above the clip and below it."""
    columns = [numeric("a"), numeric("b", atoms=(0.0, 0.5)), numeric("c"), worded("w", 6)]
    plan = binned_plan(
        Model(family=family, hidden=3),
        columns,
        epsilon=1.0,
        training=_training(rate=1.0),
        declared=100,
        bins=Bins(most=5, cells=12, counts=0.1, pairs=("b * w",)),
    )
    draw, customer = np.random.default_rng(17), np.repeat(np.arange(len(_ROWS_OF)), _ROWS_OF)
    # Odd customers' rows are all alike: taken for several customers, they weigh as many times as much.
    source = np.where(customer % 2, np.searchsorted(customer, customer), np.arange(len(customer)))
    values = {name: draw.choice([-2.0, -0.7, 0.0, 0.1, 0.5, 0.9, np.nan], len(customer))[source] for name in "abc"}
    words = draw.integers(-1, 6, len(customer)).astype(np.float64)[source]
    labels = draw.integers(0, 2, len(customer)).astype(np.float32)[source]
    return plan, _nudged(initial_weights(plan)), rows_of({**values, "w": words}, labels, customer)
