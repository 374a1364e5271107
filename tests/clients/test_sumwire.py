"""The questions of a secure sum on the wire: they arrive as they were asked, or are one kind of fault."""

import contextlib
import json
import random

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Proto

from coterie.clients import sumwire
from coterie.clients.records import pack
from coterie.clients.task import DealAsked, KeysAsked, RevealAsked, SignAsked, SumTask, Task
from coterie.clients.wire import WireFault, encode_task
from coterie.privacy.canonical import canonical
from coterie.privacy.secagg.codec import to_bytes
from coterie.privacy.secagg.member import claim_of
from coterie.tests.privacy.secagg.cohort import PLAN, STEPS, Cohort, vectors_of

WEIGHTS = (np.arange(6, dtype=np.float32).reshape(2, 3), np.array([0.5], dtype=np.float32))
KINDS = ("keys", "deal", "sum", "sign", "reveal")


@pytest.fixture(scope="module")
def asked():
    """One question of every kind."""
    cohort = Cohort(4).set_up()
    masked = cohort.mask_all(vectors_of(cohort.names))
    signed = tuple(cohort.sign(name, masked) for name in masked)
    claims = tuple(claim_of(message) for message in masked.values())
    return {
        "keys": KeysAsked(PLAN, 3, STEPS),
        "deal": DealAsked(PLAN, 3, tuple(cohort.keys)),
        "sum": SumTask(PLAN, "train/1", 2, WEIGHTS, 3, cohort.names, tuple(cohort.dealt)),
        "sign": SignAsked(PLAN, 3, claims),
        "reveal": RevealAsked(PLAN, 3, signed),
    }


def encode(kind, question):
    return getattr(sumwire, f"encode_{kind}")(question)


def decode(kind, content):
    return getattr(sumwire, f"decode_{kind}")(content)


def travelled(content):
    return recorddict_from_proto(Proto.FromString(recorddict_to_proto(content).SerializeToString()))


def plain(value):
    """Return a question as something that can be compared."""
    if hasattr(value, "kind"):
        return to_bytes(value)
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, tuple):
        return tuple(plain(one) for one in value)
    return value


def fields(question):
    return {name: plain(value) for name, value in vars(question).items()}


def with_fields(content, change):
    """Change a question's fields, spelt canonically."""
    table = json.loads(content["sum"]["fields"])
    text = canonical(change(table)).decode()
    return RecordDict({**content, "sum": ConfigRecord({"fields": text})})


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_arrives_as_it_was_asked(asked, kind):
    got = decode(kind, travelled(encode(kind, asked[kind])))
    assert type(got) is type(asked[kind])
    assert fields(got) == fields(asked[kind])


def test_a_task_without_shares_arrives_and_its_weights_may_be_written_to(asked):
    task = asked["sum"]
    got = sumwire.decode_sum(travelled(sumwire.encode_sum(SumTask(PLAN, "evaluate/1", 1, WEIGHTS, 1, task.cohort, ()))))
    assert (got.step, got.dealt) == ("evaluate/1", ())
    got.weights[0][0, 0] = 99
    assert WEIGHTS[0][0, 0] == 0


def test_a_sum_is_told_from_a_task(asked):
    assert sumwire.is_sum(encode("sum", asked["sum"]))
    assert not sumwire.is_sum(encode_task(Task(PLAN, 1, 1, WEIGHTS)))


@pytest.mark.parametrize("kind", KINDS)
def test_fields_missing_or_of_other_types_are_a_fault(asked, kind):
    content = encode(kind, asked[kind])
    table = json.loads(content["sum"]["fields"])
    for name, value in table.items():
        others = [None, {}, True, *([] if isinstance(value, list) else [[]])]
        others += [0, -1, 2**31, "1"] if isinstance(value, int) else [7]
        if isinstance(value, str):
            others.append("x" * 1001)
        if isinstance(value, list):
            others += [[7], [None], [[value]], "x"]
        for other in others:
            with pytest.raises(WireFault):
                decode(kind, with_fields(content, lambda t, n=name, o=other: {**t, n: o}))
        with pytest.raises(WireFault):
            decode(kind, with_fields(content, lambda t, n=name: {k: v for k, v in t.items() if k != n}))


