"""Float32 and float64 noise: its law, its tails, its independence, and where it comes from."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2, kstest, norm

from coterie.privacy.randomness import OsSource, SeededSource, Stream
from coterie.privacy.training import normals as module
from coterie.privacy.training.normals import CHUNK, Normals

COUNT = 2 * CHUNK + 1001


@pytest.fixture(autouse=True)
def all_in_float32(monkeypatch):
    """Let small tensors be drawn as large ones are, but where a test says otherwise."""
    monkeypatch.setattr(module, "SMALL", 0)


def drawn(count=COUNT, dtype=torch.float32, stream=None, scale=1.0):
    target = torch.zeros(count, dtype=dtype)
    Normals(stream or SeededSource(b"normals").stream("test")).add_to(target, scale)
    return target.double().numpy()


def faults(z, level=1e-4):
    """Return how draws differ from independent standard normals."""
    found, n = [], len(z)
    square = (z**2).sum()
    if min(chi2.cdf(square, n), chi2.sf(square, n)) < level:
        found.append("variance")
    if abs(z.sum()) / np.sqrt(n) > 5:
        found.append("mean")
    if kstest(z, "norm").pvalue < level:
        found.append("shape")
    if any(abs((z[lag:] * z[:-lag]).sum()) / np.sqrt(n - lag) > 5 for lag in (1, 2, n // 3, CHUNK)):
        found.append("not white")
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_independent_standard_normals(dtype):
    assert faults(drawn(dtype=dtype)) == []


def test_draws_of_the_operating_systems_source_are_too():
    assert faults(drawn(stream=OsSource().stream("a")), level=1e-9) == []


@pytest.mark.parametrize("bound", [2.0, 3.0, 3.2, 4.0, 4.5])
def test_tails_have_the_mass_of_a_normals_tails(bound):
    z = drawn(8 * CHUNK)
    for side in (z, -z):
        expected = len(z) * norm.sf(bound)
        assert abs((side > bound).sum() - expected) < 5 * np.sqrt(expected) + 1


def words_of(monkeypatch, words, uniforms=None):
    """Let a stream give these words as bits, and these uniforms; without uniforms no draw is one of the tails."""
    monkeypatch.setattr(Stream, "bits", lambda self, count: np.asarray(words, dtype=np.int32).tobytes())
    monkeypatch.setattr(Normals, "coins", lambda self, count, _: torch.arange(0 if uniforms is None else count))
    monkeypatch.setattr(Stream, "uniforms", lambda self, count: np.asarray(uniforms or [], dtype=np.float64))


def test_a_draw_is_the_quantile_of_its_word(monkeypatch):
    words = np.concatenate([np.linspace(-(2**31), 2**31 - 1, 4001), [-1, 0, 1]]).astype(np.int64)
    words_of(monkeypatch, words)
    expected = norm.ppf(0.5 + words * (1 - 2.0**-8) * 2.0**-32)
    np.testing.assert_allclose(drawn(len(words)), expected, rtol=1e-5, atol=1e-7)
    assert np.abs(expected).max() == pytest.approx(norm.isf(2.0**-9))  # where the tails begin


def test_a_draw_of_the_tails_is_the_quantile_of_its_uniform(monkeypatch):
    uniforms = [0.0, 0.1, 0.25, 0.5 - 2.0**-30, 0.5 + 2.0**-30, 0.9, 1 - 2.0**-53]
    words_of(monkeypatch, [0] * len(uniforms), uniforms)
    place = 2 * np.array(uniforms) - 1
    expected = np.sign(place) * norm.isf(2.0**-9 * np.abs(place))
    np.testing.assert_allclose(drawn(len(uniforms)), expected, rtol=1e-6)


def test_tails_reach_beyond_what_one_word_can_tell(monkeypatch):
    words_of(monkeypatch, [0, 0], [0.5, 0.5 - 2.0**-54])
    found = drawn(2)
    assert found[0] > 8.1
    assert found[1] < -8.1
    assert np.isfinite(found).all()


def test_neighbouring_draws_lie_closer_than_the_docstring_says(monkeypatch):
    inner = 2**31 - np.arange(1, 2000)
    words_of(monkeypatch, inner)
    steps = np.diff(np.unique(drawn(len(inner))))
    assert 0 < steps.max() < 1e-5


def test_rows_have_their_own_deviations_whatever_their_number():
    for count, dtype in ((5_000, torch.float32), (60_000, torch.float32), (5_000, torch.float64)):
        deviations = torch.rand(count, dtype=torch.float64) + 0.5
        rows = Normals(SeededSource(b"rows").stream("a")).rows(deviations, torch.zeros(1, 8, dtype=dtype))
        assert rows.dtype == dtype
        assert faults((rows.double() / deviations[:, None]).flatten().numpy()) == []


def test_noise_is_added_at_its_scale_to_what_is_there():
    target = torch.full((1000,), 3.0)
    Normals(SeededSource(b"normals").stream("test")).add_to(target, 0.25)
    np.testing.assert_allclose(target.numpy(), 3.0 + 0.25 * drawn(1000), rtol=1e-5)


def test_a_tensor_that_is_not_contiguous_gets_noise_in_every_coordinate():
    target = torch.zeros(300, 500).T
    Normals(SeededSource(b"normals").stream("test")).add_to(target, 1.0)
    assert faults(target.flatten().double().numpy()) == []


def test_small_tensors_get_the_streams_own_normals(monkeypatch):
    monkeypatch.setattr(module, "SMALL", 2**13)
    expected = SeededSource(b"normals").stream("test").normals(2**13 - 1).astype(np.float32)
    np.testing.assert_array_equal(drawn(2**13 - 1), expected)
    assert (drawn(2**13)[:9] != expected[:9]).all()


def test_no_scale_means_no_noise_and_no_draw():
    stream = SeededSource(b"normals").stream("test")
    assert not drawn(100, stream=stream, scale=0.0).any()
    assert stream.bits(16) == SeededSource(b"normals").stream("test").bits(16)


@pytest.mark.parametrize("factor", [0.98, 1.02, 0.5])
def test_the_check_rejects_noise_of_another_scale(factor):
    assert "variance" in faults(drawn(scale=factor))


@pytest.mark.parametrize("share", [2.0, 0.5])
def test_the_check_rejects_tails_that_are_drawn_too_often_or_too_seldom(monkeypatch, share):
    real = Normals.coins
    monkeypatch.setattr(Normals, "coins", lambda self, count, chance: real(self, count, share * chance))
    assert "variance" in faults(drawn())


def test_the_check_rejects_a_chunk_that_is_used_twice(monkeypatch):
    monkeypatch.setattr(Stream, "bits", lambda self, count: Stream(bytes(32))._keystream.update(bytes(count)))
    assert "not white" in faults(drawn())


# --- coins ----------------------------------------------------------------------------------------------


def unlikely(successes, trials, probability, level=1e-5):
    return min(binom.cdf(successes, trials, probability), binom.sf(successes - 1, trials, probability)) < level


def test_coins_fall_independently_at_every_place():
    noise = Normals(SeededSource(b"coins").stream("test"))
    for probability in (0.2, 0.03, 0.001):
        tosses = [noise.coins(1_000, probability) for _ in range(400)]
        places = torch.cat(tosses)
        assert not unlikely(len(places), 400_000, probability)
        score = torch.bincount(places // 100, minlength=10).double()
        expected = 40_000 * probability
        assert chi2.sf(float(((score - expected) ** 2 / expected).sum()), 9) > 1e-5
        assert all(len(torch.unique(toss)) == len(toss) for toss in tosses)
    assert len(noise.coins(1_000, 0.0)) == 0
    assert len(noise.coins(1_000, 1.0)) == 1_000
