"""Streams against NIST's AES vectors and the distributions that they promise."""

import os
import random

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.stats import binom, chi2, kstest, kurtosis

from coterie.privacy.randomness import OsSource, SeededSource, Stream

NIST_KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")


def keystream(key, first_counter, blocks):
    """Counter mode by hand (NIST SP 800-38A section 6.5): each block is the cipher of a counter."""
    cipher = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305 - an oracle
    return b"".join(cipher.update(((first_counter + i) % 2**128).to_bytes(16, "big")) for i in range(blocks))


class Fixed(Stream):
    """A stream whose bits are given."""

    def __init__(self, byte):
        self._byte = byte

    def bits(self, count):
        return bytes([self._byte]) * count


# --- the cipher -----------------------------------------------------------------------------------------


def test_the_hand_made_counter_mode_keeps_the_nist_vectors():
    # SP 800-38A, F.5.5 CTR-AES256.Encrypt.
    counter = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    stream = keystream(NIST_KEY, counter, 4)
    assert bytes(a ^ b for a, b in zip(plain, stream, strict=True)) == cipher


@pytest.mark.parametrize("key", [NIST_KEY, bytes(32), bytes(range(32))])
def test_a_stream_is_aes_256_in_counter_mode_from_zero(key):
    assert Stream(key).bits(16 * 300) == keystream(key, 0, 300)


def test_a_stream_goes_on_where_it_stopped():
    pieces, stream = [1, 15, 16, 0, 33, 7], Stream(NIST_KEY)
    assert b"".join(stream.bits(count) for count in pieces) == keystream(NIST_KEY, 0, 5)[: sum(pieces)]


# --- uniforms and normals -------------------------------------------------------------------------------


def test_uniforms_are_the_upper_53_bits_of_each_word():
    raw = keystream(NIST_KEY, 0, 500)
    expected = [(int.from_bytes(raw[i : i + 8], "little") >> 11) / 2**53 for i in range(0, len(raw), 8)]
    assert Stream(NIST_KEY).uniforms(1000).tolist() == expected


@pytest.mark.parametrize("stream", [Stream(NIST_KEY), SeededSource(b"a").stream("b")])
def test_uniforms_are_uniform_down_to_their_last_bit(stream):
    values = stream.uniforms(200_000)
    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert kstest(values, "uniform").pvalue > 1e-3
    words = (values * 2.0**53).astype(np.uint64)
    for bit in range(53):
        ones = int(((words >> np.uint64(bit)) & np.uint64(1)).sum())
        assert abs(ones - 100_000) < 5 * np.sqrt(50_000)


def test_normals_are_standard_normal_with_tails():
    values = Stream(NIST_KEY).normals(2_000_000)
    assert kstest(values[:200_000], "norm").pvalue > 1e-3
    assert abs(values.mean()) < 5 / np.sqrt(len(values))
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / len(values))
    assert abs(kurtosis(values)) < 5 * np.sqrt(24 / len(values))
    for sigmas, tail in ((3, 2.6998e-3), (4, 6.3342e-5), (4.5, 6.7953e-6)):
        beyond = int((np.abs(values) > sigmas).sum())
        assert binom.cdf(beyond, len(values), tail) > 1e-5
        assert binom.sf(beyond - 1, len(values), tail) > 1e-5


def test_the_two_halves_of_a_pair_are_independent():
    first, second = np.split(Stream(NIST_KEY).normals(400_000), 2)
    for a, b in ((first, second), (first**2 - 1, second**2 - 1), (np.abs(first), second)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))


def test_normals_come_in_any_count():
    for count in (0, 1, 2, 3, 7, 10):
        assert Stream(NIST_KEY).normals(count).shape == (count,)


def test_extreme_bits_give_finite_normals_that_reach_beyond_eight_sigmas():
    most, least = Fixed(0xFF).normals(4), Fixed(0x00).normals(4)
    assert np.isfinite(most).all()
    assert 8.5 < np.abs(most).max() < 8.6
    assert (least == 0).all()


# --- whole numbers --------------------------------------------------------------------------------------


def whole_p_value(draws, bound):
    counts = np.bincount(draws, minlength=bound)
    if len(counts) > bound:
        return 0.0
    expected = len(draws) / bound
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), bound - 1)) if bound > 1 else 1.0


@pytest.mark.parametrize("bound", [2, 3, 10, 200, 255, 256, 257, 1000])
def test_whole_numbers_below_a_bound_are_uniform(bound):
    stream = Stream(NIST_KEY)
    draws = [stream.below(bound) for _ in range(40_000)]
    assert min(draws) >= 0
    assert whole_p_value(draws, bound) > 1e-3


def test_the_check_rejects_a_modulus_without_rejection():
    biased = [byte % 200 for byte in Stream(NIST_KEY).bits(40_000)]
    assert whole_p_value(biased, 200) < 1e-6


def test_whole_numbers_below_large_bounds_fill_them():
    stream, bound = Stream(NIST_KEY), 3 * 2**100
    draws = [stream.below(bound) for _ in range(2000)]
    thirds = np.bincount([draw // 2**100 for draw in draws], minlength=3)
    assert whole_p_value(np.repeat(np.arange(3), thirds), 3) > 1e-3
    assert Stream(NIST_KEY).below(1) == 0


# --- sources --------------------------------------------------------------------------------------------


def test_every_stream_of_the_operating_system_has_its_own_key(monkeypatch):
    asked = []
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or real(count))
    source = OsSource()
    streams = {source.stream("same").bits(32) for _ in range(50)}
    assert len(streams) == 50
    assert asked == [32] * 50
    assert source.name == "os"


def test_no_global_generator_is_touched_or_listened_to():
    def draw(source):
        stream = source.stream("noise")
        return stream.bits(16), stream.uniforms(4).tolist(), stream.normals(4).tolist(), stream.below(10**9)

    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    draw(OsSource())
    draw(SeededSource(b"seed"))
    after = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after
    drawn = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            drawn.append(draw(OsSource()))
    assert drawn[0] != drawn[1]


def test_a_seeded_source_repeats_itself_by_seed_and_label():
    first = SeededSource(b"seed").stream("label").bits(64)
    assert SeededSource(b"seed").stream("label").bits(64) == first
    others = {SeededSource(b"seed").stream("other").bits(64), SeededSource(b"deed").stream("label").bits(64)}
    assert len({first, *others}) == 3


def test_a_seeded_source_says_what_it_is():
    assert SeededSource(b"").name != OsSource.name
