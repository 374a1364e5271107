"""White-box conformance of the noise, with planted faults that the same checks are shown to reject.

The steps below meet no gradient, so what they change in the model is noise and nothing else.
"""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest
from torch import nn

from coterie.privacy.randomness import OsSource, SeededSource, Stream
from coterie.privacy.training import Customers, Trainer, TrainerSettings
from coterie.privacy.training.optimizer import SecretNoiseOptimizer

WIDTH = 60_000
SETTINGS = TrainerSettings(
    clip=0.7, noise_multiplier=1.3, sample_rate=0.5, normaliser=40.0, learning_rate=0.25, positive_weight=2.0
)
SCALE = 1.3 * 0.7 / 40.0 * 0.25  # of one coordinate of one step's change
STEPS = 4

real_noise = SecretNoiseOptimizer.add_noise


# --- checks ---------------------------------------------------------------------------------------------


def noise_faults(noise, scale, level=1e-4):
    """Return how `noise` differs from independent normals of this scale."""
    z, n = noise / scale, len(noise)
    faults = []
    square = (z**2).sum()
    if min(chi2.cdf(square, n), chi2.sf(square, n)) < level:
        faults.append("variance")
    if abs(z.sum()) / np.sqrt(n) > 5:
        faults.append("mean")
    if kstest(z, "norm").pvalue < level:
        faults.append("shape")
    if any(abs((z[lag:] * z[:-lag]).sum()) / np.sqrt(n - lag) > 5 for lag in (1, 2, n // 2)):
        faults.append("not white")
    return faults


def correlation_faults(steps):
    """Return which pairs of steps have correlated noise."""
    found = np.corrcoef(np.abs(steps)) - np.eye(len(steps)), np.corrcoef(steps) - np.eye(len(steps))
    return [pair for one in found for pair in np.argwhere(np.abs(one) > 5 / np.sqrt(steps.shape[1])).tolist()]


# --- what is checked ------------------------------------------------------------------------------------


def featureless(count):
    """Return customers whose gradient is zero in every weight."""
    return Customers(np.zeros((count, WIDTH), np.float32), np.zeros(count, np.float32), np.arange(count))


def start():
    return np.zeros((1, WIDTH), np.float32), np.zeros(1, np.float32)


def change(stream, steps=1, count=3, settings=SETTINGS, trainer=None):
    trainer = trainer or Trainer(nn.Linear(WIDTH, 1))
    (weights, _), _ = trainer.train(start(), featureless(count), settings=settings, steps=steps, stream=stream)
    return weights.ravel().astype(np.float64)


def each_step(stream, steps=STEPS):
    """Return every step's noisy gradient, as it is before the learning rate."""
    trainer, seen = Trainer(nn.Linear(WIDTH, 1)), []
    trainer._optimizer.attach_step_hook(lambda optimizer: seen.append(optimizer.params[0].grad.flatten().clone()))
    trainer.train(start(), featureless(3), settings=SETTINGS, steps=steps, stream=stream)
    return torch.stack(seen).double().numpy()


def seeded(label="noise"):
    return SeededSource(b"optimizer").stream(label)


@pytest.fixture
def plant(monkeypatch):
    """Replace how noise is added."""

    def put(faulty):
        monkeypatch.setattr(SecretNoiseOptimizer, "add_noise", faulty)

    return put


# --- conformance ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 3])
def test_the_noise_of_a_step_is_white_and_of_the_stated_scale(count):
    assert noise_faults(change(seeded(), count=count), SCALE) == []


def test_the_noise_of_the_operating_systems_source_is_too():
    assert noise_faults(change(OsSource().stream("noise")), SCALE, level=1e-9) == []


@pytest.mark.parametrize("name", ["clip", "noise_multiplier", "learning_rate"])
def test_noise_scales_with_clip_multiplier_and_step_size(name):
    doubled = dataclasses.replace(SETTINGS, **{name: 2 * getattr(SETTINGS, name)})
    np.testing.assert_allclose(change(seeded(), settings=doubled), 2 * change(seeded()), rtol=1e-5)


def test_the_noise_of_several_steps_adds_up_as_independent_noise_does():
    assert noise_faults(change(seeded(), steps=STEPS), SCALE * np.sqrt(STEPS)) == []


def test_the_noise_of_each_step_is_independent_of_every_other():
    steps = each_step(seeded())
    assert correlation_faults(steps) == []
    for step in steps:
        assert noise_faults(step, SCALE / SETTINGS.learning_rate) == []


def test_noise_of_different_streams_is_independent():
    streams = [OsSource().stream("a"), OsSource().stream("a"), seeded("a"), seeded("b")]
    assert correlation_faults(np.stack([change(stream) for stream in streams])) == []


def test_the_parameters_of_one_step_have_noise_of_their_own():
    trainer = Trainer(nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200)))
    nothing = Customers(np.zeros((0, 200), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    zeros = [p.detach().numpy() * 0 for p in trainer._model.parameters()]
    changed, _ = trainer.train(zeros, nothing, settings=SETTINGS, steps=1, stream=seeded())
    pair = np.stack([changed[0].ravel(), changed[2].ravel()]).astype(np.float64)
    assert correlation_faults(pair) == []
    for one in pair:
        assert noise_faults(one, SCALE) == []


def test_noise_comes_from_the_stream_and_from_nowhere_else(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("torch's generator was used")

    monkeypatch.setattr(torch, "normal", forbidden)
    trainer = Trainer(nn.Linear(WIDTH, 1))
    before = torch.get_rng_state()
    first = change(seeded(), trainer=trainer)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        assert (change(seeded(), trainer=trainer) == first).all()
        torch.manual_seed(7)
        assert (change(OsSource().stream("a"), trainer=trainer) != first).any()


def test_a_released_sum_does_not_meet_fresh_noise():
    trainer = Trainer(nn.Linear(4, 1))
    customers = Customers(np.ones((3, 4), np.float32), np.ones(3, np.float32), np.arange(3))
    weights = np.zeros((1, 4), np.float32), np.zeros(1, np.float32)
    trainer.train(weights, customers, settings=SETTINGS, steps=1, stream=seeded())
    assert all(parameter.summed_grad is None for parameter in trainer._optimizer.params)


def test_sums_over_many_customers_keep_what_float32_would_lose():
    # In float32 a sum of 2**25 does not move by 1.
    trainer = Trainer(nn.Linear(1, 1, bias=False))
    optimizer = trainer._optimizer
    optimizer.max_grad_norm = 2.0**25
    (parameter,) = optimizer.params
    parameter.grad_sample = torch.tensor([2.0**25, 1.0, 1.0, 1.0, -(2.0**25)]).reshape(5, 1, 1)
    optimizer.clip_and_accumulate()
    assert parameter.summed_grad.item() == 3.0


# --- planted faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 1 / np.sqrt(2), 0.98, 1.02, 0.0])
def test_noise_that_is_too_small_or_too_large_is_rejected(monkeypatch, factor):
    real = Stream.normals
    monkeypatch.setattr(Stream, "normals", lambda self, count: factor * real(self, count))
    assert "variance" in noise_faults(change(seeded()), SCALE)


@pytest.mark.parametrize("power", [0, 2])
def test_noise_that_forgets_the_clip_or_counts_it_twice_is_rejected(plant, power):
    def faulty(self):
        clip = self.max_grad_norm
        self.max_grad_norm = clip**power
        real_noise(self)
        self.max_grad_norm = clip

    plant(faulty)
    assert "variance" in noise_faults(change(seeded()), SCALE)


def test_noise_that_shrinks_with_the_sample_is_rejected(plant):
    def faulty(self):
        chosen = max(1, len(self.grad_samples[0]))
        multiplier = self.noise_multiplier
        self.noise_multiplier = multiplier / np.sqrt(chosen)
        real_noise(self)
        self.noise_multiplier = multiplier

    plant(faulty)
    assert "variance" in noise_faults(change(seeded(), count=50), SCALE)


def test_a_stream_that_starts_again_at_every_step_is_rejected(plant):
    def faulty(self):
        self.use(Stream(bytes(32)))
        real_noise(self)

    plant(faulty)
    assert len(correlation_faults(each_step(seeded()))) >= STEPS * (STEPS - 1)
    assert "variance" in noise_faults(change(seeded(), steps=STEPS), SCALE * np.sqrt(STEPS))


def test_noise_whose_sign_flips_from_step_to_step_is_rejected(plant):
    signs = iter([1, -1] * STEPS)

    def faulty(self):
        self.use(Stream(bytes(32)))
        self.noise_multiplier = next(signs) * 1.3
        real_noise(self)

    plant(faulty)
    assert len(correlation_faults(each_step(seeded()))) >= STEPS * (STEPS - 1)


def test_one_draw_repeated_over_the_coordinates_is_rejected(monkeypatch):
    real = Stream.normals

    def faulty(self, count):
        return np.resize(real(self, (count + 1) // 2), count)

    monkeypatch.setattr(Stream, "normals", faulty)
    assert "not white" in noise_faults(change(seeded()), SCALE)


def test_noise_of_another_shape_is_rejected(monkeypatch):
    def faulty(self, count):
        return np.sqrt(12.0) * (self.uniforms(count) - 0.5)  # as wide as a normal, without its tails

    monkeypatch.setattr(Stream, "normals", faulty)
    assert "shape" in noise_faults(change(seeded()), SCALE)
