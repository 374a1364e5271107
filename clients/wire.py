"""The language that coordinator and partners speak over Flower: names of records and keys, written once.

    propose    {"plan": arrays{"signed": uint8}}                         query.propose
    task       {"task": config{plan, round, attempt}, "weights": arrays{"0", "1", ...}}   train, evaluate
    close      {"record": arrays{"signed": uint8}, "weights": arrays{"0", "1", ...}}      query.close
    release    {"release": config{format, kind, header}, "arrays": arrays{"0", "1", ...}}

With any question may come {"witness": config{note}}: the last checkpoint of the partner's ledger that the coordinator
saw, "" for none. Its answer then comes with {"head": config{header}}: the ledger's checkpoint of now.

What comes in is believed in nothing: kinds, keys, types, and the size of an array against its bytes are checked
before memory is taken.
"""

import json
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from coterie.clients.records import WireFault, named, pack, record_of, unpack, unpack_named, wire_fault
from coterie.clients.task import Task
from coterie.privacy.canonical import canonical
from coterie.privacy.errors import CoterieError
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, Nothing, PoissonGaussian
from coterie.privacy.matching.leaving import leaving_of
from coterie.privacy.release import (
    CODES,
    ConsentGiven,
    LedgerHead,
    Matching,
    ModelReceived,
    ModelUpdate,
    PartnerSum,
    Refused,
    Release,
    ScoreHistogram,
    Summing,
)
from coterie.privacy.secagg.codec import message_of

__all__ = [
    "CLOSE",
    "EVALUATE",
    "PROPOSE",
    "TRAIN",
    "WireFault",
    "decode_close",
    "decode_plan",
    "decode_release",
    "decode_task",
    "encode_close",
    "encode_plan",
    "encode_release",
    "encode_task",
    "split_head",
    "split_witness",
    "with_head",
    "with_witness",
]

PROPOSE, TRAIN, EVALUATE, CLOSE = "query.propose", "train", "evaluate", "query.close"

_FORMAT = "coterie/release/v1"
_LONGEST = 1 << 20  # greatest header and plan, in bytes
_LONGEST_RECORD = 1 << 24  # receipts of a thousand partners over a thousand rounds
_LONGEST_NOTE, _LONGEST_HEAD = 4096, 16_384
_SUMMING = frozenset(kind.kind for kind in get_args(Summing))
_MATCHING = frozenset(kind.kind for kind in get_args(Matching))


def encode_plan(signed: bytes) -> RecordDict:
    """Wrap a signed plan for `PROPOSE`."""
    return RecordDict({"plan": named(["signed"], [np.frombuffer(signed, dtype=np.uint8)])})


def decode_plan(content: RecordDict) -> bytes:
    """Unwrap a signed plan.

    Raises:
        WireFault: The message is not one.
    """
    (signed,) = unpack_named(record_of(content, "plan", ArrayRecord, {"plan"}), ["signed"])
    if signed.dtype != np.uint8 or signed.ndim != 1 or len(signed) > _LONGEST:
        raise wire_fault("the plan", f"must be at most {_LONGEST} bytes")
    return signed.tobytes()


def encode_task(task: Task) -> RecordDict:
    """Wrap a task for `TRAIN` or `EVALUATE`."""
    config = ConfigRecord({"plan": task.plan, "round": task.round, "attempt": task.attempt})
    return RecordDict({"task": config, "weights": pack(task.weights)})


def decode_task(content: RecordDict) -> Task:
    """Unwrap a task.

    Raises:
        WireFault: The message is not one.
    """
    config = record_of(content, "task", ConfigRecord, {"task", "weights"})
    plan, round_, attempt = (config.get(key) for key in ("plan", "round", "attempt"))
    if len(config) != 3 or type(plan) is not str or type(round_) is not int or type(attempt) is not int:
        raise wire_fault("the task", "must have plan, round and attempt")
    record = record_of(content, "weights", ArrayRecord, {"task", "weights"})
    weights = unpack(record)
    return Task(plan, round_, attempt, tuple(np.array(array, dtype=array.dtype) for array in weights))


def encode_close(record: bytes, weights: Sequence[NDArray[Any]]) -> RecordDict:
    """Wrap a study's signed record and its final model for `CLOSE`."""
    signed = named(["signed"], [np.frombuffer(record, dtype=np.uint8)])
    return RecordDict({"record": signed, "weights": pack(weights)})


def decode_close(content: RecordDict) -> tuple[bytes, tuple[NDArray[Any], ...]]:
    """Unwrap a study's signed record and its final model.

    Raises:
        WireFault: The message is not that.
    """
    names = {"record", "weights"}
    (signed,) = unpack_named(record_of(content, "record", ArrayRecord, names), ["signed"])
    if signed.dtype != np.uint8 or signed.ndim != 1 or len(signed) > _LONGEST_RECORD:
        raise wire_fault("the record", f"must be at most {_LONGEST_RECORD} bytes")
    record = record_of(content, "weights", ArrayRecord, names)
    weights = unpack(record)
    return signed.tobytes(), tuple(np.array(array, dtype=array.dtype) for array in weights)


