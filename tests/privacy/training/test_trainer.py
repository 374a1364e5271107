"""The trainer against plain autograd, and how much one customer can change: the sensitivity, measured."""

import dataclasses

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer
from scipy.stats import binom, chi2

from coterie.models.propensity import build
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.randomness import SeededSource
from coterie.privacy.training import Customers, Trainer
from coterie.privacy.training.optimizer import SecretNoiseOptimizer

WIDTH, HIDDEN, CLIP = 5, 3, 0.8
FAMILIES = ["logistic", "mlp"]


# --- sensitivity ----------------------------------------------------------------------------------------


def released_sum(lab, family, data, weights, **changes):
    """Return the sum of clipped gradients that one step over everybody releases, without its noise."""
    trainer = Trainer(build(family, WIDTH, HIDDEN))
    settings = lab.settings(clip=CLIP, **changes)
    change, _ = trainer.train(weights, Customers(*data), settings=settings, steps=1, stream=lab.quiet())
    return -lab.flat(change)


def without(data, customer):
    features, labels, ids = data
    keep = ids != customer
    return features[keep], labels[keep], ids[keep]


def sensitivities(lab, family, data, **changes):
    """Return how far the released sum moves, in L2, when each customer is taken out."""
    weights = lab.start(family, WIDTH, HIDDEN)
    whole = released_sum(lab, family, data, weights, **changes)
    names = np.unique(data[2])
    others = (released_sum(lab, family, without(data, customer), weights, **changes) for customer in names)
    return np.array([np.linalg.norm(whole - other) for other in others])


def exceeds(found):
    # The sums are float32: of a few tens of vectors of length CLIP.
    return bool((found > CLIP * (1 + 1e-4)).any())


@pytest.mark.parametrize("rows", [1, 10])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_customer_moves_the_released_sum_by_more_than_the_clip(lab, family, rows):
    data = lab.table(12, WIDTH, rows=rows, seed=7, scale=50.0)
    found = sensitivities(lab, family, data)
    assert not exceeds(found)
    assert found.max() > 0.99 * CLIP  # the bound is met, so the check has something to see


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_customer_adds_is_its_own_clipped_gradient(lab, family, rows):
    data = features, labels, ids = lab.table(14, WIDTH, rows=rows, seed=8, scale=0.8)
    weights = lab.start(family, WIDTH, HIDDEN)
    whole, norms = released_sum(lab, family, data, weights), []
    for customer in np.unique(ids):
        mine = ids == customer
        own = lab.gradient(family, weights, features[mine], labels[mine], 1.0)
        norms.append(np.linalg.norm(own))
        added = whole - released_sum(lab, family, without(data, customer), weights)
        np.testing.assert_allclose(added, lab.clipped(own, CLIP), atol=2e-6 * len(ids))
    assert min(norms) < CLIP < max(norms)  # some are clipped and some are not


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_huge_rows_of_one_customer_count_as_one_customer(lab, family):
    features, labels, ids = lab.table(8, WIDTH, seed=9)
    data = (
        np.vstack([features, np.full((10, WIDTH), 1e6, np.float32)]),
        np.append(labels, np.arange(10, dtype=np.float32) % 2),  # whatever the model says, half of it is wrong
        np.append(ids, np.full(10, 99)),
    )
    found = sensitivities(lab, family, data, positive_weight=25.0)
    assert not exceeds(found)
    assert found[-1] > 0.99 * CLIP  # customer 99 is the last
    moved = released_sum(lab, family, data, lab.start(family, WIDTH, HIDDEN))
    assert np.isfinite(moved).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_customer_whose_gradient_is_not_finite_adds_nothing_and_spoils_nothing(lab, value):
    data = features, labels, ids = lab.table(8, WIDTH, seed=16)
    weights = lab.start("mlp", WIDTH, HIDDEN)
    spoilt = features.copy()
    spoilt[ids == 3] = value
    moved = released_sum(lab, "mlp", (spoilt, labels, ids), weights)
    rest = released_sum(lab, "mlp", without(data, 3), weights)
    assert np.isfinite(moved).all()
    assert np.linalg.norm(moved - rest) <= CLIP * (1 + 1e-6)
    if not np.isfinite(value):
        np.testing.assert_allclose(moved, rest, atol=1e-6)


