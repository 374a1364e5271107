"""The wire: what was said arrives, and whatever else arrives is one kind of fault."""

import contextlib
import io
import json
import random
import tracemalloc
import warnings

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Proto

from coterie.clients.task import Task
from coterie.clients.wire import (
    WireFault,
    decode_close,
    decode_plan,
    decode_release,
    decode_task,
    encode_close,
    encode_plan,
    encode_release,
    encode_task,
)
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.release import ConsentGiven, ModelReceived, ModelUpdate, Refused, ScoreHistogram, release_digest

UPDATE, HISTOGRAM = PoissonGaussian(1.0, 0.1, 2), DiscreteGaussian(2.0, 1)
WEIGHTS = (np.arange(6, dtype=np.float32).reshape(2, 3), np.array([0.5], dtype=np.float32))
TASK = Task("sha256:aa", 3, 1, WEIGHTS)
COUNTS = (np.array([[1, -2, 3], [4, 5, -(2**62)]], dtype=np.int64),)
RELEASES = (
    ConsentGiven("sha256:aa", "Zo\u00eb & Co.", bytes(range(64))),
    Refused("", ("policy-missing",)),
    Refused("sha256:aa", ("budget", "column", "purpose")),
    ModelUpdate("sha256:aa", "amber", "train/3", 2, "sha256:bb", UPDATE, WEIGHTS),
    ScoreHistogram("sha256:aa", "amber", "evaluate/3", 1, "sha256:bb", HISTOGRAM, COUNTS),
    ModelReceived("sha256:aa", "amber", "sha256:bb", "sha256:cc"),
)


def decoded(content):
    return decode_release(content, update=UPDATE, histogram=HISTOGRAM)


DECODERS = {
    "plan": (lambda: encode_plan(b"a signed plan"), decode_plan),
    "task": (lambda: encode_task(TASK), decode_task),
    "update": (lambda: encode_release(RELEASES[3]), decoded),
    "histogram": (lambda: encode_release(RELEASES[4]), decoded),
    "consent": (lambda: encode_release(RELEASES[0]), decoded),
    "refusal": (lambda: encode_release(RELEASES[2]), decoded),
    "close": (lambda: encode_close(b"a signed record", WEIGHTS), decode_close),
    "received": (lambda: encode_release(RELEASES[5]), decoded),
}


def travelled(content):
    return recorddict_from_proto(Proto.FromString(recorddict_to_proto(content).SerializeToString()))


def npy(array, **kwargs):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **kwargs)
    return buffer.getvalue()


def raw(data):
    return Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=data)


def with_header(text, rest=b"\0\0\0\0"):
    return raw(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + rest)


# --- round trips --------------------------------------------------------------------------------------------


def test_a_plan_arrives_as_it_was_sent():
    for signed in (b"x", bytes(range(256)) * 40):
        assert decode_plan(travelled(encode_plan(signed))) == signed


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (3, 1, 2)])
def test_a_task_arrives_as_it_was_sent(shape):
    weights = (np.random.default_rng(1).normal(size=shape).astype(np.float32), *WEIGHTS)
    got = decode_task(travelled(encode_task(Task("sha256:aa", 3, 2, weights))))
    assert (got.plan, got.round, got.attempt) == ("sha256:aa", 3, 2)
    assert [array.tobytes() for array in got.weights] == [array.tobytes() for array in weights]
    assert [array.shape for array in got.weights] == [array.shape for array in weights]


def test_the_weights_of_a_task_may_be_written_to_and_share_nothing():
    (first, _) = decode_task(encode_task(TASK)).weights
    first[0, 0] = 99
    assert WEIGHTS[0][0, 0] == 0


def test_a_fortran_ordered_array_is_sent_in_c_order():
    weights = (np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),)
    (got,) = decode_task(travelled(encode_task(Task("p", 1, 1, weights)))).weights
    assert np.array_equal(got, weights[0])


