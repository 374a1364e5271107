"""Shamir's sharing against FIPS 197's examples, arithmetic on polynomials written as numbers, and SLIP-39's package."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shamir_mnemonic import shamir as slip39

from coterie.privacy.randomness import SeededSource
from coterie.privacy.secagg import shamir
from coterie.privacy.secagg.errors import Misuse
from coterie.privacy.secagg.shamir import join, split


def slow_product(a, b):
    """Multiply as polynomials over GF(2), then divide by x^8 + x^4 + x^3 + x + 1."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(15, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


def secrets_of(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8)


def shares_of(secrets, threshold, holders, seed=b"split"):
    return split(secrets, threshold=threshold, holders=holders, stream=SeededSource(seed).stream(""))


class Fixed:
    """A stream of which the test knows the bytes."""

    def __init__(self, data):
        self.data = data

    def bits(self, count):
        assert count == len(self.data)
        return self.data


@pytest.mark.parametrize(
    ("a", "b", "product"),
    # FIPS 197, sections 4.2 and 4.2.1: {57}{83} = {c1}, the powers of x times {57}, and {57}{13} = {fe}.
    [(0x57, 0x83, 0xC1), (0x57, 2, 0xAE), (0x57, 4, 0x47), (0x57, 8, 0x8E), (0x57, 0x10, 0x07), (0x57, 0x13, 0xFE)],
)
def test_products_are_those_of_fips_197(a, b, product):
    one, other = np.array([a], dtype=np.uint8), np.array([b], dtype=np.uint8)
    assert shamir._times(a, b) == shamir._times(b, a) == product
    assert shamir._product(one, other).tolist() == shamir._product(other, one).tolist() == [product]


def test_every_product_and_inverse_is_that_of_polynomials():
    everything = np.arange(256, dtype=np.uint8)
    table = shamir._product(everything.reshape(256, 1), everything.reshape(1, 256))
    slow = [[slow_product(a, b) for b in range(256)] for a in range(256)]
    assert table.tolist() == slow
    assert [[shamir._times(a, b) for b in range(256)] for a in range(256)] == slow
    assert all(slow_product(a, shamir._inverse(a)) == 1 for a in range(1, 256))


@pytest.mark.parametrize(("threshold", "holders"), [(1, 1), (1, 3), (2, 3), (3, 4), (7, 10), (16, 16)])
def test_the_published_package_joins_our_shares(threshold, holders):
    secrets = secrets_of(2)
    shares = shares_of(secrets, threshold, holders)
    for row in range(2):
        raw = [slip39.RawShare(place + 1, shares[place, row].tobytes()) for place in range(holders)]
        assert slip39._interpolate(raw[-threshold:], 0) == secrets[row].tobytes()


def test_we_join_the_published_packages_shares():
    # Its polynomial runs through the secret at 255; joined there by it, and at 0 by both, the same comes out.
    raw = slip39._split_secret(4, 6, bytes(range(32)))
    points = {share.x: np.frombuffer(share.data, np.uint8).reshape(1, 32) for share in raw if share.x}
    chosen = dict(list(points.items())[:4])
    at_zero = slip39._interpolate([share for share in raw if share.x in chosen], 0)
    assert join(chosen).tobytes() == at_zero == next(share.data for share in raw if share.x == 0)


def test_every_group_of_the_threshold_joins_and_no_smaller_one_does():
    secrets = secrets_of(3)
    shares = shares_of(secrets, 3, 5)
    for group in itertools.combinations(range(5), 3):
        assert (join({place + 1: shares[place] for place in group}) == secrets).all()
    for group in itertools.combinations(range(5), 2):
        assert (join({place + 1: shares[place] for place in group}) != secrets).mean() > 0.9


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 8), st.integers(0, 10**6), st.data())
def test_any_group_joins(threshold, spare, seed, data):
    secrets = secrets_of(2, seed)
    shares = shares_of(secrets, threshold, threshold + spare, str(seed).encode())
    group = data.draw(st.permutations(range(threshold + spare)))[:threshold]
    assert (join({place + 1: shares[place] for place in group}) == secrets).all()


def test_the_most_holders_are_255():
    secrets = secrets_of(1)
    shares = shares_of(secrets, 171, 255)
    assert (join({place + 1: shares[place] for place in range(84, 255)}) == secrets).all()


@pytest.mark.parametrize("secret", [0, 1, 0x80, 0xFF])
def test_one_share_below_the_threshold_takes_every_value_equally_often(secret):
    # Threshold 2: over all values of the one coefficient, a share is every byte once, whatever the secret is.
    secrets = np.full((8, 32), secret, dtype=np.uint8)
    shares = split(secrets, threshold=2, holders=255, stream=Fixed(bytes(range(256))))
    assert all(sorted(share.ravel().tolist()) == list(range(256)) for share in shares)


def test_two_shares_below_a_threshold_of_three_take_every_pair_equally_often():
    wanted = set(itertools.product(range(256), range(256)))
    pairs = set()
    # 65,536 pairs of coefficients: 2,048 rows of 32 bytes.
    low, high = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    secrets = np.full((2048, 32), 0x5A, dtype=np.uint8)
    shares = split(secrets, threshold=3, holders=3, stream=Fixed(high.tobytes() + low.tobytes()))
    pairs = set(zip(shares[0].ravel().tolist(), shares[2].ravel().tolist(), strict=True))
    assert pairs == wanted


def test_every_byte_has_coefficients_of_its_own():
    shares = shares_of(np.zeros((4, 32), dtype=np.uint8), 3, 3)
    assert len({tuple(column) for column in shares.reshape(3, -1).T.tolist()}) > 120


@pytest.mark.parametrize(("threshold", "holders"), [(0, 3), (4, 3), (2, 256)])
def test_what_the_field_cannot_serve_is_refused(threshold, holders):
    with pytest.raises(Misuse):
        shares_of(secrets_of(1), threshold, holders)


@pytest.mark.parametrize("points", [[], [0, 1, 2], [1, 2, 256]])
def test_points_outside_the_field_are_refused(points):
    with pytest.raises(Misuse):
        join({point: secrets_of(1) for point in points})
