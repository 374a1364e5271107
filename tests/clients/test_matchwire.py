"""Questions and answers of a match on the wire: they arrive as they were, in one spelling, or are one kind of fault."""

import json

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Proto

from coterie.clients.matchwire import Agree, Commit, Count, End, Give, Take, decode_match, encode_match
from coterie.clients.records import pack
from coterie.clients.wire import WireFault, decode_release, encode_release
from coterie.privacy.canonical import canonical
from coterie.privacy.events import DiscreteGaussian, Nothing
from coterie.privacy.matching.channel import Address, Parcel
from coterie.privacy.matching.commitment import Commitment
from coterie.privacy.release import (
    ManifestAccepted,
    MatchCommitted,
    MatchEnded,
    MatchParcel,
    OverlapCounts,
    ParcelTaken,
    release_digest,
)

PLAN = "sha256:" + "a" * 64
ONE = Commitment(PLAN, "amber", 1, "1", 3, ("b" * 64,), "c" * 64, "d" * 128)
ADDRESS = Address("amber", 1, 2)
PARCEL = Parcel(PLAN, "sha256:" + "e" * 64, ADDRESS, 3, "birch", "cedar", bytes(range(70)))

ASKED = [
    Commit(PLAN, 1),
    Commit(PLAN, 2),
    Agree(PLAN, (ONE, Commitment(PLAN, "bïrch", 1, "1", 3, ("b" * 64, "0" * 64), "1" * 64, "d" * 128))),
    Agree(PLAN, ()),
    Give(PLAN, ADDRESS),
    Give(PLAN, Address("amber", 3, 0, "cedar")),
    Take(PLAN, PARCEL),
    Count(PLAN),
    End(PLAN),
]


def travelled(content):
    return recorddict_from_proto(Proto.FromString(recorddict_to_proto(content).SerializeToString()))


def name_of(asked):
    return f"{type(asked).__name__}-{ASKED.index(asked)}"


def fault(content):
    """The one kind of fault that a content which is no question is."""
    with pytest.raises(WireFault) as caught:
        decode_match(content)
    return str(caught.value)


def with_fields(content, change):
    """Change a question's fields, spelt canonically."""
    table = json.loads(content["match"]["fields"])
    change(table)
    return RecordDict({**content, "match": ConfigRecord({"fields": canonical(table).decode()})})


@pytest.mark.parametrize("asked", ASKED, ids=name_of)
def test_a_question_arrives_as_it_was_asked(asked):
    content = travelled(encode_match(asked))
    got = decode_match(content)
    assert got == asked
    assert type(got) is type(asked)
    assert encode_match(got)["match"] == content["match"]


@pytest.mark.parametrize("asked", ASKED, ids=name_of)
def test_a_field_too_many_or_too_few_or_of_another_type_is_a_fault(asked):
    content = encode_match(asked)
    names = list(json.loads(content["match"]["fields"]))
    said = {fault(with_fields(content, lambda table: table.update(more=1)))}
    for name in names:
        said.add(fault(with_fields(content, lambda table, name=name: table.pop(name))))
        for value in (None, True, 1.5, -1, 2**31, "x" * 1001, [], {}, [["a"]], {"a": 1}):
            if name == "commitments" and value == []:
                continue
            said.add(fault(with_fields(content, lambda table, name=name, value=value: table.update({name: value}))))
    assert len(said) == 1


@pytest.mark.parametrize("ask", ["", "COMMIT", "commits", "take ", "train", "sum"])
def test_an_unknown_question_is_a_fault(ask):
    fault(with_fields(encode_match(Commit(PLAN, 1)), lambda table: table.update(ask=ask)))


@pytest.mark.parametrize("asked", ASKED, ids=name_of)
def test_a_second_spelling_is_a_fault(asked):
    content = encode_match(asked)
    text = content["match"]["fields"]
    table = json.loads(text)
    for other in (json.dumps(table), " " + text, text + "\n", text.replace(":", " :", 1), text.encode()):
        fault(RecordDict({**content, "match": ConfigRecord({"fields": other})}))
    fault(RecordDict({**content, "match": ConfigRecord({"fields": text, "note": "x"})}))


@pytest.mark.parametrize("asked", ASKED, ids=name_of)
def test_a_record_too_many_or_of_another_kind_is_a_fault(asked):
    content = encode_match(asked)
    fault(RecordDict({**content, "note": ConfigRecord({"a": 1})}))
    fault(RecordDict({**content, "match": MetricRecord({"a": 1.0})}))
    fault(RecordDict({name: record for name, record in content.items() if name != "match"}))
    if "sealed" in content:
        fault(RecordDict({"match": content["match"]}))
        fault(RecordDict({"match": content["match"], "sealed": ConfigRecord({"a": 1})}))
    else:
        fault(RecordDict({**content, "sealed": pack([np.zeros(3, dtype=np.uint8)])}))