@pytest.mark.parametrize("release", RELEASES, ids=lambda r: r.kind)
def test_a_release_arrives_as_it_was_sent(release):
    got = decoded(travelled(encode_release(release)))
    assert type(got) is type(release)
    assert got.header == release.header
    assert release_digest(got) == release_digest(release)
    assert got.event == release.event


@pytest.mark.parametrize("release", RELEASES[3:5], ids=lambda r: r.kind)
def test_a_kind_that_is_not_expected_is_a_fault(release):
    with pytest.raises(WireFault):
        decode_release(encode_release(release), update=None, histogram=None)


# --- malformed messages ---------------------------------------------------------------------------------------


def spoilers(content):
    """Ways to take away, add, rename or exchange the records and keys of a message."""
    for record in list(content):
        yield lambda c, r=record: c.pop(r)
        yield lambda c, r=record: c.__setitem__(r, MetricRecord({"x": 1.0}))
        yield lambda c, r=record: c.__setitem__(r, ConfigRecord({"x": 1}))
        yield lambda c, r=record: c.__setitem__(r + " ", c.pop(r))
        for key in list(content[record])[:1]:  # how many arrays there are is the plan's to say, not the wire's
            yield lambda c, r=record, k=key: c[r].__setitem__(k + "x", c[r].pop(k))
            if isinstance(content[record], ConfigRecord) or len(content[record]) > 1 or record == "plan":
                yield lambda c, r=record, k=key: c[r].pop(k)
    yield lambda c: c.__setitem__("more", ConfigRecord({"x": 1}))
    yield lambda c: c.__setitem__("metrics", MetricRecord({"x": 1.0}))
    yield lambda c: [c.pop(k) for k in list(c)]


@pytest.mark.parametrize("name", DECODERS)
def test_records_and_keys_must_be_just_those(name):
    make, decode = DECODERS[name]
    for spoil in spoilers(make()):
        content = make()
        spoil(content)
        with pytest.raises(WireFault):
            decode(content)


@pytest.mark.parametrize(
    "field",
    [{"round": 1.0}, {"round": "1"}, {"round": True}, {"attempt": [1]}, {"plan": b"x"}, {"plan": 3}, {"more": 1}],
    ids=str,
)
def test_the_fields_of_a_task_have_their_types(field):
    content = encode_task(TASK)
    content["task"].update(field)
    with pytest.raises(WireFault):
        decode_task(content)


