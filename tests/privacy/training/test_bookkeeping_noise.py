"""White-box conformance of book-keeping's noise, and faulty optimisers that the same check rejects."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest
from torch import nn

from coterie.privacy.randomness import OsSource, SeededSource, Stream
from coterie.privacy.training.bookkeeping import BookkeepingModule, BookkeepingOptimizer, BookkeepingSGD
from coterie.privacy.training.lazynoise import LazySGD

ROWS, WIDTH, STEPS = 5_000, 8, 4
CLIP, MULTIPLIER, BATCH, RATE = 0.7, 1.3, 40, 0.25
SCALE = MULTIPLIER * CLIP / BATCH * RATE
KINDS = [BookkeepingOptimizer, BookkeepingSGD, LazySGD]


class Model(nn.Module):
    """A table and a layer, of which nothing depends on the customers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH)
        self.layer = nn.Linear(WIDTH, 4_000, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, item):
        return (self.layer(self.table(item)) * 0.0).sum(dim=1)


def seeded(label="noise"):
    return SeededSource(b"book-keeping").stream(label)


def changes(kind, stream, steps=1, customers=3):
    """Return what each step changed, every parameter in one vector: (steps, parameters)."""
    model = BookkeepingModule(Model())
    optimizer = kind(
        torch.optim.SGD(model.parameters(), lr=RATE),
        noise_multiplier=MULTIPLIER,
        max_grad_norm=CLIP,
        expected_batch_size=BATCH,
        stream=stream,
    )
    seen = [weights(model)]
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.arange(customers) + step).mean().backward()
        optimizer.step()
        if isinstance(optimizer, LazySGD):
            optimizer.flush()
        seen.append(weights(model))
    return np.diff(np.stack(seen), axis=0)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).double().numpy()


def noise_faults(noise, scale=SCALE, level=1e-4):
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
    if any(abs((z[lag:] * z[:-lag]).sum()) / np.sqrt(n - lag) > 5 for lag in (1, WIDTH, ROWS * WIDTH)):
        faults.append("not white")
    return faults


def correlated(steps):
    """Return which pairs of steps have noise that is not independent."""
    found = np.corrcoef(steps) - np.eye(len(steps)), np.corrcoef(np.abs(steps)) - np.eye(len(steps))
    return [pair for one in found for pair in np.argwhere(np.abs(one) > 5 / np.sqrt(steps.shape[1])).tolist()]


@pytest.mark.parametrize("customers", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_without_gradient_is_white_noise_of_the_stated_scale_on_every_coordinate(kind, customers):
    (noise,) = changes(kind, seeded(), customers=customers)
    assert noise_faults(noise) == []
    table, layer = noise[: ROWS * WIDTH], noise[ROWS * WIDTH :]
    assert noise_faults(table) == noise_faults(layer) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_of_each_step_is_independent_of_every_other(kind):
    steps = changes(kind, seeded(), STEPS)
    assert correlated(steps) == []
    for step in steps:
        assert noise_faults(step) == []
    assert noise_faults(steps.sum(axis=0), SCALE * np.sqrt(STEPS)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_noise_comes_from_the_stream_and_from_nowhere_else(kind):
    first = changes(kind, seeded())
    with torch.random.fork_rng():
        torch.manual_seed(7)
        assert (changes(kind, seeded()) == first).all()
        torch.manual_seed(7)
        assert (changes(kind, OsSource().stream("a")) != first).any()


def test_the_default_source_is_the_operating_systems():
    first, second = changes(BookkeepingSGD, None), changes(BookkeepingSGD, None)
    assert correlated(np.concatenate([first, second])) == []
    assert noise_faults(first[0], level=1e-9) == []


# --- planted faults -------------------------------------------------------------------------------------


class Halved(BookkeepingSGD):
    """Half the noise."""

    @property
    def gradient_multiplier(self):
        return 0.5 * self.noise_multiplier


class Slightly(BookkeepingSGD):
    """Noise 2 % too small."""

    @property
    def gradient_multiplier(self):
        return 0.98 * self.noise_multiplier


class WithoutTheClip(BookkeepingOptimizer):
    """Noise that forgets the clip."""

    @property
    def gradient_multiplier(self):
        return self.noise_multiplier / self.max_grad_norm


class OfTheSample(BookkeepingSGD):
    """Noise divided by the number of customers that there are."""

    @property
    def divisor(self):
        return 3.0


class Repeating(BookkeepingSGD):
    """The same noise at every step."""

    def step(self, closure=None):
        self.normals._stream = Stream(bytes(32))
        return super().step(closure)


class LayersOnly(BookkeepingSGD):
    """No noise on tables."""

    def release(self, parameter, target, scale):
        if hasattr(parameter, "table"):
            self.add_sum(parameter, target, scale)
        else:
            super().release(parameter, target, scale)


@pytest.mark.parametrize("faulty", [Halved, Slightly, WithoutTheClip, OfTheSample, LayersOnly])
def test_the_check_rejects_noise_of_another_scale(faulty):
    assert "variance" in noise_faults(changes(faulty, seeded())[0])


def test_the_check_rejects_noise_that_repeats():
    assert correlated(changes(Repeating, seeded(), STEPS))
