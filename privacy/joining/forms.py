"""The signed forms that travel when a partner joins: read strictly, one byte string for one meaning."""

import datetime
import hashlib
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import CoterieError, Fault, FileFault
from coterie.privacy.schema import parse

__all__ = ["SKEW", "Form", "JoinFault", "compare", "fingerprint", "moment", "read_form", "stamp"]

T = TypeVar("T")

SKEW = datetime.timedelta(hours=1)  # what two well-meant clocks may differ by


class JoinFault(CoterieError):
    """A request, admission, key or certificate that is not what joining needs."""


@dataclass(frozen=True)
class Form:
    """How one kind of form is written.

    Args:
        format: The marker that a file of this kind begins its meaning with, e.g. "coterie/admission/v1".
        body: The key under which its content stands.
        seals: The keys of what proves it, each hexadecimal text.
        longest: Most bytes of a file.
    """

    format: str
    body: str
    seals: tuple[str, ...]
    longest: int

    def write(self, content: dict[str, Any], *seals: bytes) -> bytes:
        """Return the form as canonical JSON; `seals` in the order of `self.seals`."""
        proofs = {name: seal.hex() for name, seal in zip(self.seals, seals, strict=True)}
        return canonical({"format": self.format, self.body: content, **proofs})

    def said(self, content: dict[str, Any], seal: str) -> bytes:
        """Return the bytes that one of the seals is made on; they begin with a label of their own."""
        return f"{self.format}/{seal}\n".encode() + canonical(content)


def read_form(kind: type[T], data: bytes, form: Form) -> tuple[T, tuple[bytes, ...]]:
    """Read a form's content and its seals, which are not checked here.

    Args:
        kind: A frozen dataclass whose fields carry `privacy/schema.py` metadata.
        data: What a stranger sent.
        form: How it must be written.

    Raises:
        JoinFault: Too long, not canonical JSON, of another format, or its content breaks the schema.
    """
    place, fix = form.format, "ask its sender to make it again with this version of coterie"
    if len(data) > form.longest:
        raise JoinFault(Fault(place, f"must have at most {form.longest} bytes", fix))
    try:
        table = json.loads(data)
        if set(table) != {"format", form.body, *form.seals} or table["format"] != form.format:
            raise ValueError
        seals = tuple(bytes.fromhex(table[name]) for name in form.seals)
        if form.write(table[form.body], *seals) != data:  # one spelling, also of hexadecimal
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise JoinFault(Fault(place, "is not a form of this format", fix)) from None
    try:
        return parse(kind, table[form.body], place=form.body), seals
    except FileFault as error:
        raise JoinFault(*error.faults) from None


def stamp(at: datetime.datetime) -> str:
    """Return a time in UTC as text, in whole seconds."""
    return at.astimezone(datetime.UTC).isoformat(timespec="seconds")


def moment(text: str, place: str) -> datetime.datetime:
    """Return the time that `stamp` wrote.

    Args:
        text: ISO 8601 in UTC with whole seconds, in the one spelling of `stamp`.
        place: Which field it is, for the fault.

    Raises:
        JoinFault: It is no such text.
    """
    try:
        at = datetime.datetime.fromisoformat(text)
        if at.tzinfo is None or stamp(at) != text:
            raise ValueError
    except (ValueError, OverflowError):
        rule = "must be a time in UTC such as 2030-01-02T03:04:05+00:00"
        raise JoinFault(Fault(place, rule, "ask its sender to make it again")) from None
    return at


def fingerprint(key: str) -> str:
    """Return what two people read to each other by telephone: eight groups of four hexadecimal digits.

    They are the first 128 bits of the SHA-256 of the key's text. Somebody who wants to pass off another key as this
    one needs a second pre-image of its fingerprint: about 2**128 attempts. Collisions come cheaper (2**64), but serve
    nobody: both keys of a collision are made by the same person, who then has one of the two admitted.

    Args:
        key: A public key as text, or several joined by line breaks.
    """
    digits = hashlib.sha256(key.encode()).hexdigest()[:32]
    return " ".join(digits[start : start + 4] for start in range(0, 32, 4))


def compare(said: str, shown: str, *, whose: str) -> None:
    """Hold a fingerprint that somebody read out against the one of what arrived.

    Args:
        said: As it was read or typed; spaces, colons, dashes and capitals do not matter.
        shown: What `fingerprint` returned.
        whose: Who read it, for the fault.

    Raises:
        JoinFault: They differ, by as little as one digit.
    """
    heard = "".join(character for character in said.lower() if character not in " :-\t")
    if heard != shown.replace(" ", ""):
        rule = "is not the fingerprint of what arrived (8 groups of 4 digits)"
        fix = "read it out again; if it still differs, what arrived was exchanged on its way: do not go on"
        raise JoinFault(Fault(f"fingerprint of {whose}", rule, fix))
