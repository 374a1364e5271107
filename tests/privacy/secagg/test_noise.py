"""Noise of a secure sum against the exact law: its tables, its convolution, its draws; wrong ones are shown to fail."""

import ast
import bisect
import inspect
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy.signal import fftconvolve
from scipy.stats import chi2, norm

from coterie.privacy.randomness import OsSource, SeededSource, Stream
from coterie.privacy.secagg import noise
from coterie.privacy.secagg.noise import GREATEST_SCALE, LEAST_SCALE, discrete_gaussians

# One base draw; two; three, four and five; and the scales at which one more becomes necessary.
SINGLE = [64, 65, 777, 1100]
CONVOLVED = [1101, 5000, 16384, 100_003, 10**7, 2**30, 2**40]
SCALES = SINGLE + CONVOLVED
DRAWS = 200_000


class Forged(Stream):
    """A stream that says what it is told, then nothing."""

    def __init__(self, *words):
        self.words = list(words)

    def bits(self, count):
        said = b"".join(word.to_bytes(8, "little") for word in self.words[: count // 8])
        assert len(said) == count, "more randomness was asked for than the draw needs"
        del self.words[: count // 8]
        return said


def draw(scale, count=DRAWS, label="noise"):
    return discrete_gaussians(scale, count, SeededSource(b"secagg").stream(label))


def base_variance(scale):
    """The variance that a base must have for the whole to have scale^2, by solving for it."""
    terms, factor = noise._base_of(scale)[3:]
    return Fraction(scale**2) / sum(Fraction(factor) ** (2 * i) for i in range(terms))


def cell_probabilities(scale, edges):
    """P(edges[i] < x <= edges[i + 1]) of the discrete Gaussian: sums of its pmf, or the midpoint rule for wide ones."""
    if scale > 20_000:
        return np.diff(norm.cdf((edges + 0.5) / scale))
    reach = int(15 * scale)
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    cumulative = np.cumsum(np.exp(-(x**2) / (2.0 * scale**2)))
    cumulative /= cumulative[-1]
    return np.diff(cumulative[np.clip(edges + reach, 0, len(x) - 1).astype(np.int64)])


def p_value(draws, scale, cells=120):
    """Pearson's chi-square of draws against the discrete Gaussian, in cells over four scales and two for the tails."""
    inner = np.unique(np.linspace(-4 * scale, 4 * scale, cells + 1).astype(np.int64))
    edges = np.concatenate(([-int(15 * scale)], inner, [int(15 * scale)]))
    expected = cell_probabilities(scale, edges) * len(draws)
    observed = np.histogram(draws, bins=edges + 0.5)[0]
    if observed.sum() != len(draws):
        return 0.0
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


def residues_p_value(draws, modulus):
    observed = np.bincount(draws % modulus, minlength=modulus)
    expected = len(draws) / modulus
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), modulus - 1))


# --- tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [64, 1000, 1101, 16384, 160_000])
def test_every_threshold_is_the_exact_probability_rounded_down(scale):
    base = noise._base_of(scale)
    with mpmath.workdps(90):
        variance = mpmath.mpf(base_variance(scale).numerator) / base_variance(scale).denominator
        whole = mpmath.jtheta(3, 0, mpmath.exp(-1 / (2 * variance)))  # the sum over all integers
        cumulative, unit = mpmath.mpf(0), mpmath.mpf(2) ** -127
        for m, (high, low) in enumerate(zip(base.high.tolist(), base.low.tolist(), strict=True)):
            cumulative += (1 if m == 0 else 2) * mpmath.exp(-(m**2) / (2 * variance)) / whole
            made = mpmath.mpf((high << 64) | low) * unit
            assert -unit < made - cumulative < mpmath.mpf(2) ** -139
        assert 1 - cumulative < mpmath.mpf(2) ** -139