def test_a_release_is_finite_whatever_noise_and_settings_do(lab):
    settings = lab.settings(noise_multiplier=1e30, learning_rate=1e30, normaliser=1e-30)
    trainer = Trainer(build("logistic", WIDTH, 1))
    change, _ = trainer.train(
        lab.start("logistic", WIDTH), Customers(*lab.table(4, WIDTH)), settings=settings, steps=2, stream=lab.stream()
    )
    assert all(np.isfinite(array).all() for array in change)


def test_a_customer_s_weight_does_not_grow_with_its_rows_even_below_the_clip(lab):
    features, labels, ids = lab.table(6, WIDTH, seed=10, scale=0.05)
    twice = np.vstack([features, features]), np.append(labels, labels), np.append(ids, ids)
    weights = lab.start("logistic", WIDTH)
    once = released_sum(lab, "logistic", (features, labels, ids), weights)
    np.testing.assert_allclose(released_sum(lab, "logistic", twice, weights), once, atol=1e-6)


@pytest.mark.parametrize("weight", [0.1, 25.0])
def test_the_weight_of_positives_is_applied_before_clipping(lab, weight):
    data = lab.table(12, WIDTH, rows=3, seed=11, scale=3.0)
    weights = lab.start("logistic", WIDTH)
    whole = released_sum(lab, "logistic", data, weights, positive_weight=weight)
    for customer in np.unique(data[2]):
        rest = released_sum(lab, "logistic", without(data, customer), weights, positive_weight=weight)
        assert not exceeds(np.linalg.norm(whole - rest)[None])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_without_clipping_is_rejected(lab, monkeypatch, family):
    def faulty(self):
        for parameter in self.params:
            parameter.summed_grad = parameter.grad_sample.sum(dim=0)

    monkeypatch.setattr(SecretNoiseOptimizer, "clip_and_accumulate", faulty)
    assert exceeds(sensitivities(lab, family, lab.table(12, WIDTH, rows=3, seed=7, scale=50.0)))


def test_an_engine_that_clips_each_layer_by_itself_is_rejected(lab, monkeypatch):
    def faulty(self):
        for parameter in self.params:
            sample = parameter.grad_sample
            norms = sample.flatten(1).norm(dim=1)
            parameter.summed_grad = torch.einsum("i,i...", (self.max_grad_norm / norms).clamp(max=1), sample)

    monkeypatch.setattr(SecretNoiseOptimizer, "clip_and_accumulate", faulty)
    assert exceeds(sensitivities(lab, "mlp", lab.table(12, WIDTH, rows=3, seed=7, scale=50.0)))


def test_an_engine_that_clips_the_sum_alone_is_rejected(lab, monkeypatch):
    real = DPOptimizer.clip_and_accumulate

    def faulty(self):
        for parameter in self.params:
            parameter.grad_sample = parameter.grad_sample.sum(dim=0, keepdim=True)
        real(self)

    monkeypatch.setattr(SecretNoiseOptimizer, "clip_and_accumulate", faulty)
    data = lab.table(12, WIDTH, seed=7, scale=50.0)
    # A clipped sum moves by up to twice the clip, and is no sum of what each customer adds.
    assert exceeds(sensitivities(lab, "logistic", opposed(data)))


def opposed(data):
    """Two customers of opposite pull, so that taking one out turns the clipped sum around."""
    features = np.array([[9.0] * WIDTH, [-4.0] * WIDTH], np.float32)
    return features, np.ones(2, np.float32), np.arange(2)


def test_rows_taken_for_customers_are_rejected(lab, monkeypatch):
    real = Customers.__init__

    def faulty(self, features, labels, customer):
        real(self, features, labels, np.arange(len(customer)))

    monkeypatch.setattr(Customers, "__init__", faulty)
    assert exceeds(sensitivities(lab, "logistic", lab.table(12, WIDTH, rows=10, seed=7, scale=50.0)))


