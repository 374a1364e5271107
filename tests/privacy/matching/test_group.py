"""The group: vectors of RFC 9496 and RFC 9497, an independent implementation, and points that somebody made to harm."""

import ctypes
import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.privacy.matching import group, sodium
from coterie.privacy.matching.errors import GroupMissing, InvalidPoint, MatchFault
from coterie.privacy.matching.expansion import expander
from coterie.privacy.randomness import OsSource, SeededSource
from coterie.tests.privacy.matching import ristretto
from coterie.tests.privacy.matching.vectors import BAD, HOSTILE, LABELS, MULTIPLES, OPRF, VOPRF

GENERATOR = MULTIPLES[0]
SCALARS = st.integers(1, ristretto.L - 1)


def points(*hexes):
    return np.frombuffer(bytes.fromhex("".join(hexes)), dtype=np.uint8).reshape(-1, 32)


def scalar(number):
    return number.to_bytes(32, "little")


def rows(found):
    return [row.tobytes() for row in found]


def stream(name="test"):
    return SeededSource(b"group").stream(name)


# -- the vectors ------------------------------------------------------------------------------------------------------


def test_the_multiples_of_the_generator():
    found = [group.multiply(points(GENERATOR), scalar(number)).tobytes().hex() for number in range(1, 16)]
    assert found == MULTIPLES
    group.check_points(points(*MULTIPLES))


@pytest.mark.parametrize("bad", BAD + HOSTILE)
def test_bytes_that_are_no_point_are_refused_and_only_their_position_is_told(bad):
    """Each after two good ones, of which the second is not the first."""
    given = points(*MULTIPLES[:2], bad, BAD[0])
    for call in (lambda: group.check_points(given), lambda: group.multiply(given, scalar(5))):
        with pytest.raises(InvalidPoint, match="point 2: ") as caught:
            call()
        assert caught.value.index == 2
        assert bad not in str(caught.value)
        assert pickle.loads(pickle.dumps(caught.value)).index == 2  # noqa: S301 - made here


def test_what_is_refused_here_is_refused_by_the_formulas_too():
    assert all(ristretto.decode(bytes.fromhex(bad)) is None for bad in (*BAD, *HOSTILE[1:]))
    assert ristretto.decode(bytes.fromhex(HOSTILE[0])) == (0, 1), "the identity, which is a point but no match's"
    assert all(ristretto.decode(bytes.fromhex(good)) for good in MULTIPLES)


@pytest.mark.parametrize("label", LABELS)
def test_the_map_of_64_bytes(label):
    found = np.empty(32, dtype=np.uint8)
    uniform = hashlib.sha512(label.encode()).digest()
    sodium.sodium().map(found.ctypes.data, uniform)
    assert found.tobytes().hex() == LABELS[label]
    assert ristretto.derived(uniform).hex() == LABELS[label]


@pytest.mark.parametrize("vector", [OPRF, VOPRF], ids=["OPRF", "VOPRF"])
def test_the_blind_evaluation_of_rfc_9497(vector):
    """Blind, evaluate and finalize (section 3.3), composed from this module's functions."""
    mode, key, inputs, blinds, blinded, evaluated, outputs = vector
    tag = b"HashToGroup-OPRFV1-" + bytes([mode]) + b"-ristretto255-SHA512"
    hashed = group.hash_to_group([bytes.fromhex(text) for text in inputs], tag)
    sent = [group.multiply(hashed[i : i + 1], bytes.fromhex(blind)) for i, blind in enumerate(blinds)]
    assert [point.tobytes().hex() for point in sent] == list(blinded)
    answers = group.multiply(np.concatenate(sent), bytes.fromhex(key))
    assert [row.hex() for row in rows(answers)] == list(evaluated)
    for i, (text, blind) in enumerate(zip(inputs, blinds, strict=True)):
        element = group.multiply(answers[i : i + 1], group.inverse(bytes.fromhex(blind))).tobytes()
        asked = bytes.fromhex(text)
        whole = len(asked).to_bytes(2, "big") + asked + len(element).to_bytes(2, "big") + element + b"Finalize"
        assert hashlib.sha512(whole).hexdigest() == outputs[i]


@pytest.mark.parametrize("vector", [OPRF, VOPRF], ids=["OPRF", "VOPRF"])
def test_the_keys_of_rfc_9497_and_the_reduction_of_64_bytes(vector):
    """DeriveKeyPair (section 3.2.1): 64 bytes reduced as a random scalar's are."""

    class Fixed:
        def bits(self, count):
            assert count == 64
            tag = b"DeriveKeyPairOPRFV1-" + bytes([vector[0]]) + b"-ristretto255-SHA512"
            return expander(tag, 64)(b"\xa3" * 32 + b"\x00\x08test key\x00")

    assert group.random_scalar(Fixed()).hex() == vector[1]