@pytest.mark.parametrize("kind", KINDS)
def test_other_spellings_and_other_records_are_a_fault(asked, kind):
    content = encode(kind, asked[kind])
    text = content["sum"]["fields"]
    for other in (" " + text, json.dumps(json.loads(text)), "", "[]", "7", "null", "{", "[" * 50_000, " " * (1 << 21)):
        with pytest.raises(WireFault):
            decode(kind, RecordDict({**content, "sum": ConfigRecord({"fields": other})}))
    for record in (
        ConfigRecord({}),
        ConfigRecord({"fields": 7}),
        ConfigRecord({"fields": text.encode()}),
        ConfigRecord({"fields": text, "more": 1}),
        ConfigRecord({"field": text}),
        MetricRecord({"fields": 1.0}),
        ArrayRecord([np.zeros(1)]),
    ):
        with pytest.raises(WireFault):
            decode(kind, RecordDict({**content, "sum": record}))
    with pytest.raises(WireFault):
        decode(kind, RecordDict({name: content[name] for name in content if name != "sum"}))
    with pytest.raises(WireFault):
        decode(kind, RecordDict({**content, "more": ConfigRecord({})}))


@pytest.mark.parametrize("kind", ["deal", "sum", "reveal"])
def test_messages_of_another_kind_or_none_are_a_fault(asked, kind):
    content = encode(kind, asked[kind])
    other = {"deal": "reveal", "sum": "deal", "reveal": "sum"}[kind]
    for record in (
        encode(other, asked[other])["messages"],
        pack([np.zeros(4, np.uint8)]),
        pack([np.zeros((2, 2), np.uint8)]),
        pack([np.zeros(4, np.float32)]),
        pack([np.zeros(0, np.uint8)]),
        ConfigRecord({}),
    ):
        with pytest.raises(WireFault):
            decode(kind, RecordDict({**content, "messages": record}))
    with pytest.raises(WireFault):
        decode(kind, RecordDict({name: content[name] for name in content if name != "messages"}))


def test_a_masked_vector_cannot_be_asked_with(asked):
    cohort = Cohort(4).set_up()
    vector = cohort.mask("art", [1, 2, 3])
    content = encode("sum", asked["sum"])
    content["messages"] = pack([np.frombuffer(to_bytes(vector), dtype=np.uint8)])
    with pytest.raises(WireFault):
        decode("sum", content)


def test_signatures_that_are_no_hexadecimal_and_too_many_claims_are_a_fault(asked):
    content = encode("sign", asked["sign"])
    one = json.loads(content["sum"]["fields"])["claims"][0]
    for claims in ([{**one, "signature": "zz"}], [{**one, "signature": 7}], [one] * 1001, ["x"], [{}], [None]):
        with pytest.raises(WireFault):
            decode("sign", with_fields(content, lambda t, c=claims: {**t, "claims": c}))


@pytest.mark.parametrize("kind", KINDS)
def test_bent_bytes_are_a_fault_or_a_question(asked, kind):
    wire, rng = recorddict_to_proto(encode(kind, asked[kind])).SerializeToString(), random.Random(kind)  # noqa: S311
    for _ in range(300):
        place = rng.randrange(len(wire))
        bent = wire[:place] + bytes([wire[place] ^ 1 << rng.randrange(8)]) + wire[place + 1 :]
        try:
            content = recorddict_from_proto(Proto.FromString(bent))
        except Exception:  # noqa: BLE001, S112 - Flower's own readers fail in many ways
            continue
        with contextlib.suppress(WireFault):
            got = decode(kind, content)
            assert fields(decode(kind, encode(kind, got))) == fields(got)