def with_witness(content: RecordDict, note: str) -> RecordDict:
    """Add the checkpoint that the coordinator saw last, "" for none, and so ask for the one of now."""
    return RecordDict({**content, "witness": ConfigRecord({"note": note})})


def split_witness(content: RecordDict) -> tuple[str | None, RecordDict]:
    """Return the checkpoint that came with a question, None where none did, and the question.

    Raises:
        WireFault: What came is not a checkpoint's text.
    """
    if "witness" not in content:
        return None, content
    record, rest = content["witness"], RecordDict({name: content[name] for name in content if name != "witness"})
    note = record.get("note") if isinstance(record, ConfigRecord) and len(record) == 1 else None
    if type(note) is not str or len(note) > _LONGEST_NOTE:
        raise wire_fault("the witness", f"must be a note of at most {_LONGEST_NOTE} characters")
    return note, rest


def with_head(content: RecordDict, head: LedgerHead) -> RecordDict:
    """Add the ledger's checkpoint to an answer."""
    return RecordDict({**content, "head": ConfigRecord({"header": canonical(head.header).decode()})})


def split_head(content: RecordDict) -> tuple[LedgerHead | None, RecordDict]:
    """Return the checkpoint that came with an answer, None where none did, and the answer.

    Raises:
        WireFault: What came is not a checkpoint.
    """
    if "head" not in content:
        return None, content
    record, rest = content["head"], RecordDict({name: content[name] for name in content if name != "head"})
    text = record.get("header") if isinstance(record, ConfigRecord) and len(record) == 1 else None
    try:
        if type(text) is not str or len(text) > _LONGEST_HEAD:
            raise ValueError
        table = json.loads(text)
        head = LedgerHead(table["note"], table["since"], tuple(table["proof"]))
        right = type(head.note) is str and type(head.since) is int and all(type(step) is str for step in head.proof)
        if not right or canonical(head.header).decode() != text:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise wire_fault("the ledger's checkpoint", "must have note, since and proof") from None
    return head, rest


def encode_release(release: Release) -> RecordDict:
    """Wrap a release."""
    header = canonical(release.header).decode()
    config = ConfigRecord({"format": _FORMAT, "kind": release.kind, "header": header})
    return RecordDict({"release": config, "arrays": pack(release.arrays)})


def decode_release(
    content: RecordDict,
    *,
    update: Event | None = None,
    histogram: Event | None = None,
    summed: DistributedGaussian | None = None,
    listed: DiscreteGaussian | None = None,
) -> Release:
    """Unwrap a release.

    Args:
        content: What came.
        update: The plan's event of an update or of a partner's own sum, which is not on the wire; None where none is
            expected.
        histogram: The plan's event of a histogram, likewise.
        summed: The plan's event of a masked vector, likewise.
        listed: The plan's event of a list for a match, likewise; None also where it is a Disclosure.

    Raises:
        WireFault: The message is not a release of a known kind with exactly its fields.
    """
    config = record_of(content, "release", ConfigRecord, {"release", "arrays"})
    record = record_of(content, "arrays", ArrayRecord, {"release", "arrays"})
    text = config.get("header")
    if len(config) != 3 or config.get("format") != _FORMAT or type(text) is not str or len(text) > _LONGEST:
        raise wire_fault("the release", "must have format, kind and header")
    arrays = tuple(unpack(record))
    try:
        kind, header = str(config.get("kind")), json.loads(text)
        if kind in _SUMMING:
            release: Release = message_of(kind, header, arrays, event=summed)
        elif kind in _MATCHING:
            release = leaving_of(kind, header, arrays, event=listed or Nothing())
        else:
            release = _release(kind, header, arrays, update or Nothing(), histogram or Nothing())
        # What was read must say again exactly what came: no spare fields, no second spelling.
        if canonical(release.header).decode() != text or len(release.arrays) != len(arrays):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, CoterieError):
        raise wire_fault("the release", "is of no expected kind, or has other fields") from None
    return release


def _release(
    kind: str, header: dict[str, Any], arrays: tuple[NDArray[Any], ...], update: Event, histogram: Event
) -> Release:
    release: Release
    if kind == ConsentGiven.kind:
        release = ConsentGiven(header["plan"], header["partner"], bytes.fromhex(header["signature"]))
    elif kind == Refused.kind:
        release = Refused(header["plan"], tuple(header["codes"]))
    elif kind == ModelReceived.kind:
        release = ModelReceived(**header)
    elif kind == ModelUpdate.kind and isinstance(update, PoissonGaussian):
        release = ModelUpdate(**header, event=update, arrays=arrays)
    elif kind == PartnerSum.kind and isinstance(update, PoissonGaussian):
        release = PartnerSum(**header, event=update, arrays=arrays)
    elif kind == ScoreHistogram.kind and isinstance(histogram, DiscreteGaussian):
        release = ScoreHistogram(**header, event=histogram, arrays=arrays)
    else:
        raise KeyError(kind)
    texts = [header[key] for key in ("plan", "partner", "step", "model", "record") if key in header]
    if not all(type(text) is str for text in texts) or type(header.get("attempt", 1)) is not int:
        raise TypeError
    if isinstance(release, Refused) and not set(release.codes) <= set(CODES):
        raise ValueError  # a word that nobody agreed on may say anything
    return release