# -- an independent implementation ------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(inputs=st.lists(st.binary(max_size=80), min_size=1, max_size=3), key=SCALARS)
def test_hash_and_product_are_those_of_the_formulas(inputs, key):
    hashed = group.hash_to_group(inputs, b"tag")
    expand = expander(b"tag", 64)
    assert rows(hashed) == [ristretto.derived(expand(text)) for text in inputs]
    product = [ristretto.encode(ristretto.times(key, ristretto.decode(row))) for row in rows(hashed)]
    assert rows(group.multiply(hashed, scalar(key))) == product


@settings(max_examples=200, deadline=None)
@given(data=st.binary(min_size=32, max_size=32), even=st.booleans())
def test_random_bytes_are_points_where_the_formulas_say_so(data, even):
    if even:  # more of them are points then
        data = bytes([data[0] & 0xFE]) + data[1:31] + bytes([data[31] & 0x7F])
    given = np.frombuffer(data, dtype=np.uint8).reshape(1, 32)
    if ristretto.decode(data) not in (None, (0, 1)):
        group.check_points(given)
        assert group.multiply(given, scalar(1)).tobytes() == data
    else:
        with pytest.raises(InvalidPoint):
            group.check_points(given)
        with pytest.raises(InvalidPoint):
            group.multiply(given, scalar(1))


# -- what a match rests on --------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(keys=st.lists(SCALARS, min_size=2, max_size=5), texts=st.lists(st.binary(), unique=True, max_size=8))
def test_partners_may_multiply_in_any_order(keys, texts):
    start = group.hash_to_group(texts, b"tag")
    one = other = start
    whole = scalar(1)
    for key in keys:
        one, whole = group.multiply(one, scalar(key)), group.product(whole, scalar(key))
    for key in reversed(keys):
        other = group.multiply(other, scalar(key))
    assert rows(one) == rows(other) == rows(group.multiply(start, whole))
    assert len(set(rows(one))) == len(texts)
    assert rows(group.multiply(one, group.inverse(whole))) == rows(start)


@settings(max_examples=50, deadline=None)
@given(a=SCALARS, b=SCALARS)
def test_scalars_are_numbers_modulo_the_order(a, b):
    assert group.product(scalar(a), scalar(b)) == scalar(a * b % ristretto.L)
    assert group.inverse(scalar(a)) == scalar(pow(a, -1, ristretto.L))
    assert ristretto.L == group.ORDER


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 511, 512, 1025])
@pytest.mark.parametrize("threads", [1, 2, 3, 7, 0])
def test_the_result_depends_on_neither_threads_nor_slices(count, threads):
    texts = [b"%d" % number for number in range(count)]
    key = scalar(12345)
    hashed = group.hash_to_group(texts, b"tag", threads=threads)
    assert hashed.shape == (count, 32)
    assert rows(hashed) == [group.hash_to_group([text], b"tag").tobytes() for text in texts]
    found = group.multiply(hashed, key, threads=threads)
    parts = [group.multiply(hashed[at : at + 64], key, threads=1) for at in range(0, count, 64)]
    assert rows(found) == [row for part in parts for row in rows(part)]
    group.check_points(found)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_first_of_several_bad_points_is_named_whatever_thread_finds_it(threads):
    found = group.random_points(3000, stream())
    found[[2999, 1700, 1200]] = 1  # odd, which no encoding is
    found[[1500, 2500]] = 0
    with pytest.raises(InvalidPoint) as caught:
        group.multiply(found, scalar(3), threads=threads)
    assert caught.value.index == 1200
    found[700] = 0
    with pytest.raises(InvalidPoint) as caught:
        group.check_points(found)
    assert caught.value.index == 700


def test_tags_keep_uses_apart():
    texts = [b"a", b"b"]
    assert not set(rows(group.hash_to_group(texts, b"email"))) & set(rows(group.hash_to_group(texts, b"phone")))


def test_points_may_lie_in_a_file(tmp_path):
    expected = group.multiply(points(*MULTIPLES), scalar(9))
    (tmp_path / "points").write_bytes(bytes.fromhex("".join(MULTIPLES)))
    mapped = np.memmap(tmp_path / "points", dtype=np.uint8, mode="r", shape=(15, 32))
    assert rows(group.multiply(mapped, scalar(9))) == rows(expected)
    assert rows(group.multiply(mapped[3:7], scalar(9))) == rows(expected[3:7])
    group.check_points(mapped)


