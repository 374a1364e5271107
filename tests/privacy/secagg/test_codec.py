"""The codec: one message, one spelling; whatever else comes is one kind of fault, and takes no memory."""

import dataclasses
import json
import random
import tracemalloc

import numpy as np
import pytest

from coterie.privacy.canonical import canonical
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.release import release_digest
from coterie.privacy.secagg.codec import from_bytes, message_of, to_bytes
from coterie.privacy.secagg.errors import PeerFault
from coterie.tests.privacy.secagg.cohort import EVENT, Cohort, vectors_of


@pytest.fixture(scope="module")
def messages():
    """One of every kind, as the protocol makes them."""
    cohort = Cohort(4).set_up()
    masked = cohort.mask_all(vectors_of(cohort.names, size=9))
    signed = {name: cohort.sign(name, masked) for name in masked}
    revealed = cohort.reveal("art", signed)
    return {m.kind: m for m in (cohort.keys[0], cohort.dealt[0], masked["art"], signed["art"], revealed)}


KINDS = ("round-keys", "dealt-shares", "masked-vector", "survivors-signed", "revealed-shares")


def read(data):
    return from_bytes(data, event=EVENT)


def parts(data):
    length = int.from_bytes(data[:8], "big")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(head, body):
    text = head if isinstance(head, bytes) else canonical(head)
    return len(text).to_bytes(8, "big") + text + body


def refused(data):
    with pytest.raises(PeerFault) as caught:
        read(data)
    assert caught.value.partner == ""
    assert caught.value.faults[0].rule == "is not one of a secure sum"


def test_every_kind_is_here(messages):
    assert set(messages) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_comes_back_as_it_was(messages, kind):
    message = messages[kind]
    again = read(to_bytes(message))
    assert type(again) is type(message)
    assert again.header == message.header
    assert again.event == message.event
    assert release_digest(again) == release_digest(message)
    assert [(a.dtype, a.shape) for a in again.arrays] == [(a.dtype, a.shape) for a in message.arrays]
    assert to_bytes(again) == to_bytes(message)


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_vectors_of_both_widths_come_back(messages, dtype):
    message = dataclasses.replace(messages["masked-vector"], arrays=(np.arange(5, dtype=dtype),))
    again = read(to_bytes(message))
    assert again.arrays[0].dtype == np.dtype(dtype)
    assert again.arrays[0].tolist() == [0, 1, 2, 3, 4]


def test_the_layout_is_the_documented_one(messages):
    message = messages["revealed-shares"]
    head, body = parts(to_bytes(message))
    assert head == {
        "arrays": [{"dtype": "|u1", "shape": [4, 32]}],
        "header": message.header,
        "kind": "revealed-shares",
    }
    assert body == message.arrays[0].tobytes()


def test_a_masked_vector_is_only_read_where_one_is_expected(messages):
    data = to_bytes(messages["masked-vector"])
    with pytest.raises(PeerFault):
        from_bytes(data)
    paid = DistributedGaussian(99, 2, 10, 0.5, 1)
    assert from_bytes(data, event=paid).event == paid


@pytest.mark.parametrize("kind", KINDS)
def test_another_spelling_of_the_same_is_refused(messages, kind):
    data = to_bytes(messages[kind])
    head, body = parts(data)
    refused(joined(json.dumps(head).encode(), body))  # spaces
    refused(joined(json.dumps(dict(reversed(head.items())), separators=(",", ":")).encode(), body))  # another order
    refused(data + b"\0")
    refused(joined({**head, "more": 1}, body))
    refused(joined({**head, "header": {**head["header"], "more": 1}}, body))
    for name in head["header"]:
        refused(joined({**head, "header": {k: v for k, v in head["header"].items() if k != name}}, body))
    refused(joined({**head, "arrays": [*head["arrays"], {"dtype": "|u1", "shape": [0]}]}, body))


@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_other_types_are_refused(messages, kind):
    head, body = parts(to_bytes(messages[kind]))
    for name, value in head["header"].items():
        others = [None, [], {}, True, 1.5, *(["x"] if isinstance(value, int) else [7])]
        if isinstance(value, int):
            others += [0, -1, 2**31, 2**70]
        if isinstance(value, list):
            others = [None, "train/1", [1], [["train/1"]], {"0": "train/1"}, 7]
        for other in others:
            text = json.dumps(
                {**head, "header": {**head["header"], name: other}}, sort_keys=True, separators=(",", ":")
            )
            refused(joined(text.encode(), body))


@pytest.mark.parametrize(
    "one",
    [
        {"dtype": "<f8", "shape": [1]},
        {"dtype": "|O", "shape": [1]},
        {"dtype": ">u4", "shape": [1]},
        {"dtype": "<u4", "shape": [-1]},
        {"dtype": "<u4", "shape": [2**40]},
        {"dtype": "<u4", "shape": [2**39, 2**39]},
        {"dtype": "<u4", "shape": [2**30, 2**30, 0]},
        {"dtype": "<u4", "shape": [1] * 5},
        {"dtype": "<u4", "shape": [2]},
        {"dtype": "<u4", "shape": [1.5]},
        {"dtype": "<u4", "shape": ["1"]},
        {"dtype": "<u4", "shape": [True]},
        {"dtype": "<u4", "shape": None},
        {"dtype": ["<u4"], "shape": [1]},
        {"dtype": "<u4"},
        {"shape": [1]},
        [],
        None,
        7,
    ],
)
def test_arrays_that_are_not_there_are_refused(messages, one):
    head, _ = parts(to_bytes(messages["masked-vector"]))
    text = json.dumps({**head, "arrays": [one]}, sort_keys=True, separators=(",", ":")).encode()
    refused(joined(text, b"\0\0\0\0"))


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0" * 7, b"\0" * 8, b"\0" * 64, b"\xff" * 64, joined(b"null", b""), joined(b"[]", b"")),
        *(joined(b"7", b""), joined(b'"x"', b""), joined(b"{}", b""), joined(b"[" * 100_000, b"")),
        *(joined(b'{"kind":' * 50_000, b""), joined(b"\xff\xfe", b""), joined(b"9" * 10_000, b"")),
    ],
)
def test_what_is_no_message_is_refused(data):
    refused(data)


def test_a_head_beyond_a_mebibyte_is_not_read():
    refused(joined(b" " * (1 << 20) + b"{}", b""))


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_is_refused(messages, kind):
    data = to_bytes(messages[kind])
    for end in (*range(min(len(data), 40)), *range(40, len(data), max(1, len(data) // 60)), len(data) - 1):
        refused(data[:end])


@pytest.mark.parametrize("kind", KINDS)
def test_a_bent_bit_is_refused_or_another_message(messages, kind):
    data, rng = to_bytes(messages[kind]), random.Random(kind)  # noqa: S311
    for _ in range(400):
        place = rng.randrange(len(data))
        bent = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        try:
            message = read(bent)
        except PeerFault:
            continue
        assert to_bytes(message) == bent
        assert release_digest(message) != release_digest(messages[kind])


def test_great_sizes_take_no_memory(messages):
    head, _ = parts(to_bytes(messages["masked-vector"]))
    hostile = joined({**head, "arrays": [{"dtype": "<u8", "shape": [2**36]}]}, b"\0" * 64)
    tracemalloc.start()
    refused(hostile)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_kinds_that_are_none_are_refused(messages):
    message = messages["survivors-signed"]
    for kind in ("model-update", "", "RoundKeys"):
        with pytest.raises(KeyError):
            message_of(kind, message.header, ())
    with pytest.raises(ValueError, match="0"):
        message_of("survivors-signed", message.header, (np.zeros(1, np.uint8),))