HEADERS = {
    "no JSON": "{",
    "nothing": "",
    "a list": "[]",
    "a text": '"x"',
    "null": "null",
    "a number": "1e999",
    "deep": "[" * 100_000,
    "deep tables": '{"a":' * 50_000,
    "long": " " * (1 << 20) + "{}",
    "a huge number": '{"attempt":' + "9" * 5000 + "}",
    "NaN": '{"attempt":NaN,"model":"m","partner":"a","plan":"p","step":"s"}',
    "an attempt that is true": '{"attempt":true,"model":"m","partner":"a","plan":"p","step":"s"}',
    "an attempt that is a text": '{"attempt":"1","model":"m","partner":"a","plan":"p","step":"s"}',
    "an attempt that is a table": '{"attempt":{"a":1},"model":"m","partner":"a","plan":"p","step":"s"}',
    "an attempt that is none": '{"attempt":null,"model":"m","partner":"a","plan":"p","step":"s"}',
    "an attempt with a point": '{"attempt":1.0,"model":"m","partner":"a","plan":"p","step":"s"}',
    "a model that is a list": '{"attempt":1,"model":["m"],"partner":"a","plan":"p","step":"s"}',
    "an event": '{"attempt":1,"event":1,"model":"m","partner":"a","plan":"p","step":"s"}',
    "arrays": '{"arrays":[],"attempt":1,"model":"m","partner":"a","plan":"p","step":"s"}',
    "another order": '{"model":"m","attempt":1,"partner":"a","plan":"p","step":"s"}',
    "half a character": '{"attempt":1,"model":"\\ud800","partner":"a","plan":"p","step":"s"}',
    "escapes": '{"attempt":1,"model":"\\u006d","partner":"a","plan":"p","step":"s"}',
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("kind", [release.kind for release in RELEASES[1:]])
def test_a_header_that_is_none_is_a_fault(name, kind):
    (release, *_) = (r for r in RELEASES if r.kind == kind)
    content = encode_release(release)
    content["release"]["header"] = HEADERS[name]
    with pytest.raises(WireFault):
        decoded(content)


@pytest.mark.parametrize(
    "codes",
    [[[]], [{}], [1], [None], ["<script>"], ["budget", "no such word"], "budget", {"budget": 1}, [True]],
    ids=str,
)
def test_the_words_of_a_refusal_are_those_agreed_on(codes):
    content = encode_release(RELEASES[1])
    content["release"]["header"] = json.dumps({"codes": codes, "plan": "p"}, separators=(",", ":"))
    with pytest.raises(WireFault):
        decoded(content)


@pytest.mark.parametrize("signature", ["", "zz", "0", "AA" * 64, "aa " * 64, 7, None, ["aa"]], ids=str)
def test_a_signature_is_lower_case_hexadecimal(signature):
    content = encode_release(RELEASES[0])
    header = {"partner": "a", "plan": "p", "signature": signature}
    content["release"]["header"] = json.dumps(header, separators=(",", ":"))
    if signature == "":
        assert decoded(content).signature == b""  # an empty one is no one's; admission refuses it
        return
    with pytest.raises(WireFault):
        decoded(content)


@pytest.mark.parametrize(
    "text", ["", "consent-given ", "Refused", "model-update\0", "../x", "x" * 100_000, "\U0001f4a3"]
)
def test_a_kind_that_nobody_knows_is_a_fault(text):
    for field in ("kind", "format"):
        content = encode_release(RELEASES[0])
        content["release"][field] = text
        with pytest.raises(WireFault):
            decoded(content)


ARRAYS = {
    "nothing": raw(b""),
    "only magic": raw(b"\x93NUMPY"),
    "another format": raw(npy(np.ones(1, np.float32), version=(2, 0))),
    "doubles": raw(npy(np.ones(1))),
    "other ends": raw(npy(np.ones(1, ">f4"))),
    "halves": raw(npy(np.ones(2, np.float16))),
    "booleans": raw(npy(np.ones(4, np.bool_))),
    "texts": raw(npy(np.array(["abcd"]))),
    "objects": raw(npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)),
    "fields": raw(npy(np.zeros(1, dtype=[("a", "<f4")]))),
    "Fortran order": raw(npy(np.asfortranarray(np.ones((2, 3), np.float32)))),
    "a byte less": raw(npy(np.ones(3, np.float32))[:-1]),
    "a byte more": raw(npy(np.ones(3, np.float32)) + b"\0"),
    "more rows than bytes": with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n"),
    "negative rows": with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n"),
    "two negatives": with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }\n"),
    "rows that are true": with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }\n"),
    "a number too many digits long": with_header(
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",), }\n"
    ),
    "a shape that wraps to one": with_header(
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0), }\n"
    ),
    "too many dimensions": with_header(
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1, " * 70 + b"), }\n"
    ),
    "a header that does not end": with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': ("),
    "a header in brackets": with_header(b"(" * 9000),
    "a header of signs": with_header(b"-" * 9000 + b"1"),
    "a huge header": with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }" + b" " * 60_000),
    "a header with a comment": with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } # hello\n"),
    "a header that lies about its length": raw(npy(np.ones(1, np.float32)).replace(b"v\x00{", b"\x10\x00{")),
    "a pickle": raw(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94."),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_not_whole_and_plain_is_a_fault(name):
    content = encode_task(Task("p", 1, 1, WEIGHTS[1:]))
    content["weights"]["0"] = ARRAYS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(WireFault):
            decode_task(content)


@pytest.mark.parametrize("array", [np.ones(3, np.float32), np.ones(3, np.int64), np.ones((1, 3), np.uint8)])
def test_a_plan_is_bytes_and_nothing_else(array):
    with pytest.raises(WireFault):
        decode_plan(RecordDict({"plan": ArrayRecord({"signed": Array(array)})}))


def test_a_plan_may_not_be_endless():
    assert len(decode_plan(encode_plan(bytes(1 << 20)))) == 1 << 20
    with pytest.raises(WireFault):
        decode_plan(encode_plan(bytes((1 << 20) + 1)))


@pytest.mark.parametrize("rows", [2**40, 2**62, 10**17])
def test_a_header_that_promises_too_much_takes_no_memory(rows):
    content = encode_task(Task("p", 1, 1, WEIGHTS[1:]))
    content["weights"]["0"] = with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }\n" % rows)
    tracemalloc.start()
    try:
        with pytest.raises(WireFault):
            decode_task(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_arrays_as_other_versions_of_numpy_pad_them_are_read():
    for spaces in (0, 1, 13, 40, 500):
        data = with_header(
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }" + b" " * spaces + b"\n", b"\0\0\x80?"
        )
        content = encode_task(Task("p", 1, 1, WEIGHTS[1:]))
        content["weights"]["0"] = data
        assert decode_task(content).weights[0].tolist() == [1.0]