# --- the whole training ---------------------------------------------------------------------------------


def by_hand(lab, family, data, weights, settings, steps, stream):
    """DP-SGD without its noise, customer by customer with plain autograd."""
    features, labels, ids = data
    names = np.unique(ids)
    at = tuple(w.copy() for w in weights)
    for _ in range(steps):
        chosen = names[stream.uniforms(len(names)) < settings.sample_rate]
        total = np.zeros(len(lab.flat(at)))
        for customer in chosen:
            mine = ids == customer
            own = lab.gradient(family, at, features[mine], labels[mine], settings.positive_weight)
            total += lab.clipped(own, settings.clip)
        moved = lab.flat(at) - settings.learning_rate * total / settings.normaliser
        cuts = np.cumsum([w.size for w in at])[:-1]
        at = tuple(part.reshape(w.shape).astype(np.float32) for part, w in zip(np.split(moved, cuts), at, strict=True))
    return lab.flat(at) - lab.flat(weights)


@pytest.mark.parametrize("weight", [1.0, 7.0])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_without_noise_equals_plain_autograd(lab, family, rows, weight):
    data = lab.table(15, WIDTH, rows=rows, seed=12)
    weights = lab.start(family, WIDTH, HIDDEN)
    settings = lab.settings(
        clip=0.5, sample_rate=0.6, normaliser=9.0, learning_rate=0.8, positive_weight=weight, noise_multiplier=3.0
    )
    expected = by_hand(lab, family, data, weights, settings, 5, lab.quiet())
    trainer = Trainer(build(family, WIDTH, HIDDEN))
    change, event = trainer.train(weights, Customers(*data), settings=settings, steps=5, stream=lab.quiet())
    np.testing.assert_allclose(lab.flat(change), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.01
    assert event == PoissonGaussian(3.0, 0.6, 5)
    assert [array.dtype for array in change] == [np.float32] * len(weights)


def test_training_moves_towards_the_labels(lab):
    features = np.linspace(-1, 1, 200, dtype=np.float32)[:, None]
    customers = Customers(features, (features[:, 0] > 0).astype(np.float32), np.arange(200))
    weights = np.zeros((1, 1), np.float32), np.zeros(1, np.float32)
    settings = lab.settings(normaliser=200.0, learning_rate=2.0, noise_multiplier=0.01)
    change, _ = Trainer(build("logistic", 1, 1)).train(
        weights, customers, settings=settings, steps=30, stream=lab.stream()
    )
    assert change[0][0, 0] > 1.0


# --- public constants -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 5])
def test_the_normaliser_is_a_public_constant_and_no_count_of_customers(lab, times):
    features, labels, ids = lab.table(7, WIDTH, rows=2, seed=13)
    more = np.tile(features, (times, 1)), np.tile(labels, times), np.concatenate([ids + 100 * k for k in range(times)])
    weights = lab.start("logistic", WIDTH)
    once = released_sum(lab, "logistic", (features, labels, ids), weights, normaliser=3.0)
    many = released_sum(lab, "logistic", more, weights, normaliser=3.0)
    np.testing.assert_allclose(many, times * once, rtol=1e-4, atol=1e-6)
    larger = released_sum(lab, "logistic", (features, labels, ids), weights, normaliser=6.0)
    np.testing.assert_allclose(2 * larger, once, rtol=1e-4, atol=1e-6)


def test_an_empty_sample_takes_a_step_of_noise_alone(lab):
    data, weights = lab.table(10, WIDTH, rows=2, seed=14), lab.start("mlp", WIDTH, HIDDEN)
    settings = lab.settings(sample_rate=1e-12, clip=0.5, noise_multiplier=2.0, normaliser=8.0, learning_rate=0.1)
    trainer = Trainer(build("mlp", WIDTH, HIDDEN))
    change, event = trainer.train(weights, Customers(*data), settings=settings, steps=1, stream=lab.stream())
    twin = lab.stream()
    twin.uniforms(10)
    for moved, weight in zip(change, weights, strict=True):
        noise = twin.normals(weight.size).reshape(weight.shape)
        np.testing.assert_allclose(moved, -0.1 * 2.0 * 0.5 / 8.0 * noise, atol=1e-7)
    assert event == PoissonGaussian(2.0, 1e-12, 1)


def test_the_event_names_what_was_done_and_not_what_was_drawn(lab):
    settings = lab.settings(noise_multiplier=1.7, sample_rate=0.3)
    for count in (1, 40):
        trainer = Trainer(build("logistic", WIDTH, 1))
        _, event = trainer.train(
            lab.start("logistic", WIDTH),
            Customers(*lab.table(count, WIDTH)),
            settings=settings,
            steps=3,
            stream=lab.stream(),
        )
        assert event == PoissonGaussian(1.7, 0.3, 3)


# --- sampling -------------------------------------------------------------------------------------------

RATE, MEMBERS, STEPS = 0.3, 24, 1500


class Watched(Customers):
    """Customers that note who was chosen."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = []

    def batch(self, chosen):
        row = np.zeros(len(self), bool)
        row[chosen] = True
        self.seen.append(row)
        return super().batch(chosen)


def samples(lab, stream):
    """Return who was in which step, shape (steps, customers)."""
    watched = Watched(*lab.table(MEMBERS, 2, rows=2, seed=15))
    trainer = Trainer(build("logistic", 2, 1))
    trainer.train(
        lab.start("logistic", 2), watched, settings=lab.settings(sample_rate=RATE), steps=STEPS, stream=stream
    )
    return np.array(watched.seen)


def sampling_faults(seen):
    """Return how inclusion differs from independent coins of the stated rate."""
    steps, members = seen.shape
    faults = []
    sizes = np.bincount(seen.sum(axis=1), minlength=members + 1)
    expected = binom.pmf(np.arange(members + 1), members, RATE) * steps
    common = expected >= 5
    expected = np.append(expected[common], max(expected[~common].sum(), 1e-9))
    observed = np.append(sizes[common], sizes[~common].sum())
    if chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1) < 1e-4:
        faults.append("sizes")
    each = (seen.sum(axis=0) - steps * RATE) / np.sqrt(steps * RATE * (1 - RATE))
    if chi2.sf((each**2).sum(), members) < 1e-4:
        faults.append("rates")
    coins = (seen - RATE) / np.sqrt(RATE * (1 - RATE))
    pairs = coins.T @ coins / steps
    after = coins.T[:, :-1] @ coins[1:] / steps  # with anybody's coin of the next step
    np.fill_diagonal(pairs, 0.0)
    if max(np.abs(pairs).max(), np.abs(after).max()) > 6 / np.sqrt(steps):
        faults.append("dependence")
    return faults


def test_every_customer_enters_every_step_by_a_coin_of_its_own(lab):
    assert sampling_faults(samples(lab, lab.stream("coins"))) == []


class Mangled:
    """A stream whose uniforms are tampered with."""

    def __init__(self, change):
        self._stream, self._change = SeededSource(b"mangled").stream(""), change

    def uniforms(self, count):
        return self._change(self._stream.uniforms(count))

    def normals(self, count):
        return self._stream.normals(count)


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("sizes", lambda u: np.argsort(np.argsort(u)) / len(u)),  # a fixed size, without replacement
        ("sizes", lambda u: np.full(len(u), u[0])),  # everybody or nobody
        ("rates", lambda u: u * 0.95),  # too often
        ("rates", lambda u: u * np.linspace(0.8, 1.2, len(u))),  # some more often than others
        ("dependence", lambda u: np.concatenate([u[: len(u) // 2], 1 - u[: len(u) // 2]])),  # instead of each other
    ],
    ids=["fixed size", "one coin", "rate", "favourites", "pairs"],
)
def test_sampling_that_is_not_poisson_is_rejected(lab, monkeypatch, fault, change):
    # Who is chosen does not depend on what is learnt, which is left out for speed.
    monkeypatch.setattr(Trainer, "_differentiate", lambda _, few, customers, __: customers.batch(few))
    monkeypatch.setattr(SecretNoiseOptimizer, "step", lambda *_: None)
    assert fault in sampling_faults(samples(lab, Mangled(change)))


# --- one engine for every round -------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_that_served_other_rounds_trains_as_a_fresh_one_does(lab, family):
    weights = lab.start(family, WIDTH, HIDDEN)
    rounds = [
        (lab.table(9, WIDTH, rows=3, seed=1), lab.settings(clip=0.2, sample_rate=0.5, normaliser=4.0)),
        (lab.table(30, WIDTH, seed=2), lab.settings(noise_multiplier=0.5, learning_rate=0.1)),
        (lab.table(4, WIDTH, rows=5, seed=3), lab.settings(sample_rate=1e-9, positive_weight=4.0)),
        (lab.table(20, WIDTH, rows=2, seed=4), lab.settings(sample_rate=0.7, clip=3.0)),
    ]
    used = Trainer(build(family, WIDTH, HIDDEN))
    for number, (data, settings) in enumerate(rounds):
        fresh = Trainer(build(family, WIDTH, HIDDEN))
        one, other = (
            trainer.train(weights, Customers(*data), settings=settings, steps=4, stream=lab.stream(str(number)))
            for trainer in (used, fresh)
        )
        assert [a.tobytes() for a in one[0]] == [a.tobytes() for a in other[0]]
        assert one[1] == other[1]


def test_equal_streams_train_equally_and_different_ones_do_not(lab):
    def change(label):
        trainer = Trainer(build("logistic", WIDTH, 1))
        arrays, _ = trainer.train(
            lab.start("logistic", WIDTH),
            Customers(*lab.table(20, WIDTH)),
            settings=lab.settings(sample_rate=0.5),
            steps=3,
            stream=lab.stream(label),
        )
        return [array.tobytes() for array in arrays]

    assert change("a") == change("a") != change("b")


def test_a_round_leaves_the_weights_that_it_started_from_alone(lab):
    weights = lab.start("mlp", WIDTH, HIDDEN)
    kept = [w.copy() for w in weights]
    trainer = Trainer(build("mlp", WIDTH, HIDDEN))
    first, _ = trainer.train(
        weights, Customers(*lab.table(9, WIDTH)), settings=lab.settings(), steps=2, stream=lab.stream()
    )
    saved = [array.copy() for array in first]
    trainer.train(weights, Customers(*lab.table(5, WIDTH)), settings=lab.settings(), steps=2, stream=lab.stream("x"))
    for now, before in zip((*weights, *first), (*kept, *saved), strict=True):
        assert (now == before).all()


def test_a_round_that_broke_off_leaves_no_trace_in_the_next(lab, monkeypatch):
    weights, data = lab.start("mlp", WIDTH, HIDDEN), lab.table(9, WIDTH, rows=2)
    settings = dataclasses.replace(lab.settings(), sample_rate=0.5)

    def run(trainer):
        arrays, _ = trainer.train(weights, Customers(*data), settings=settings, steps=3, stream=lab.stream())
        return lab.flat(arrays)

    broken, fresh = Trainer(build("mlp", WIDTH, HIDDEN)), Trainer(build("mlp", WIDTH, HIDDEN))
    expected = run(fresh)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", lambda *args, **kwargs: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            run(broken)
    assert (run(broken) == expected).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_per_customer_gradients_die_with_the_call(lab, family):
    trainer = Trainer(build(family, WIDTH, HIDDEN))
    weights = lab.start(family, WIDTH, HIDDEN)
    data = Customers(*lab.table(12, WIDTH, rows=2, seed=3, scale=1.0))
    trainer.train(weights, data, settings=lab.settings(clip=CLIP), steps=2, stream=lab.quiet())
    for parameter in trainer._model.parameters():
        assert parameter.grad_sample is None
        assert parameter.grad is None
