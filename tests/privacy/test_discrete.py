"""Discrete Gaussian noise against its pmf, with checks that are shown to reject wrong noise."""

import numpy as np
import pytest
from scipy.stats import chi2

from coterie.privacy import discrete
from coterie.privacy.discrete import discrete_gaussians
from coterie.privacy.randomness import OsSource, SeededSource, Stream

SIGMAS = [0.3, 1.0, 5.28, 40.0]
DRAWS = 5000


def p_value(draws, sigma):
    """Pearson's chi-square of integer draws against exp(-x^2 / (2 sigma^2)), cells of five or more expected."""
    reach = int(12 * sigma) + 6
    x = np.arange(-reach, reach + 1)
    pmf = np.exp(-(x**2) / (2 * sigma**2))
    pmf /= pmf.sum()
    seen = np.array([(draws == value).sum() for value in x])
    if seen.sum() != len(draws):
        return 0.0
    wide = max(1, int(sigma / 4))
    edges = np.arange(0, len(x), wide)
    expected, observed = np.add.reduceat(pmf, edges) * len(draws), np.add.reduceat(seen, edges)
    common = expected >= 5
    expected = np.append(expected[common], expected[~common].sum())
    observed = np.append(observed[common], observed[~common].sum())
    if expected[-1] < 1e-9:
        return 0.0 if observed[-1] else p_value_of(expected[:-1], observed[:-1])
    return p_value_of(expected, observed)


def p_value_of(expected, observed):
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


def draw(sigma, count=DRAWS, label="noise"):
    return discrete_gaussians(sigma, count, SeededSource(b"discrete").stream(label))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_draws_follow_the_pmf(sigma):
    assert p_value(draw(sigma), sigma) > 1e-3


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("factor", [0.5, 0.9])
def test_the_check_rejects_noise_of_another_scale(sigma, factor):
    wrong = round(sigma * factor, 3)
    assert p_value(draw(wrong), sigma) < 1e-4


@pytest.mark.parametrize("sigma", [1.0, 5.28])
def test_the_check_rejects_rounded_continuous_noise_shifted_and_one_sided_noise(sigma):
    rounded = np.floor(sigma * SeededSource(b"x").stream("").normals(DRAWS)).astype(np.int64)
    assert p_value(rounded, sigma) < 1e-6
    assert p_value(draw(sigma) + 1, sigma) < 1e-6
    assert p_value(np.abs(draw(sigma)), sigma) < 1e-6


def test_the_check_rejects_a_laplace_without_its_second_coin(monkeypatch):
    monkeypatch.setattr(
        discrete,
        "_discrete_gaussian",
        lambda variance, stream: discrete._discrete_laplace(discrete._floor_sqrt(variance) + 1, stream),
    )
    assert p_value(draw(5.28), 5.28) < 1e-6


def test_draws_of_the_operating_systems_source_follow_the_pmf_too():
    assert p_value(discrete_gaussians(5.28, DRAWS, OsSource().stream("noise")), 5.28) > 1e-9


def test_consecutive_draws_are_independent():
    draws = draw(5.28) / 5.28
    for lag in (1, 2, 3):
        assert abs((draws[lag:] * draws[:-lag]).mean()) < 5 / np.sqrt(DRAWS)


def test_the_scale_is_exact_to_a_thousandth():
    # A scale that was rounded to whole numbers, or to hundredths, would give the same draws.
    near = [draw(sigma, 3000).tolist() for sigma in (1.0, 1.4, 0.304, 0.3)]
    assert len({tuple(draws) for draws in near}) == 4


def test_draws_are_whole_numbers_in_the_asked_count():
    draws = draw(3.0, 7)
    assert draws.dtype == np.int64
    assert draws.shape == (7,)
    assert draw(3.0, 0).shape == (0,)


@pytest.mark.parametrize("gamma", ["0", "1/7", "1/2", "1", "3/2", "7/3", "5"])
def test_a_coin_of_probability_exp_minus_gamma_is_fair_to_it(gamma):
    from fractions import Fraction

    stream, tosses = SeededSource(b"coin").stream(gamma), 8000
    heads = sum(discrete._bernoulli_exp(Fraction(gamma), stream) for _ in range(tosses))
    p = float(np.exp(-float(Fraction(gamma))))
    assert abs(heads - tosses * p) <= 4.5 * np.sqrt(tosses * p * (1 - p))


@pytest.mark.parametrize(("value", "root"), [("0", 0), ("1/4", 0), ("1", 1), ("27/10", 1), ("4", 2), ("99/10", 3)])
def test_roots_are_floored_exactly(value, root):
    from fractions import Fraction

    assert discrete._floor_sqrt(Fraction(value)) == root
    big = Fraction(10**15) ** 2
    assert discrete._floor_sqrt(big) == 10**15
    assert discrete._floor_sqrt(big - Fraction(1, 10**6)) == 10**15 - 1


def test_no_floating_point_decides_a_draw(monkeypatch):
    def forbidden(self, count):
        raise AssertionError("float randomness was used")

    monkeypatch.setattr(Stream, "uniforms", forbidden)
    monkeypatch.setattr(Stream, "normals", forbidden)
    assert len(draw(5.28, 50)) == 50