# -- misuse -----------------------------------------------------------------------------------------------------------

ZEROS = np.zeros((4, 32), dtype=np.uint8)
LAYOUTS = {
    "31 bytes": ZEROS[:, :31].copy(),
    "33 bytes": np.zeros((4, 33), dtype=np.uint8),
    "one row": ZEROS[0],
    "three axes": ZEROS.reshape(1, 4, 32),
    "signed": ZEROS.astype(np.int8),
    "wide": np.zeros((4, 32), dtype=np.uint16),
    "every other row": ZEROS[::2],
    "by columns": np.asfortranarray(ZEROS),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_another_layout_is_refused(name):
    for call in (group.check_points, lambda given: group.multiply(given, scalar(2))):
        with pytest.raises(MatchFault, match=r"shape \(n, 32\)"):
            call(LAYOUTS[name])


BAD_SCALARS = {
    "zero": bytes(32),
    "the order": scalar(ristretto.L),
    "above it": scalar(ristretto.L + 1),
    "the highest bit": scalar(2**255 + 1),
    "all ones": b"\xff" * 32,
    "short": scalar(7)[:31],
    "long": scalar(7) + b"\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD_SCALARS)
def test_what_is_no_secret_scalar_is_refused(name):
    bad, good = BAD_SCALARS[name], scalar(7)
    for call in (
        lambda: group.check_scalar(bad),
        lambda: group.multiply(points(GENERATOR), bad),
        lambda: group.inverse(bad),
        lambda: group.product(bad, good),
        lambda: group.product(good, bad),
    ):
        with pytest.raises(MatchFault, match="a scalar must be 32 bytes"):
            call()


def test_the_least_and_the_greatest_scalar_are_taken():
    group.check_scalar(scalar(1))
    greatest = group.multiply(points(GENERATOR), scalar(ristretto.L - 1))
    x, y = ristretto.decode(bytes.fromhex(GENERATOR))
    assert greatest.tobytes() == ristretto.encode((-x % ristretto.P, y))


# -- randomness -------------------------------------------------------------------------------------------------------


def test_drawn_scalars_are_scalars_and_never_repeat():
    source = OsSource().stream("scalars")
    drawn = [group.random_scalar(source) for _ in range(200)]
    for each in drawn:
        group.check_scalar(each)
    assert len(set(drawn)) == 200


def test_a_scalar_of_zero_is_drawn_again():
    class Unlucky:
        draws = 0

        def bits(self, count):
            self.draws += 1
            return ristretto.L.to_bytes(64, "little") if self.draws == 1 else scalar(5) + bytes(count - 32)

    assert group.random_scalar(Unlucky()) == scalar(5)


def test_drawn_points_are_the_maps_of_the_streams_bytes(monkeypatch):
    found = group.random_points(130, stream())
    group.check_points(found)
    again = stream()
    assert rows(found[:3]) == [ristretto.derived(again.bits(64)) for _ in range(3)]
    assert len(set(rows(found))) == 130
    monkeypatch.setattr(group, "_BLOCK", 64)
    assert rows(group.random_points(130, stream())) == rows(found), "blocks change nothing"
    assert group.random_points(0, stream()).shape == (0, 32)


# -- the library ------------------------------------------------------------------------------------------------------


def fault(monkeypatch, **changes):
    """Return what is said where the library is another one."""
    for name, change in changes.items():
        monkeypatch.setattr(sodium, name, change)
    sodium.sodium.cache_clear()
    try:
        with pytest.raises(GroupMissing, match=r"apt-get install libsodium23") as caught:
            group.multiply(points(GENERATOR), scalar(2))
    finally:
        monkeypatch.undo()
        sodium.sodium.cache_clear()
    return str(caught.value)


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    assert "needs the library libsodium" in fault(monkeypatch, _NAMES=("libno-such-library.so.1",))


def test_another_library_of_that_name_is_refused(monkeypatch):
    """The C library stands for one without the group."""
    assert "must have ristretto255" in fault(monkeypatch, _load=lambda names: ctypes.CDLL(None))


def test_a_library_that_computes_something_else_is_refused(monkeypatch):
    assert "must compute what RFC 9496" in fault(monkeypatch, _DOUBLE=MULTIPLES[2])


def test_a_library_that_does_not_start_is_refused(monkeypatch):
    real = sodium._load(sodium._NAMES)

    class Broken:
        def __getattr__(self, name):
            return (lambda: -1) if name == "sodium_init" else getattr(real, name)

    assert "must start" in fault(monkeypatch, _load=lambda names: Broken())
