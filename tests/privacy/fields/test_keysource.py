"""Wrapped keys: what they are, what opens them, and that nothing else does."""

import os

import pytest

from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KEY_BYTES, unwrap_key, wrap_key
from coterie.tests.privacy.fields import chunked

KEK, KEY, CONTEXT = bytes(range(32)), bytes(range(100, 132)), b'["a","context"]'


def test_a_wrapped_key_is_a_cobblestone_256_message_of_104_bytes():
    wrapped = wrap_key(KEK, KEY, CONTEXT)
    assert len(wrapped) == 24 + 32 + 32 + 16
    assert chunked.open_(KEK, CONTEXT, wrapped) == KEY
    assert unwrap_key(KEK, chunked.seal(KEK, CONTEXT, KEY), CONTEXT) == KEY


def test_buffers_that_can_be_wiped_are_taken_and_given():
    wrapped = wrap_key(bytearray(KEK), bytearray(KEY), CONTEXT)
    opened = unwrap_key(bytearray(KEK), wrapped, CONTEXT)
    assert type(opened) is bytearray
    assert opened == KEY


def test_no_two_wrapped_keys_are_the_same():
    assert len({wrap_key(KEK, KEY, CONTEXT)[:24] for _ in range(200)}) == 200


@pytest.mark.parametrize("where", range(104))
def test_a_changed_byte_is_refused(where):
    wrapped = bytearray(wrap_key(KEK, KEY, CONTEXT))
    for bit in range(8):
        wrapped[where] ^= 1 << bit
        with pytest.raises(KeyFault):
            unwrap_key(KEK, bytes(wrapped), CONTEXT)
        wrapped[where] ^= 1 << bit
    assert unwrap_key(KEK, bytes(wrapped), CONTEXT) == KEY


@pytest.mark.parametrize("length", [0, 1, 23, 55, 56, 71, 72, 88, 103])
def test_a_wrapped_key_that_was_cut_is_refused(length):
    with pytest.raises(KeyFault):
        unwrap_key(KEK, wrap_key(KEK, KEY, CONTEXT)[:length], CONTEXT)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64, 40000])
def test_a_message_that_is_no_key_is_refused(length):
    with pytest.raises(KeyFault):
        unwrap_key(KEK, chunked.seal(KEK, CONTEXT, os.urandom(length)), CONTEXT)
    assert length != KEY_BYTES


@pytest.mark.parametrize("context", [b"", CONTEXT[:-1], CONTEXT + b" ", b'["b","context"]'])
def test_another_context_is_refused(context):
    with pytest.raises(KeyFault):
        unwrap_key(KEK, wrap_key(KEK, KEY, CONTEXT), context)


def test_another_key_is_refused_and_the_fault_shows_neither():
    with pytest.raises(KeyFault) as error:
        unwrap_key(KEY, wrap_key(KEK, KEY, CONTEXT), CONTEXT)
    assert KEY.hex() not in repr(error.value)
    assert error.value.__context__ is None