SEALED = {
    "none": [],
    "two": [np.zeros(3, dtype=np.uint8)] * 2,
    "wider numbers": [np.zeros(3, dtype=np.uint32)],
    "fractions": [np.zeros(3, dtype=np.float32)],
    "a square": [np.zeros((3, 3), dtype=np.uint8)],
}


@pytest.mark.parametrize("arrays", SEALED)
def test_sealed_bytes_in_another_form_are_a_fault(arrays):
    content = encode_match(Take(PLAN, PARCEL))
    fault(RecordDict({**content, "sealed": pack(SEALED[arrays])}))
    fault(RecordDict({**content, "sealed": ArrayRecord({})}))


def test_a_parcel_with_other_fields_is_a_fault():
    content = encode_match(Take(PLAN, PARCEL))
    for name in PARCEL.header:
        fault(with_fields(content, lambda table, name=name: table["parcel"].pop(name)))
        fault(with_fields(content, lambda table, name=name: table["parcel"].update({name: None})))
    fault(with_fields(content, lambda table: table["parcel"].update(more=1)))
    fault(with_fields(content, lambda table: table["parcel"].update(hop=True)))


def test_a_commitment_with_other_fields_is_a_fault():
    content = encode_match(ASKED[2])
    for name in ONE.header:
        fault(with_fields(content, lambda table, name=name: table["commitments"][0].pop(name)))
        fault(with_fields(content, lambda table, name=name: table["commitments"][0].update({name: None})))
    for change in ({"size": 0}, {"size": True}, {"chunks": []}, {"channel": "C" * 64}, {"signature": "d" * 126}):
        fault(with_fields(content, lambda table, change=change: table["commitments"][0].update(change)))


def test_more_partners_than_there_can_be_are_a_fault():
    content = encode_match(Agree(PLAN, (ONE,) * 3))
    assert len(decode_match(content).commitments) == 3
    fault(encode_match(Agree(PLAN, (ONE,) * 1001)))


def test_a_fault_says_nothing_of_what_came():
    said = fault(with_fields(encode_match(Commit(PLAN, 1)), lambda table: table.update(attempt="canary-7f3a")))
    assert "canary" not in said
    deep = "[" * 100_000
    assert fault(RecordDict({"match": ConfigRecord({"fields": deep})})) == said


# --- answers ----------------------------------------------------------------------------------------------------

EVENT = DiscreteGaussian(2.5, 1)
ANSWERS = [
    MatchCommitted(ONE, EVENT),
    ManifestAccepted(PLAN, "amber", "sha256:" + "e" * 64),
    ParcelTaken(PLAN, "amber", "birch", 1, 2, "cedar"),
    MatchParcel(PARCEL),
    OverlapCounts(PLAN, "amber", {"cells": [{"partners": ["amber"], "customers": None, "deviation": 1.5}]}),
    MatchEnded(PLAN, "amber", ""),
]


def kind_of(release):
    return release.kind


def with_header(content, change):
    """Change an answer's header, spelt canonically."""
    table = json.loads(content["release"]["header"])
    change(table)
    return RecordDict({**content, "release": ConfigRecord({**content["release"], "header": canonical(table).decode()})})


@pytest.mark.parametrize("release", ANSWERS, ids=kind_of)
def test_an_answer_arrives_as_it_left(release):
    got = decode_release(travelled(encode_release(release)), listed=EVENT)
    assert type(got) is type(release)
    assert release_digest(got) == release_digest(release)
    assert got.event == release.event


def test_a_list_that_is_a_disclosure_comes_without_an_event():
    got = decode_release(travelled(encode_release(MatchCommitted(ONE, Nothing()))))
    assert got.event == Nothing()


@pytest.mark.parametrize("release", ANSWERS, ids=kind_of)
def test_an_answer_with_other_fields_or_arrays_is_a_fault(release):
    content = encode_release(release)

    def put(name, value):
        return with_header(content, lambda table: table.update({name: value}))

    wrong = [
        put("more", 1),
        *(with_header(content, lambda table, name=name: table.pop(name)) for name in release.header),
    ]
    wrong += [
        put(name, other)
        for name, value in release.header.items()
        for other in (None, True, 1.5, [1], "x" if isinstance(value, dict) else {})
    ]
    spare = [*release.arrays, np.zeros(3, dtype=np.uint8)]
    arrays = [
        spare,
        [np.zeros(70, dtype=np.uint16)],
        [np.zeros((7, 10), dtype=np.uint8)],
        *([[]] if release.arrays else []),
    ]
    wrong += [RecordDict({**content, "arrays": pack(one)}) for one in arrays]
    for one in wrong:
        with pytest.raises(WireFault):
            decode_release(one, listed=EVENT)
