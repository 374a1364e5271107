"""Exact counts as a record, and the commitment to it that stands in a ledger.

The partner keeps its records sealed (`clients/keeping.py`); a reviewer who is shown one holds it against the ledger.

Guarantees:
    The commitment is SHA-256 over a label and the canonical JSON of the record with its salt. It hides: without the
    salt, 256 random bits, counts that are guessed cannot be tried against it. It binds: two records with one
    commitment would be a collision of SHA-256.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import Fault, FileFault

__all__ = ["NO_RECORD", "Record", "check", "record_of"]

NO_RECORD = ("must be a record of counts with plan and salt", "give what the partner's counts command printed")
"""Rule and fix of what is no record."""

_LABEL = b"coterie/counts/v1\n"
_PLAN = re.compile(r"sha256:[0-9a-f]{64}")
_HALVES = re.compile("[\ud800-\udfff]")  # halves of a character, which UTF-8 does not write
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Record:
    """What was opened once; its `repr` shows nothing of it.

    Args:
        about: Of what: plan (digest), purpose, step, attempt.
        counts: How many: rows, customers, and what was let pass or left out, by reason.
        salt: 32 random bytes in hexadecimal.
    """

    about: Mapping[str, str]
    counts: Mapping[str, int]
    salt: str

    def __repr__(self) -> str:
        """Return a text without any count."""
        return "Record(...)"

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values, for a reviewer who may see it."""
        return {"about": dict(self.about), "counts": dict(self.counts), "salt": self.salt}

    @property
    def commitment(self) -> str:
        """What the ledger says of the record: it hides the counts, and binds to them."""
        return "sha256:" + hashlib.sha256(_LABEL + canonical(self.to_dict())).hexdigest()


def check(shown: object) -> str:
    """Return the commitment to a record that a partner shows: the ledger's entry must name the same.

    Args:
        shown: What `Record.to_dict` returned.

    Raises:
        FileFault: It is no record.
    """
    return record_of(shown, "the record").commitment


def record_of(value: object, place: str) -> Record:
    """Read a record strictly: what is committed to must have one meaning.

    Args:
        value: What `Record.to_dict` returned.
        place: What a fault calls it.

    Raises:
        FileFault: It is no record.
    """
    if not (isinstance(value, dict) and value.keys() == {"about", "counts", "salt"}):
        raise FileFault(Fault(place, *NO_RECORD))
    about, counts, salt = value["about"], value["counts"], value["salt"]
    told = isinstance(about, dict) and all(_text(part) for pair in about.items() for part in pair)
    counted = isinstance(counts, dict) and all(_text(name) and _count(n) for name, n in counts.items())
    salted = isinstance(salt, str) and _HEX.fullmatch(salt) is not None
    if not (told and counted and salted and _PLAN.fullmatch(about.get("plan", ""))):
        raise FileFault(Fault(place, *NO_RECORD))
    return Record(about, counts, salt)


def _text(value: object) -> bool:
    return isinstance(value, str) and not _HALVES.search(value)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
