"""The shapes of the ledger's entries: the kinds that there are, and the exact fields of each."""

import datetime
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coterie.privacy.errors import CoterieError
from coterie.privacy.events import event_from_dict
from coterie.privacy.release import CODES

__all__ = ["FORMAT", "SHAPES", "Shape", "is_time"]

FORMAT = "coterie/ledger/v2"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_AT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{6})?\+00:00", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HALVES = re.compile("[\ud800-\udfff]")  # halves of a character, which UTF-8 does not write
_LONGEST = 200
_DEEPEST = 6
_MOST_SUMS = 10_001  # a round has 10,000 steps and one histogram at most


@dataclass(frozen=True)
class Shape:
    """The fields of one kind of entry.

    Args:
        meaning: What the entry says, in plain words.
        fields: Check of each field's value.
        optional: Names of fields that may be missing.
    """

    meaning: str
    fields: Mapping[str, Callable[[object], bool]]
    optional: frozenset[str] = frozenset()


def _digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _digest_or_none(value: object) -> bool:
    return value == "" or _digest(value)


def _text(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST
        and (value.isprintable() or (min(value) >= " " and not _HALVES.search(value)))
    )


def _format(value: object) -> bool:
    return value == FORMAT


def _day(value: object) -> bool:
    if not isinstance(value, str) or _DAY.fullmatch(value) is None:
        return False
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _event(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    try:
        event_from_dict(value)
    except (CoterieError, OverflowError, RecursionError):
        return False
    return True


def _curve(value: object) -> bool:
    return isinstance(value, list) and len(value) <= 200 and all(_number(item) for item in value)


def _codes(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= len(CODES)
        and all(isinstance(item, str) and item in CODES for item in value)
    )


def _names(value: object) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 1000 and all(_text(item) for item in value)


def _steps(value: object) -> bool:
    """Names of one epoch's secure sums: a round's steps and its histogram at most, so that no entry grows too long."""
    return isinstance(value, list) and 0 < len(value) <= _MOST_SUMS and all(_text(item) for item in value)


def _one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in words


def _content(value: object, depth: int = 0) -> bool:
    """A table of settings: texts, numbers, lists and tables, not without end."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return len(value) <= 1000 and all(_text(k) and _content(v, depth + 1) for k, v in value.items())
    if isinstance(value, list):
        return len(value) <= 10_000 and all(_content(item, depth + 1) for item in value)
    if isinstance(value, str):
        return len(value) <= 1000 and not _HALVES.search(value)
    return isinstance(value, bool) or _number(value)


SHAPES: Mapping[str, Shape] = {
    "opened": Shape(
        "whose ledger it is; entries before it were carried over from version 1",
        {"format": _format, "partner": _text, "key": _text, "groups": _digest, "carried": _count},
    ),
    "policy": Shape(
        "the rules of the partner from here on, in full",
        {"policy": _digest, "content": lambda value: isinstance(value, dict) and _content(value)},
    ),
    "consent": Shape(
        "the partner said yes; what the study may charge is fixed here",
        {
            "release": _digest,
            "plan": _digest,
            "name": _text,
            "purpose": _text,
            "customer": _text,
            "contract": _digest,
            "expires": _day,
            "policy": _digest,
            "update": _event,
            "updates": _count,
            "histogram": _event,
            "histograms": _count,
            "update_curve": _curve,
            "histogram_curve": _curve,
            "counting": _event,
            "countings": _count,
            "overlap": _event,
            "overlaps": _count,
            "segments": _names,
            "division": _digest,
        },
        frozenset(
            {
                *("update_curve", "histogram_curve", "counting", "countings"),
                *("overlap", "overlaps", "segments", "division"),
            }
        ),
    ),
    "approval": Shape(
        "the partner's operator decided about a plan; the newest word on a plan holds",
        {"plan": _digest, "decision": _one_of("approved", "declined"), "by": _text, "reason": _text},
        frozenset({"reason"}),
    ),
    "refusal": Shape(
        "the partner said no",
        {"release": _digest_or_none, "plan": _digest_or_none, "codes": _codes},
    ),
    "reserve": Shape(
        "a charge, durable before its noise was drawn",
        {
            "plan": _digest,
            "purpose": _text,
            "step": _text,
            "attempt": _count,
            "group": _text,
            "event": _event,
            "random": _text,
            "curve": _curve,
            "segments": _names,
            "rows": _digest,
        },
        frozenset({"curve", "segments", "rows"}),
    ),
    "settle": Shape("the charge paid for the release with this digest", {"reserve": _count, "release": _digest}),
    "lost": Shape("a crash left the charge without a release; it stays spent", {"reserve": _count}),
    "model": Shape(
        "a model was received, with the coordinator's record of the study",
        {"release": _digest, "plan": _digest, "model": _digest, "record": _digest},
    ),
    "keys": Shape(
        "keys for an epoch of secure sums were advertised, or the shares of their secrets dealt",
        {
            "release": _digest,
            "plan": _digest,
            "epoch": _count,
            "steps": _steps,
            "what": _one_of("round-keys", "dealt-shares"),
        },
    ),
    "opening": Shape(
        "a secure sum's survivors were signed, or the shares revealed that open it",
        {
            "release": _digest,
            "plan": _digest,
            "step": _text,
            "attempt": _count,
            "epoch": _count,
            "what": _one_of("survivors-signed", "revealed-shares"),
            "transcript": _digest,
            "survivors": _names,
        },
    ),
    "disclosure": Shape(
        "a list of identifiers, blinded, left for a match whose outcome no epsilon covers",
        {
            "release": _digest,
            "plan": _digest,
            "purpose": _text,
            "outcome": _one_of("rows", "tokens"),
            "identifier": _one_of("email", "phone", "loyalty"),
            "partners": _names,
            "rows": _digest,
        },
    ),
    "manifest": Shape(
        "the lists of all partners of a match are fixed from here on; so many of their points are evaluated at most",
        {"release": _digest, "plan": _digest, "manifest": _digest, "evaluations": _count},
    ),
    "match": Shape(
        "a message of a match left: of points that are sealed to another partner, or of what came out",
        {
            "release": _digest,
            "plan": _digest,
            "what": _one_of("parcel-taken", "match-parcel", "overlap-counts", "match-ended"),
            "list": _text,
            "hop": _count,
            "index": _count,
            "towards": _text,
            "points": _count,
        },
        frozenset({"list", "hop", "index", "towards", "points"}),
    ),
    "vault": Shape(
        "a sealed data set has this manifest from here on; nothing else says which one is the newest",
        {
            "dataset": _one_of("customers", "interactions", "consents", "identifiers", "matches"),
            "version": _count,
            "manifest": _digest,
            "what": _one_of("sealed", "rewrapped", "rekeyed", "erased"),
            "keys": _text,
            "epoch": _text,
        },
    ),
    "erasure": Shape(
        "a customer's rows were erased from every data set; names nobody",
        {
            "answer": _digest,
            "datasets": _names,
            "keys": _text,
            "epoch": _text,
            "shredded": _one_of("destroyed", "not-provable"),
        },
    ),
}


def is_time(text: str) -> bool:
    """Return whether a text is a time in UTC as entries have it."""
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return _AT.fullmatch(text) is not None
