"""What the coordinator makes of an opened sum: divided by public constants, with the noise's public size beside it."""

import numpy as np
import pytest

from coterie.clients.agreed import check_sum
from coterie.clients.task import SumTask, initial_weights, recommender_of, weight_shapes
from coterie.models.recommenders import family
from coterie.privacy.plan import SECURE, TRAINED, Secure
from coterie.privacy.schedule import trained
from coterie.privacy.sums import numbers_of
from coterie.server import steps
from coterie.server.optimizers import OptimizerState, optimizer_settings, published
from coterie.server.steps import Total, size_of, stepped
from coterie.tests.clients.recommending import ITEMS, recommends
from coterie.tests.clients.summing import FOUR

SIZES = (100, 200, 400, 800)
SGD = Secure(optimizer="sgd", momentum=0.0, averaging=0.0)


def sized(name, trust="local", **changes):
    """A plan of partners of several sizes."""
    plan = recommends(name, trust, **changes)
    partners = [{**vars(p), "customers": size} for p, size in zip(plan.partners, SIZES, strict=True)]
    kind = type(plan.partners[0])
    return type(plan)(**{**vars(plan), "partners": tuple(kind(**one) for one in partners)})


def noise_of(plan, step, draw, survivors=FOUR):
    """The sum of the partners' noise alone; its scale is great enough to round a normal number."""
    share = numbers_of(plan, step).share
    return np.rint(draw.standard_normal((len(survivors), size_of(plan, step))) * share).sum(axis=0).astype(np.int64)


@pytest.fixture
def told(monkeypatch):
    """What the families are told of a sum: (mean, noise, customers or None)."""
    found = []

    def counted(weights, mean, *, noise):
        found.append((mean, noise, None))
        return weights

    def advance(_settings, weights, mean, *, noise, customers):
        found.append((mean, noise, customers))
        return weights

    monkeypatch.setattr(steps.family, "counted", counted)
    monkeypatch.setattr(steps.family, "advance", advance)
    return found


@pytest.mark.parametrize("survivors", [FOUR, FOUR[1:], (FOUR[0], *FOUR[2:])])
@pytest.mark.parametrize("trust", ["local", SECURE])
@pytest.mark.parametrize(
    ("name", "step"), [("item-gram", "count/1"), ("item-gram", "train/1"), ("popularity", "train/1")]
)
def test_a_sum_is_divided_by_what_its_survivors_declared_and_its_noise_has_the_size_that_is_told(
    told, name, step, trust, survivors
):
    plan, draw = sized(name, trust), np.random.default_rng(1)
    numbers = numbers_of(plan, step)
    state = OptimizerState.start(initial_weights(plan))
    signal = np.arange(size_of(plan, step)) * numbers.sensitivity
    stepped(plan, state, step, Total(signal, survivors))
    stepped(plan, state, step, Total(noise_of(plan, step, draw, survivors), survivors))
    declared = sum(size for name_, size in zip(FOUR, SIZES, strict=True) if name_ in survivors)
    (mean, noise, customers), (noisy, _, _) = told
    np.testing.assert_allclose(mean, np.arange(len(mean)) / declared)
    assert customers in {None, declared}
    assert noise == pytest.approx(np.sqrt(len(survivors)) * numbers.share / numbers.sensitivity / declared)
    assert np.sqrt((noisy**2).mean()) / noise == pytest.approx(1, abs=4 / np.sqrt(2 * len(noisy)))


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "neumf"])
def test_a_gradient_is_divided_by_the_expected_sample_and_moves_everything_but_popularity(name):
    plan = sized(name, secure=SGD, training__clip=2.0, training__learning_rate=0.25)
    draw = np.random.default_rng(2)
    popularity, *start = initial_weights(plan)
    weights = (popularity + np.float32(0.5), *start)
    total = draw.integers(-(10**7), 10**7, size_of(plan, "train/1"))
    after = published(
        optimizer_settings(plan, SGD), stepped(plan, OptimizerState.start(weights), "train/1", Total(total, FOUR))
    )
    gradient = total * 2.0 / numbers_of(plan, "train/1").sensitivity / (0.5 * 1500)
    moved = np.concatenate([(one - two).ravel() for one, two in zip(after[1:], start, strict=True)])
    np.testing.assert_allclose(moved, -0.25 * gradient, atol=1e-6)
    assert np.abs(moved).max() > 1e-3
    assert np.array_equal(after[0], weights[0])


@pytest.mark.parametrize("name", ["item-gram", "ials", *TRAINED])
def test_a_count_sets_popularity_and_nothing_else_and_momentum_starts_anew(name):
    plan = recommends(name)
    start, total = initial_weights(plan), np.arange(ITEMS) * 10**6
    state = stepped(plan, OptimizerState.start(start), "count/1", Total(total, FOUR))
    assert np.all(np.diff(state.weights[0]) > 0)
    assert all(np.array_equal(a, b) for a, b in zip(state.weights[1:], start[1:], strict=True))
    fresh = OptimizerState.start(state.weights)
    settings = optimizer_settings(plan, Secure())
    assert all(
        np.array_equal(a, b) for a, b in zip(published(settings, state), published(settings, fresh), strict=True)
    )


@pytest.mark.parametrize("name", ["popularity", "item-gram", "ials", *TRAINED])
def test_a_sum_has_as_many_coordinates_as_its_model_needs(name):
    plan = recommends(name)
    first, *rest = weight_shapes(plan)
    assert first == (ITEMS,)
    kept, size = 12, 3
    triangle = size * (size + 1) // 2
    expected = {
        "popularity": ITEMS,
        "item-gram": kept * (kept + 1) // 2,
        "ials": kept * (triangle + size) + triangle,
    }.get(name, sum(int(np.prod(shape)) for shape in rest))
    assert size_of(plan, "train/1") == expected
    if name != "popularity":
        assert size_of(plan, "count/1") == ITEMS


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["popularity", "item-gram", "ials", *TRAINED])
def test_a_study_of_noise_alone_asks_nothing_that_partners_would_refuse(name, seed):
    """Epsilon is spent when partners refuse weights that the coordinator's own arithmetic made unsound."""
    plan, draw = recommends(name), np.random.default_rng(seed)
    state = OptimizerState.start(initial_weights(plan))
    settings = optimizer_settings(plan, Secure())
    for step in (*trained(plan), "evaluate/1" if name != "ials" else "evaluate/2"):
        weights = published(settings, state) if step.startswith("evaluate") else state.weights
        check_sum(SumTask(plan.digest(), step, 1, weights, 1, FOUR[:1], ()), plan)
        if not step.startswith("evaluate"):
            state = stepped(plan, state, step, Total(noise_of(plan, step, draw), FOUR))
    assert tuple(array.shape for array in weights) == family.shapes(recommender_of(plan))
