"""The language of matches over Flower: questions and how they are written; answers are releases (`wire.py`).

    query.match   {"match": config{fields}, and for a parcel "sealed": arrays{"0"}}

`fields` is canonical JSON with "ask" and what the question has. What comes in is believed in nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from coterie.clients.records import pack, unpack, wire_fault
from coterie.privacy.canonical import canonical
from coterie.privacy.errors import CoterieError
from coterie.privacy.matching.channel import Address, Parcel
from coterie.privacy.matching.commitment import Commitment

__all__ = [
    "MATCH",
    "Agree",
    "Asked",
    "Commit",
    "Count",
    "End",
    "Give",
    "Take",
    "decode_match",
    "encode_match",
]

MATCH = "query.match"
_LONGEST = 1 << 20
_MOST = 1000  # partners


@dataclass(frozen=True)
class Commit:
    """The question for a partner's list, fixed.

    Args:
        plan: Digest of the plan.
        attempt: 1, or more after a lost one.
    """

    plan: str
    attempt: int


@dataclass(frozen=True)
class Agree:
    """The question whether a partner works with these lists.

    Args:
        plan: Digest of the plan.
        commitments: Those of all partners.
    """

    plan: str
    commitments: tuple[Commitment, ...]


@dataclass(frozen=True)
class Give:
    """The question for a piece of a list, sealed for whom it goes to next.

    Args:
        plan: Digest of the plan.
        address: Which piece of which list, and on which stretch of its way.
    """

    plan: str
    address: Address


@dataclass(frozen=True)
class Take:
    """A piece of a list, from another partner.

    Args:
        plan: Digest of the plan.
        parcel: The piece.
    """

    plan: str
    parcel: Parcel


@dataclass(frozen=True)
class Count:
    """The question for the counts.

    Args:
        plan: Digest of the plan.
    """

    plan: str


@dataclass(frozen=True)
class End:
    """The question to keep what came out, and to destroy the match's secrets.

    Args:
        plan: Digest of the plan.
    """

    plan: str


Asked = Commit | Agree | Give | Take | Count | End
_PLAIN: Mapping[str, type[Commit] | type[Count] | type[End]] = {
    "commit": Commit,
    "count": Count,
    "end": End,
}


def encode_match(asked: Asked) -> RecordDict:
    """Wrap a question for `MATCH`."""
    if isinstance(asked, Agree):
        shown = [commitment.header for commitment in asked.commitments]
        return _question({"ask": "agree", "plan": asked.plan, "commitments": shown})
    if isinstance(asked, Give):
        return _question({"ask": "give", "plan": asked.plan, **asdict(asked.address)})
    if isinstance(asked, Take):
        content = _question({"ask": "take", "plan": asked.plan, "parcel": asked.parcel.header})
        content["sealed"] = pack([np.frombuffer(asked.parcel.sealed, dtype=np.uint8)])
        return content
    ask = next(name for name, kind in _PLAIN.items() if isinstance(asked, kind))
    return _question({"ask": ask, **asdict(asked)})


def decode_match(content: RecordDict) -> Asked:
    """Unwrap a question.

    Raises:
        WireFault: The message is not one.
    """
    record = content.get("match")
    text = record.get("fields") if isinstance(record, ConfigRecord) and len(record) == 1 else None
    try:
        if type(text) is not str or len(text) > _LONGEST or not set(content) <= {"match", "sealed"}:
            raise ValueError
        table = json.loads(text)
        if canonical(table).decode() != text:
            raise ValueError
        asked = _asked(table, content)
        if set(encode_match(asked)) != set(content) or _fields(encode_match(asked)) != text:
            raise ValueError  # one question has one spelling
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, CoterieError):
        raise wire_fault("the question of a match", "has other fields than it should") from None
    return asked


def _asked(table: dict[str, Any], content: RecordDict) -> Asked:
    ask, fields = table.pop("ask"), table
    plan = _text(fields["plan"])
    if ask == "agree":
        shown = fields["commitments"]
        if set(fields) != {"plan", "commitments"} or not isinstance(shown, list) or len(shown) > _MOST:
            raise TypeError
        return Agree(plan, tuple(Commitment.from_header(one) for one in shown))
    if ask == "take":
        sealed = content["sealed"]
        if set(fields) != {"plan", "parcel"} or not isinstance(sealed, ArrayRecord):
            raise TypeError
        (data,) = unpack(sealed)
        if data.dtype != np.uint8 or data.ndim != 1:
            raise TypeError
        return Take(plan, Parcel.from_parts(fields["parcel"], data.tobytes()))
    checks = {"attempt": _number, "hop": _number, "index": _number}
    read: dict[str, Any] = {name: checks.get(name, _text)(value) for name, value in fields.items()}
    if ask == "give":
        del read["plan"]
        return Give(plan, Address(**read))
    return _PLAIN[ask](**read)


def _question(fields: Mapping[str, Any]) -> RecordDict:
    return RecordDict({"match": ConfigRecord({"fields": canonical(fields).decode()})})


def _fields(content: RecordDict) -> object:
    record = content["match"]
    return record.get("fields") if isinstance(record, ConfigRecord) else None


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise TypeError
    return value


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise TypeError
    return value
