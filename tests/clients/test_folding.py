"""Folded contents: whatever goes in comes out, few objects travel, and what is not one is refused in words."""

import contextlib
import threading
import types

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from coterie.clients.folding import WireFault, fold, soon, unfold

LIMIT = 128 << 10
NAMES = st.text(max_size=12)
WHOLE = st.integers(-(2**63), 2**63 - 1)
WORDS = st.text(max_size=20)
BYTES = st.binary(max_size=40)
REALS = st.floats(width=64, allow_nan=False)
SCALARS = st.one_of(st.booleans(), WHOLE, REALS, WORDS, BYTES)
LISTS = st.one_of(*(st.lists(kind, max_size=4) for kind in (st.booleans(), WHOLE, REALS, WORDS, BYTES)))
CONFIGS = st.dictionaries(NAMES, st.one_of(SCALARS, LISTS), max_size=4).map(ConfigRecord)
NUMBERS = st.one_of(WHOLE, REALS, st.lists(WHOLE, max_size=4), st.lists(REALS, max_size=4))
METRICS = st.dictionaries(NAMES, NUMBERS, max_size=4).map(MetricRecord)
KINDS = st.sampled_from(["<f4", "<f8", "<i8", "<u8", "|u1", "|b1"])
ARRAYS = stnp.arrays(KINDS, stnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)).map(Array)
ARRAY_RECORDS = st.dictionaries(NAMES, ARRAYS, max_size=3).map(ArrayRecord)
CONTENTS = st.dictionaries(NAMES, st.one_of(CONFIGS, METRICS, ARRAY_RECORDS), max_size=4).map(RecordDict)


def wire(content):
    return recorddict_to_proto(content).SerializeToString(deterministic=True)


def packed(data):
    return RecordDict({"folded": ConfigRecord({"bytes": data})})


@settings(max_examples=80, deadline=None)
@given(CONTENTS)
def test_unfolding_gives_back_every_content_bit_for_bit(content):
    folded = fold(content)
    assert list(folded) == ["folded"]
    back = unfold(folded)
    assert wire(back) == wire(content)
    assert [(name, type(record)) for name, record in back.items()] == [
        (name, type(record)) for name, record in content.items()
    ]


@settings(max_examples=40, deadline=None)
@given(CONTENTS)
def test_what_was_never_folded_passes_unchanged(content):
    if "folded" not in content:
        assert unfold(content) is content


def test_a_folded_message_is_at_most_three_objects_where_flower_would_send_dozens():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    content = RecordDict({f"r{n}": ArrayRecord([np.full(9, n)] * 5 + [np.full(3, 10 * n)]) for n in range(6)})
    objects = [
        len(get_all_nested_objects(Message(sent, dst_node_id=1, message_type="train")))
        for sent in (content, fold(content))
    ]
    assert objects[0] > 24
    assert objects[1] <= 3


def test_a_content_at_the_limit_is_folded_and_one_byte_more_goes_as_it_is():
    room = LIMIT - len(wire(RecordDict({"x": ConfigRecord({"y": b"\0" * (LIMIT - 1000)})}))) + LIMIT - 1000
    at = RecordDict({"x": ConfigRecord({"y": b"\0" * room})})
    over = RecordDict({"x": ConfigRecord({"y": b"\0" * (room + 1)})})
    assert (len(wire(at)), len(wire(over))) == (LIMIT, LIMIT + 1)
    assert wire(unfold(fold(at))) == wire(at)
    assert "folded" in fold(at)
    assert fold(over) is over
    assert unfold(fold(over)) is over


def emptied(part):
    """Return the bytes of a content with one part taken out."""
    proto = recorddict_to_proto(RecordDict({"x": ConfigRecord({"y": 1})}))
    item = proto.items[0]
    (item.config_record.items[0].value if part == "value" else item).ClearField("sint64" if part == "value" else part)
    return proto.SerializeToString()


MALFORMED = {
    "a second record": lambda: RecordDict({"folded": ConfigRecord({"bytes": b""}), "x": ConfigRecord({})}),
    "a second value": lambda: RecordDict({"folded": ConfigRecord({"bytes": b"", "more": 1})}),
    "another name": lambda: RecordDict({"folded": ConfigRecord({"other": b""})}),
    "no value": lambda: RecordDict({"folded": ConfigRecord({})}),
    "text": lambda: packed("text"),
    "a number": lambda: packed(7),
    "a list": lambda: packed([b"x"]),
    "metrics": lambda: RecordDict({"folded": MetricRecord({"bytes": 1})}),
    "arrays": lambda: RecordDict({"folded": ArrayRecord({"bytes": Array(np.zeros(2))})}),
    "too long": lambda: packed(b"\0" * (LIMIT + 1)),
    "no message": lambda: packed(b"\xff" * 20),
    "cut short": lambda: packed(wire(RecordDict({"x": ConfigRecord({"y": b"12345"})}))[:-2]),
    "a value without a kind": lambda: packed(emptied("value")),
    "a name without a record": lambda: packed(emptied("config_record")),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_only_looks_folded_is_refused_in_words(what):
    with pytest.raises(WireFault) as error:
        unfold(MALFORMED[what]())
    (fault,) = error.value.faults
    assert fault.place == "a folded message"
    assert "12345" not in str(fault)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_content_or_a_fault_and_nothing_else(data):
    with contextlib.suppress(WireFault):
        assert isinstance(unfold(packed(data)), RecordDict)


def test_a_fold_inside_a_fold_is_unfolded_once():
    """What is inside is for the decoder to refuse: it has no record of the names that a question has."""
    inner = fold(RecordDict({"x": ConfigRecord({"y": 1})}))
    assert wire(unfold(fold(inner))) == wire(inner)


@pytest.fixture
def hastened():
    """Flower's pulling as this process has it after `soon`, and as it was before once the test is over."""
    pulling = (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree)
    before = [dict(one.__kwdefaults__) for one in pulling]
    soon()
    yield
    for one, defaults in zip(pulling, before, strict=True):
        one.__kwdefaults__.update(defaults)


@pytest.mark.usefixtures("hastened")
def test_a_piece_that_comes_late_is_asked_for_again_after_a_moment_and_not_after_a_second(monkeypatch):
    waits = []

    class Waited(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return False

    quick = types.SimpleNamespace(Lock=threading.Lock, Event=Waited)
    monkeypatch.setattr(inflatable_utils, "threading", quick)
    message = Message(RecordDict({"a": ConfigRecord({"b": 1})}), dst_node_id=1, message_type="query")
    pieces = {key: one.deflate() for key, one in get_all_nested_objects(message).items()}
    asked = []

    def pull(key):
        asked.append(key)
        if asked.count(key) == 1:
            raise inflatable_utils.ObjectUnavailableError(key)
        return pieces[key]

    assert inflatable_utils.pull_objects(list(pieces), pull) == pieces
    asked.clear()
    tree = get_object_tree(message)
    whole = inflatable_utils.pull_and_inflate_object_from_tree(tree, pull, lambda _: None, return_type=Message)
    assert whole.content == message.content
    assert len(waits) == 2 * len(pieces)
    assert max(waits) < 0.05 * inflatable_utils.PULL_INITIAL_BACKOFF
