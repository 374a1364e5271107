"""Canonical JSON against RFC 8785's own examples."""

import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.privacy.canonical import canonical, digest

APPENDIX_B = {  # RFC 8785 appendix B: IEEE 754 bits and their form
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Surrogates have no UTF-8 form.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(("bits", "form"), APPENDIX_B.items())
def test_numbers_take_the_form_of_appendix_b(bits, form):
    assert canonical(struct.unpack(">d", bytes.fromhex(bits))[0]) == form.encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_numbers_that_are_not_finite_are_refused(bits):
    with pytest.raises(ValueError, match="finite"):
        canonical([struct.unpack(">d", bytes.fromhex(bits))[0]])


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("333333333.33333329", "333333333.3333333"),
        ("1E30", "1e+30"),
        ("4.50", "4.5"),
        ("2e-3", "0.002"),
        ("0.000000000000000000000000001", "1e-27"),
        ("-0.0", "0"),
        ("1.0", "1"),
        ("100.0", "100"),
        ("1e21", "1e+21"),
        ("123456789012345680000.0", "123456789012345680000"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("-1.5e-9", "-1.5e-9"),
        ("1e-5", "0.00001"),
        ("0.1", "0.1"),
        ("10.5", "10.5"),
    ],
)
def test_numbers_are_written_as_ecmascript_writes_them(written, form):
    assert canonical(float(written)) == form.encode()


def test_a_whole_float_and_its_whole_number_have_one_form():
    for value in (0, 1, -7, 100, 2**53 - 1):
        assert canonical(float(value)) == canonical(value) == str(value).encode()


def test_the_example_of_the_rfc_is_written_as_the_rfc_writes_it():
    # RFC 8785 section 3.2.2's input and section 3.2.4's bytes.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(value) == expected.encode()


def test_keys_are_sorted_at_every_level_whatever_their_order():
    one = {"b": {"z": 1, "Z": 2, "10": 3, "9": 4}, "a": [{"d": 1, "c": 2}], "": 0}
    other = {"": 0, "a": [{"c": 2, "d": 1}], "b": {"9": 4, "10": 3, "Z": 2, "z": 1}}
    assert canonical(one) == canonical(other)
    assert canonical(one) == b'{"":0,"a":[{"c":2,"d":1}],"b":{"10":3,"9":4,"Z":2,"z":1}}'


def test_keys_are_sorted_as_the_rfc_sorts_them():
    # RFC 8785 section 3.2.3: by UTF-16 code units, so that the emoji (D83D DE00) precedes U+FB33.
    keys = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    value = {"\u20ac": 5, "\r": 1, "\ufb33": 7, "1": 2, "\U0001f600": 6, "\u0080": 3, "\u00f6": 4}
    expected = ",".join(f"{json.dumps(key, ensure_ascii=False)}:{place}" for place, key in enumerate(keys, start=1))
    assert canonical(value).decode() == "{" + expected + "}"


def test_texts_are_escaped_as_little_as_the_rfc_allows():
    assert canonical('\b\t\n\f\r\x00\x1f\x7f"\\/é€😀') == '"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f\\"\\\\/é€😀"'.encode()
    assert canonical({"\x7f\t": 1}) == b'{"\x7f\\t":1}'


@pytest.mark.parametrize("value", [2**53, -(2**53), 10**30])
def test_whole_numbers_without_an_exact_form_are_refused(value):
    with pytest.raises(ValueError, match="2\\*\\*53"):
        canonical({"count": value})
    assert canonical(2**53 - 1) == b"9007199254740991"


@pytest.mark.parametrize(
    "value", [b"bytes", bytearray(b"x"), {1: 2}, {"a": 1, None: 1}, {1, 2}, object(), 1j, np.zeros(2), np.int64(3)]
)
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(TypeError):
        canonical([value])


def test_a_lone_surrogate_is_refused():
    with pytest.raises(ValueError, match="surrogates"):
        canonical("\ud800")


def test_a_numpy_float_is_written_as_the_number_that_it_is():
    assert canonical([np.float64(0.1), np.float64(1e30)]) == b"[0.1,1e+30]"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_exactly(value):
    assert float(canonical(value)) == value


@given(plain)
@settings(max_examples=60, deadline=None)
def test_every_value_comes_back_and_is_written_once(value):
    written = canonical(value)
    # A whole float beyond 2**53 has the form of a whole number, so both are read as floats here.
    read = json.loads(written, parse_int=float)
    assert read == value
    assert canonical(read) == written


@given(plain, plain)
@settings(max_examples=40, deadline=None)
def test_different_values_have_different_digests(one, other):
    assert (digest(one) == digest(other)) == (canonical(one) == canonical(other))


def test_a_digest_names_its_hash():
    # The hash is of the bytes; {"a":1} has no choice of form.
    assert digest({"a": 1}) == "sha256:" + hashlib.sha256(b'{"a":1}').hexdigest()
