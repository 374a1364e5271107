"""The questions of a secure sum over Flower; the answers are releases (`wire.py`).

    query.keys        {"sum": config{fields}}    plan, epoch, steps
    query.deal        {"sum": config{fields}, "messages": arrays{"0", "1", ...}}    plan, epoch
    train, evaluate   {"sum": ..., "messages": ..., "weights": arrays}    plan, step, attempt, epoch, cohort
    query.sign        {"sum": config{fields}}    plan, epoch, claims
    query.reveal      {"sum": config{fields}, "messages": arrays}    plan, epoch

"fields" is canonical JSON of what stands beside it. "messages" are other partners' messages, each as its bytes
(`privacy/secagg/codec.py`). As in `wire.py`, what comes in is believed in nothing.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from coterie.clients.records import WireFault, pack, record_of, unpack, wire_fault
from coterie.clients.task import DealAsked, KeysAsked, RevealAsked, SignAsked, SumTask
from coterie.privacy.canonical import canonical
from coterie.privacy.secagg.codec import from_bytes, to_bytes
from coterie.privacy.secagg.errors import PeerFault
from coterie.privacy.secagg.messages import DealtShares, Message, RoundKeys, SurvivorsSigned
from coterie.privacy.secagg.transcript import Claim

__all__ = [
    "DEAL",
    "KEYS",
    "REVEAL",
    "SIGN",
    "decode_deal",
    "decode_keys",
    "decode_reveal",
    "decode_sign",
    "decode_sum",
    "encode_deal",
    "encode_keys",
    "encode_reveal",
    "encode_sign",
    "encode_sum",
    "is_sum",
]

KEYS, DEAL, SIGN, REVEAL = "query.keys", "query.deal", "query.sign", "query.reveal"

_LONGEST = 1 << 20  # of the question's own part, in bytes
_MOST = 1000  # partners
T = TypeVar("T")
M = TypeVar("M", RoundKeys, DealtShares, SurvivorsSigned)


def encode_keys(asked: KeysAsked) -> RecordDict:
    """Wrap the question for `KEYS`."""
    return _question({"plan": asked.plan, "epoch": asked.epoch, "steps": list(asked.steps)})


def decode_keys(content: RecordDict) -> KeysAsked:
    """Unwrap it.

    Raises:
        WireFault: The message is not one.
    """
    return _read(content, lambda t: KeysAsked(_text(t["plan"]), _number(t["epoch"]), _texts(t["steps"])))


def encode_deal(asked: DealAsked) -> RecordDict:
    """Wrap the question for `DEAL`."""
    return _question({"plan": asked.plan, "epoch": asked.epoch}, messages=asked.keys)


def decode_deal(content: RecordDict) -> DealAsked:
    """Unwrap it.

    Raises:
        WireFault: The message is not one.
    """
    keys = _messages(content, RoundKeys)
    return _read(content, lambda t: DealAsked(_text(t["plan"]), _number(t["epoch"]), keys))


def encode_sum(task: SumTask) -> RecordDict:
    """Wrap a task for `TRAIN` or `EVALUATE`."""
    fields = {name: getattr(task, name) for name in ("plan", "step", "attempt", "epoch")}
    content = _question({**fields, "cohort": list(task.cohort)}, messages=task.dealt)
    content["weights"] = pack(task.weights)
    return content


def decode_sum(content: RecordDict) -> SumTask:
    """Unwrap a task.

    Raises:
        WireFault: The message is not one.
    """
    dealt = _messages(content, DealtShares)
    arrays = unpack(record_of(content, "weights", ArrayRecord, {"sum", "messages", "weights"}))
    weights = tuple(np.array(array, dtype=array.dtype) for array in arrays)

    def task(table: Mapping[str, Any]) -> SumTask:
        plan, step = _text(table["plan"]), _text(table["step"])
        attempt, epoch = _number(table["attempt"]), _number(table["epoch"])
        return SumTask(plan, step, attempt, weights, epoch, _texts(table["cohort"]), dealt)

    return _read(content, task)


def encode_sign(asked: SignAsked) -> RecordDict:
    """Wrap the question for `SIGN`."""
    claims = [{**asdict(claim), "signature": claim.signature.hex()} for claim in asked.claims]
    return _question({"plan": asked.plan, "epoch": asked.epoch, "claims": claims})


def decode_sign(content: RecordDict) -> SignAsked:
    """Unwrap it.

    Raises:
        WireFault: The message is not one.
    """
    return _read(content, lambda t: SignAsked(_text(t["plan"]), _number(t["epoch"]), _claims(t["claims"])))


def encode_reveal(asked: RevealAsked) -> RecordDict:
    """Wrap the question for `REVEAL`."""
    return _question({"plan": asked.plan, "epoch": asked.epoch}, messages=asked.signed)


def decode_reveal(content: RecordDict) -> RevealAsked:
    """Unwrap it.

    Raises:
        WireFault: The message is not one.
    """
    signed = _messages(content, SurvivorsSigned)
    return _read(content, lambda t: RevealAsked(_text(t["plan"]), _number(t["epoch"]), signed))


def is_sum(content: RecordDict) -> bool:
    """Return whether a task is one of a secure sum."""
    return "sum" in content


def _question(fields: Mapping[str, Any], *, messages: Iterable[Message] | None = None) -> RecordDict:
    content = RecordDict({"sum": ConfigRecord({"fields": canonical(fields).decode()})})
    if messages is not None:
        content["messages"] = pack([np.frombuffer(to_bytes(message), dtype=np.uint8) for message in messages])
    return content


def _read(content: RecordDict, make: Callable[[Mapping[str, Any]], T]) -> T:
    """Read a question's fields; what was read must say again exactly what came."""
    record = content.get("sum")
    text = record.get("fields") if isinstance(record, ConfigRecord) and len(record) == 1 else None
    try:
        if type(text) is not str or len(text) > _LONGEST or not set(content) <= {"sum", "messages", "weights"}:
            raise ValueError
        table = json.loads(text)
        if canonical(table).decode() != text:
            raise ValueError
        return make(table)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise wire_fault("the question of a secure sum", "has other fields than it should") from None


def _messages(content: RecordDict, kind: type[M]) -> tuple[M, ...]:
    record = content.get("messages")
    if not isinstance(record, ArrayRecord):
        raise wire_fault("the question of a secure sum", "lacks the other partners' messages")
    found = []
    for data in unpack(record):
        if data.dtype != np.uint8 or data.ndim != 1:
            raise wire_fault("a partner's message", "must be bytes")
        try:
            message = from_bytes(data.tobytes())
        except PeerFault as error:
            raise WireFault(*error.faults) from None
        if not isinstance(message, kind):
            raise wire_fault("a partner's message", "is of another kind")
        found.append(message)
    return tuple(found)


def _claims(values: object) -> tuple[Claim, ...]:
    if not isinstance(values, list) or len(values) > _MOST:
        raise TypeError
    return tuple(
        Claim(
            _text(value["partner"]),
            _text(value["step"]),
            _number(value["attempt"]),
            _text(value["vector"]),
            bytes.fromhex(_text(value["signature"])),
        )
        for value in values
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise TypeError
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) > 10_000:
        raise TypeError
    return tuple(_text(value) for value in values)


def _number(value: object) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        raise TypeError
    return value