def mutated(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5, 20))):
        where = draw.randrange(len(data) if draw.random() < 0.3 else min(len(data), 130))
        action = draw.randrange(6)
        if action == 0:
            data[where] = draw.randrange(256)
        elif action == 1:
            data[where] ^= 1 << draw.randrange(8)
        elif action == 2:
            del data[where : where + draw.randrange(1, 9)]
        elif action == 3:
            data[where:where] = draw.choice((b"(", b"'", b"-", b"L", b",", b"9" * 12, b"\n", b"\0", b"#", b"{", b"\\"))
        elif action == 4:
            data[where:where] = draw.randbytes(draw.randrange(1, 9))
        else:
            data = data[: max(1, where)]
        if not data:
            return b""
    return bytes(data)


def test_whatever_becomes_of_an_arrays_bytes_nothing_but_a_fault_comes_of_it():
    draw = random.Random(20310504)  # noqa: S311 - for damage, not for secrets
    sources = [
        npy(np.asarray(a)) for a in (*WEIGHTS, *COUNTS, np.ones((3, 4, 2), np.uint8), np.zeros((0, 4), np.float32))
    ]
    refused = taken = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(6000):
            content = encode_task(Task("p", 1, 1, WEIGHTS[1:]))
            content["weights"]["0"] = raw(mutated(draw.choice(sources), draw))
            try:
                decode_task(content)
                taken += 1
            except WireFault:
                refused += 1
    assert refused > 3000
    assert taken > 20  # a changed number is a number


def test_whatever_becomes_of_a_releases_header_nothing_but_a_fault_comes_of_it():
    draw = random.Random(7)  # noqa: S311 - for damage, not for secrets
    refused = 0
    for _ in range(2500):
        release = draw.choice(RELEASES)
        content = encode_release(release)
        text = mutated(str(content["release"]["header"]).encode(), draw).decode("utf-8", "replace")
        content["release"]["header"] = text
        try:
            got = decoded(content)
            assert encode_release(got)["release"]["header"] == text
        except WireFault:
            refused += 1
    assert refused > 1500


def test_whatever_becomes_of_a_message_on_its_way_nothing_but_a_fault_comes_of_it():
    """Mutates Flower's own bytes; what its protocol buffers refuse never arrives."""
    draw = random.Random(11)  # noqa: S311 - for damage, not for secrets
    arrived = 0
    for _ in range(1500):
        make, decode = DECODERS[draw.choice(list(DECODERS))]
        wire = mutated(recorddict_to_proto(make()).SerializeToString(), draw)
        try:
            content = recorddict_from_proto(Proto.FromString(wire))
        except Exception:  # noqa: BLE001, S112 - Flower's to refuse
            continue
        arrived += 1
        with contextlib.suppress(WireFault):
            decode(content)
    assert arrived > 100
