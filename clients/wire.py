"""The language that coordinator and partners speak over Flower: names of records and keys, written once.

    propose    {"plan": arrays{"signed": uint8}}                         query.propose
    task       {"task": config{plan, round, attempt}, "weights": arrays{"0", "1", ...}}   train, evaluate
    release    {"release": config{format, kind, header}, "arrays": arrays{"0", "1", ...}}

What comes in is believed in nothing: kinds, keys, types, and the size of an array against its bytes are checked
before memory is taken.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from coterie.clients.task import Task
from coterie.privacy.canonical import canonical
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.events import DiscreteGaussian, Event, Nothing, PoissonGaussian
from coterie.privacy.release import CODES, ConsentGiven, ModelUpdate, Refused, Release, ScoreHistogram

__all__ = [
    "EVALUATE",
    "PROPOSE",
    "TRAIN",
    "WireFault",
    "decode_plan",
    "decode_release",
    "decode_task",
    "encode_plan",
    "encode_release",
    "encode_task",
]

PROPOSE, TRAIN, EVALUATE = "query.propose", "train", "evaluate"

_FORMAT = "coterie/release/v1"
_LONGEST = 1 << 20  # greatest header and plan, in bytes
# Format 1.0 of numpy's files: magic, length of the text, text.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"(?P<text>\{'descr': '(?P<dtype><f4|<i8|\|u1)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>|\d{1,18},|\d{1,18}(?:, \d{1,18}){1,7})\), \} *\n)",
    re.DOTALL,
)


class WireFault(CoterieError):
    """A message that is not in this language: the peer's fault, never ours."""


def encode_plan(signed: bytes) -> RecordDict:
    """Wrap a signed plan for `PROPOSE`."""
    return RecordDict({"plan": _pack(["signed"], [np.frombuffer(signed, dtype=np.uint8)])})


def decode_plan(content: RecordDict) -> bytes:
    """Unwrap a signed plan.

    Raises:
        WireFault: The message is not one.
    """
    (signed,) = _unpack(_record(content, "plan", ArrayRecord, {"plan"}), ["signed"])
    if signed.dtype != np.uint8 or signed.ndim != 1 or len(signed) > _LONGEST:
        raise _fault("the plan", f"must be at most {_LONGEST} bytes")
    return signed.tobytes()


def encode_task(task: Task) -> RecordDict:
    """Wrap a task for `TRAIN` or `EVALUATE`."""
    config = ConfigRecord({"plan": task.plan, "round": task.round, "attempt": task.attempt})
    return RecordDict({"task": config, "weights": _pack(_names(len(task.weights)), task.weights)})


def decode_task(content: RecordDict) -> Task:
    """Unwrap a task.

    Raises:
        WireFault: The message is not one.
    """
    config = _record(content, "task", ConfigRecord, {"task", "weights"})
    plan, round_, attempt = (config.get(key) for key in ("plan", "round", "attempt"))
    if len(config) != 3 or type(plan) is not str or type(round_) is not int or type(attempt) is not int:
        raise _fault("the task", "must have plan, round and attempt")
    record = _record(content, "weights", ArrayRecord, {"task", "weights"})
    weights = _unpack(record, _names(len(record)))
    return Task(plan, round_, attempt, tuple(np.array(array, dtype=array.dtype) for array in weights))


def encode_release(release: Release) -> RecordDict:
    """Wrap a release."""
    header = canonical(release.header).decode()
    config = ConfigRecord({"format": _FORMAT, "kind": release.kind, "header": header})
    return RecordDict({"release": config, "arrays": _pack(_names(len(release.arrays)), release.arrays)})


def decode_release(
    content: RecordDict, *, update: PoissonGaussian | None, histogram: DiscreteGaussian | None
) -> Release:
    """Unwrap a release.

    Args:
        content: What came.
        update: The plan's event of an update, which is not on the wire; None where none is expected.
        histogram: The plan's event of a histogram, likewise.

    Raises:
        WireFault: The message is not a release of a known kind with exactly its fields.
    """
    config = _record(content, "release", ConfigRecord, {"release", "arrays"})
    record = _record(content, "arrays", ArrayRecord, {"release", "arrays"})
    text = config.get("header")
    if len(config) != 3 or config.get("format") != _FORMAT or type(text) is not str or len(text) > _LONGEST:
        raise _fault("the release", "must have format, kind and header")
    arrays = tuple(_unpack(record, _names(len(record))))
    try:
        release = _release(
            str(config.get("kind")), json.loads(text), arrays, update or Nothing(), histogram or Nothing()
        )
        # What was read must say again exactly what came: no spare fields, no second spelling.
        if canonical(release.header).decode() != text or len(release.arrays) != len(arrays):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _fault("the release", "is of no expected kind, or has other fields") from None
    return release


def _release(
    kind: str, header: dict[str, Any], arrays: tuple[NDArray[Any], ...], update: Event, histogram: Event
) -> Release:
    release: Release
    if kind == ConsentGiven.kind:
        release = ConsentGiven(header["plan"], header["partner"], bytes.fromhex(header["signature"]))
    elif kind == Refused.kind:
        release = Refused(header["plan"], tuple(header["codes"]))
    elif kind == ModelUpdate.kind and isinstance(update, PoissonGaussian):
        release = ModelUpdate(**header, event=update, arrays=arrays)
    elif kind == ScoreHistogram.kind and isinstance(histogram, DiscreteGaussian):
        release = ScoreHistogram(**header, event=histogram, arrays=arrays)
    else:
        raise KeyError(kind)
    texts = [header[key] for key in ("plan", "partner", "step", "model") if key in header]
    if not all(type(text) is str for text in texts) or type(header.get("attempt", 1)) is not int:
        raise TypeError
    if isinstance(release, Refused) and not set(release.codes) <= set(CODES):
        raise ValueError  # a word that nobody agreed on may say anything
    return release


def _pack(names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> ArrayRecord:
    pairs = zip(names, arrays, strict=True)
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in pairs})


def _unpack(record: Any, names: Sequence[str]) -> list[NDArray[Any]]:  # noqa: ANN401 - Flower's record
    if list(record) != list(names):
        raise _fault("the arrays", "must be named " + ", ".join(names))
    return [_array(record[name]) for name in names]


def _array(array: Array) -> NDArray[Any]:
    """Read one array, holding its header against its bytes before believing either.

    The header is held against the one form in which numpy writes it; numpy's own reader would run it through
    Python's parser, which knows more ways to fail than a peer should be able to choose from.
    """
    found = _HEADER.match(array.data)
    try:
        if found is None or int.from_bytes(found["length"], "little") != found.end() - found.start("text"):
            raise ValueError
        shape = tuple(int(size) for size in found["shape"].replace(b",", b" ").split())
        dtype = np.dtype(found["dtype"].decode())
        rest = array.data[found.end() :]
        if len(rest) != math.prod(shape) * dtype.itemsize:
            raise ValueError
        return np.frombuffer(rest, dtype=dtype).reshape(shape)
    except ValueError:
        raise _fault("an array", "must be float32, int64 or uint8, in C order, whole") from None


def _record(content: RecordDict, name: str, kind: type[Any], names: set[str]) -> Any:  # noqa: ANN401 - Flower's record
    if set(content) != names or not isinstance(content[name], kind):
        raise _fault("the message", "must have the records " + ", ".join(sorted(names)))
    return content[name]


def _names(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def _fault(place: str, rule: str) -> WireFault:
    return WireFault(Fault(place, rule, "use the same version of coterie on both sides"))