def test_a_table_spans_fourteen_scales_and_stays_small():
    for scale in SCALES:
        base, variance = noise._base_of(scale), base_variance(scale)
        assert len(base.high) ** 2 >= 14**2 * variance
        assert len(base.high) <= 15_500
        assert np.all(base.high[:-1] <= base.high[1:])
        assert not any(array.flags.writeable for array in base[:3])


@pytest.mark.parametrize("scale", [64, 1100, 16384])
def test_the_guide_settles_exactly_what_it_may(scale):
    base = noise._base_of(scale)
    thresholds = [(int(h) << 64) | int(lo) for h, lo in zip(base.high, base.low, strict=True)]
    for prefix, settled in enumerate(base.guide.tolist()):
        least = bisect.bisect_right(thresholds, prefix << 111)
        greatest = bisect.bisect_right(thresholds, ((prefix + 1) << 111) - 1)
        assert settled == least if settled >= 0 else least <= greatest
        assert settled < 0 or least == greatest
    assert (base.guide >= 0).mean() > 0.9


# --- the convolution --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", CONVOLVED)
def test_a_convolution_is_the_discrete_gaussian_within_one_part_in_1e300_everywhere(scale):
    terms, factor = noise._base_of(scale)[3:]
    v = base_variance(scale)
    with mpmath.workdps(380):
        w = v
        for _ in range(terms - 1):
            total = v + factor**2 * w
            ratios = [_convolved_ratio(x, factor, v, w) for x in (0, 1, factor // 2, _root(total), 13 * _root(total))]
            assert max(abs(ratio / ratios[0] - 1) for ratio in ratios) < mpmath.mpf(10) ** -300
            w = total
    assert w == scale**2


def _root(value):
    return int(mpmath.sqrt(mpmath.mpf(value.numerator) / value.denominator))


def _convolved_ratio(x, factor, v, w):
    """The weight that y + factor * z gives to x, summed over z, over exp(-x^2 / (2 (v + factor^2 w)))."""
    centre = round(Fraction(x * factor) * w / (v + factor**2 * w))
    reach = 60 * (_root(1 / (1 / Fraction(w) + factor**2 / Fraction(v))) + 1)
    weights = []
    for b in range(centre - reach, centre + reach + 1):
        exponent = Fraction((x - factor * b) ** 2) / v + Fraction(b * b) / w
        weights.append(mpmath.exp(mpmath.mpf(-exponent.numerator) / (2 * exponent.denominator)))
    exact = Fraction(x * x) / (v + factor**2 * w)
    return mpmath.fsum(weights) / mpmath.exp(mpmath.mpf(-exact.numerator) / (2 * exact.denominator))


@pytest.mark.parametrize("scale", [1101, 5000, 16384, 250_000])
def test_the_tables_law_carried_through_the_convolution_is_the_exact_pmf(scale):
    base = noise._base_of(scale)
    cumulative = np.append(base.high.astype(np.float64) * 2.0**-63, 1.0)
    half = np.diff(cumulative) / 2
    one = np.concatenate((half[::-1], cumulative[:1], half))
    law = one
    for _ in range(base.terms - 1):
        spread = np.zeros((len(law) - 1) * base.factor + 1)
        spread[:: base.factor] = law
        law = fftconvolve(spread, one)
    x = np.arange(len(law), dtype=np.float64) - len(law) // 2
    exact = np.exp(-(x**2) / (2.0 * scale**2))
    assert np.abs(law - exact / exact.sum()).sum() < 1e-10


def test_no_more_base_draws_are_made_than_needed():
    assert [noise._base_of(scale).terms for scale in SCALES] == [1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5]


# --- draws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_draws_follow_the_exact_law(scale):
    draws = draw(scale)
    assert p_value(draws, scale) > 1e-3
    assert abs(draws.var() / scale**2 - 1) < 4.5 * np.sqrt(2 / DRAWS)
    assert abs(draws.mean()) < 4.5 * scale / np.sqrt(DRAWS)


@pytest.mark.parametrize("scale", [64, 200])
def test_draws_follow_the_exact_law_integer_by_integer(scale):
    x = np.arange(-4 * scale, 4 * scale + 1)
    assert p_value(draw(scale, 10 * DRAWS), scale, cells=len(x) - 1) > 1e-3


@pytest.mark.parametrize("scale", CONVOLVED)
def test_every_residue_is_as_likely(scale):
    draws = draw(scale)
    for modulus in {2, 3, 7, noise._base_of(scale).factor, noise._base_of(scale).factor + 1}:
        assert residues_p_value(draws, modulus) > 1e-4


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("factor", [0.5, 0.97, 1.03, 2])
def test_the_check_rejects_another_scale(scale, factor):
    assert p_value(draw(scale), round(scale * factor)) < 1e-6


@pytest.mark.parametrize("scale", CONVOLVED)
def test_the_checks_reject_a_dropped_term_and_another_factor(scale, monkeypatch):
    base = noise._base_of(scale)
    monkeypatch.setattr(noise, "_base_of", lambda scale: base._replace(terms=base.terms - 1))
    assert p_value(draw(scale), scale) < 1e-6
    assert residues_p_value(draw(scale) * base.factor, base.factor) < 1e-6
    monkeypatch.setattr(noise, "_base_of", lambda scale: base._replace(factor=base.factor * 9 // 10))
    assert p_value(draw(scale), scale) < 1e-6


def test_the_checks_reject_noise_that_is_shifted_one_sided_or_all_even():
    assert p_value(draw(64) + 2, 64) < 1e-6
    assert p_value(np.abs(draw(64)), 64) < 1e-6
    assert residues_p_value(2 * draw(64), 2) < 1e-6


def test_draws_of_the_operating_systems_source_follow_the_law_too():
    assert p_value(discrete_gaussians(16384, DRAWS, OsSource().stream("noise")), 16384) > 1e-9


@pytest.mark.parametrize("scale", [64, 16384, 10**7])
@pytest.mark.parametrize("shares", [2, 5])
def test_a_sum_of_shares_has_their_variances_sum_and_the_law_of_one_of_that_scale(scale, shares):
    total = sum(draw(scale, label=f"partner {i}") for i in range(shares))
    assert abs(total.var() / (shares * scale**2) - 1) < 4.5 * np.sqrt(2 / DRAWS)
    assert p_value(total, scale * np.sqrt(shares)) > 1e-3
    without_one = sum(draw(scale, label=f"partner {i}") for i in range(shares - 1))
    assert p_value(without_one, scale * np.sqrt(shares)) < 1e-6


@pytest.mark.parametrize("scale", [64, 16384, 10**7])
def test_draws_are_independent_of_their_neighbours_within_and_across_chunks(scale):
    draws = draw(scale) / scale
    for lag in (1, 2, 3, noise._CHUNK - 1, noise._CHUNK, noise._CHUNK + 1):
        assert abs((draws[lag:] * draws[:-lag]).mean()) < 4.5 / np.sqrt(DRAWS - lag)


# --- bits to draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [64, 1100])
def test_a_uniform_at_a_threshold_belongs_to_the_next_magnitude_also_in_the_far_tail(scale):
    base = noise._base_of(scale)
    thresholds = [(int(h) << 64) | int(lo) for h, lo in zip(base.high, base.low, strict=True)]
    for m in {0, 1, scale // 2, scale, 5 * scale, 9 * scale, 10 * scale, 12 * scale}:
        for uniform in (thresholds[m] - 1, thresholds[m]):
            expected = bisect.bisect_right(thresholds, uniform)
            assert expected == (m if uniform < thresholds[m] else m + 1)
            for sign in (0, 1):
                words = [(uniform >> 64) << 1 | sign]
                tied = uniform >> 64 in {t >> 64 for t in thresholds}
                stream = Forged(*words, *([uniform & (2**64 - 1)] if tied else []))
                assert discrete_gaussians(scale, 1, stream).tolist() == [-expected if sign else expected]
                assert not stream.words


def test_the_extremes_of_a_word_are_nought_and_the_deepest_tail():
    ones = 2**64 - 1
    assert discrete_gaussians(64, 2, Forged(0, 1)).tolist() == [0, 0]
    deepest = discrete_gaussians(64, 2, Forged(ones, ones - 1, ones, ones))
    assert deepest[0] == -deepest[1]
    assert deepest[1] >= 13 * 64  # 2^-127 of the mass lies beyond 13 scales


def test_the_last_bit_of_a_word_is_the_sign_and_nothing_else():
    words = [int(w) for w in np.frombuffer(SeededSource(b"sign").stream("").bits(8 * 2000), dtype="<u8")]
    up = discrete_gaussians(1100, 2000, Forged(*(w & ~1 for w in words)))
    down = discrete_gaussians(1100, 2000, Forged(*(w | 1 for w in words)))
    assert up.min() == 0
    assert np.array_equal(up, -down)


@pytest.mark.parametrize("scale", [64, 16384, 10**7])
def test_draws_are_those_of_a_slow_reading_of_the_description(scale):
    count = 2**15 + 50  # a chunk, and a part of one: another size would make other draws of a stream
    base, stream = noise._base_of(scale), SeededSource(b"slow").stream("noise")
    with mpmath.workdps(60):
        variance = mpmath.mpf(base_variance(scale).numerator) / base_variance(scale).denominator
        weights = [(2 if m else 1) * mpmath.exp(-(m**2) / (2 * variance)) for m in range(len(base.high))]
        whole, running, places = mpmath.sqrt(2 * mpmath.pi * variance), mpmath.mpf(0), []
        for weight in weights:
            running += weight
            places.append(int(mpmath.floor(running / whole * 2**63)))
    expected = []
    for size in (2**15, 50):
        part = [0] * size
        for _ in range(base.terms):
            for i in range(size):
                word = int.from_bytes(stream.bits(8), "little")
                magnitude = bisect.bisect_right(places, word >> 1)
                part[i] = base.factor * part[i] + (-magnitude if word & 1 else magnitude)
        expected += part
    assert discrete_gaussians(scale, count, SeededSource(b"slow").stream("noise")).tolist() == expected


def test_draws_depend_on_the_stream_alone_and_a_stream_goes_on():
    first, again, other = draw(5000, 1000), draw(5000, 1000), draw(5000, 1000, "other")
    assert np.array_equal(first, again)
    assert (first == other).mean() < 0.01
    stream = SeededSource(b"secagg").stream("noise")
    assert np.array_equal(discrete_gaussians(5000, 1000, stream), first)
    assert (discrete_gaussians(5000, 1000, stream) == first).mean() < 0.01


def test_draws_are_whole_numbers_in_the_asked_count():
    for count in (0, 1, 7, noise._CHUNK, noise._CHUNK + 1):
        draws = draw(1500, count)
        assert draws.dtype == np.int64
        assert draws.shape == (count,)


@pytest.mark.parametrize(
    ("scale", "count"), [(LEAST_SCALE - 1, 1), (0, 1), (-64, 1), (GREATEST_SCALE + 1, 1), (64, -1)]
)
def test_what_is_out_of_range_is_refused(scale, count):
    with pytest.raises(ValueError, match=r"discrete Gaussian|count"):
        discrete_gaussians(scale, count, SeededSource(b"").stream(""))


def test_no_floating_point_decides_a_draw(monkeypatch):
    def forbidden(self, count):
        raise AssertionError("float randomness was used")

    monkeypatch.setattr(Stream, "uniforms", forbidden)
    monkeypatch.setattr(Stream, "normals", forbidden)
    assert len(draw(5000, 50)) == 50
    tree = ast.parse(inspect.getsource(noise))
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert not [node.value for node in constants if isinstance(node.value, float)]
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"float64", "float32", "exp", "sqrt", "log"}
    divisions = [ast.unparse(node) for node in ast.walk(tree) if isinstance(getattr(node, "op", None), ast.Div)]
    assert divisions == ["1 / (2 * variance)"]  # a fraction's
