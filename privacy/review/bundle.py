"""The bundle: what a partner hands to a reviewer, one file that opens in any editor.

    {"bundle":"coterie/bundle/v1", ...}     whose, when, and how many parts follow
    {"plan":{...}}                          each signed plan that was consented to
    {"record":{...}}                        each signed record of a study that the coordinator handed out
    {"card":{...}}                          the card of each model that was received
    {"checkpoint":"..."}                    each cosigned checkpoint, oldest first
    {"entry":{...},"leaf":"..."}            each entry of the ledger, with its hash in the tree
    {"head":"...","signature":"..."}        the ledger's checkpoint of now; the partner's signature on all lines above

Every line is canonical JSON (RFC 8785), so there is one spelling of one bundle. Nothing in it is a row, an
identifier or a key. It is read as a stream: memory does not grow with the ledger.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from coterie.privacy.canonical import canonical
from coterie.privacy.charges import Entry
from coterie.privacy.entries import entry_bytes
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.identity import Identity
from coterie.privacy.merkle import leaf_hash

__all__ = ["FORMAT", "KINDS", "BundleFault", "Header", "Part", "bundle_lines", "read_parts", "signed_message"]

FORMAT = "coterie/bundle/v1"
KINDS = ("plan", "record", "card", "checkpoint", "entry")
"""The parts between the first line and the last, in their order."""

_LONGEST = (1 << 24) + 1024  # of a line, in bytes: a study's record of very many receipts
_DEEPEST = 32  # values within values
_LONGEST_ENTRY = 1 << 20
_LONGEST_OF = {"plan": 1 << 21, "card": 1 << 20, "checkpoint": 8192}
_MOST = 10**9  # parts of one kind
_ENTRY, _LEAF, _END = b'{"entry":', b',"leaf":"', b'"}\n'
_TAIL = len(_LEAF) + 64 + len(_END)
_HEX = re.compile(rb"[0-9a-f]{64}")
_SALT = re.compile(r"[0-9a-f]{32}")
# Numbers that orjson and RFC 8785 may write differently, where a number can stand; and characters beyond the first
# plane, which the two sort differently. A text that looks like one is looked at again, no more.
_UNSURE = re.compile(rb"(?:\":|[\[,])-?(?:[0-9.]*(?:\.0[,}\]]|[eE]|[0-9]{16})|0[,}\]](?<=-0.))|[\xf0-\xf4]")
# The same for lines of ASCII without lists, which are nearly all: one literal to look for is found much faster.
_UNSURE_FIELD = re.compile(rb'":-?(?:[0-9.]*(?:\.0[,}]|[eE]|[0-9]{16})|0[,}](?<=-0.))')


class BundleFault(CoterieError):
    """A bundle that cannot be read: not one, cut off, or with a line that is not what it must be."""


@dataclass(frozen=True)
class Header:
    """The first line.

    Args:
        partner: The partner's name.
        key: Its public identity key.
        made: When, by the partner's clock.
        software: What made it.
        parts: How many parts of each kind follow.
    """

    partner: str
    key: str
    made: str
    software: str
    parts: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the line as plain JSON values."""
        fields = {"partner": self.partner, "key": self.key, "made": self.made, "software": self.software}
        return {"bundle": FORMAT, **fields, "parts": self.parts}


@dataclass(frozen=True, slots=True)
class Part:
    """One line.

    Args:
        kind: "header", one of `KINDS`, or "end".
        index: Which of its kind, from 1: for an entry, its place in the ledger.
        value: What it holds.
        raw: Bytes of an entry as the tree commits to them.
        leaf: An entry's hash, as the line says it.
    """

    kind: str
    index: int
    value: Any
    raw: bytes = b""
    leaf: bytes = b""


def bundle_lines(
    header: Header, before: Iterable[tuple[str, Any]], entries: Iterable[Entry], *, head: str, identity: Identity
) -> Iterator[bytes]:
    """Write a bundle, line by line.

    Args:
        header: Its first line.
        before: Kind and value of each part before the entries, in the order of `KINDS`.
        entries: The ledger's.
        head: Its checkpoint, signed.
        identity: The partner's, for the signature on the whole.
    """
    sha = hashlib.sha256()

    def line(value: object) -> bytes:
        data = canonical(value) + b"\n"
        sha.update(data)
        return data

    yield line(header.to_dict())
    for kind, value in before:
        yield line({kind: value})
    for entry in entries:
        raw = entry_bytes(entry)
        data = _ENTRY + raw + _LEAF + leaf_hash(raw).hex().encode() + _END
        sha.update(data)
        yield data
    signature = identity.sign(signed_message(sha.digest(), head))
    yield canonical({"head": head, "signature": signature.hex()}) + b"\n"


def signed_message(lines: bytes, head: str) -> bytes:
    """Return what the partner signs: SHA-256 of all lines but the last, and the checkpoint in the last."""
    return FORMAT.encode() + b"\n" + lines + head.encode()


def read_parts(file: BinaryIO) -> Iterator[tuple[Part, bytes]]:
    """Yield the parts of a bundle in order, each with the SHA-256 of all lines before it.

    Raises:
        BundleFault: The bundle is cut off, or a line is not what it must be; the fault names the line, and the entry
            where it is one.
    """
    sha = hashlib.sha256()
    header = _header(_line(file, "line 1"))
    yield Part("header", 1, header[0]), sha.digest()
    sha.update(header[1])
    for kind in KINDS:
        for index in range(1, header[0].parts[kind] + 1):
            place = f"entry {index}" if kind == "entry" else f"{kind} {index}"
            line = _line(file, place, _LONGEST_OF.get(kind, _LONGEST))
            part = _entry(line, index) if kind == "entry" else Part(kind, index, _only(line, kind, place))
            yield part, sha.digest() if kind != "entry" else b""
            sha.update(line)
    last = _line(file, "the last line")
    end = _parsed(last[:-1], "the last line")
    if set(end) != {"head", "signature"} or not all(isinstance(value, str) for value in end.values()):
        raise _fault("the last line", "must hold the checkpoint and the signature")
    if file.read(1):
        raise _fault("the bundle", "goes on after its last line")
    yield Part("end", 1, end), sha.digest()


def _header(line: bytes) -> tuple[Header, bytes]:
    table = _parsed(line[:-1], "line 1")
    if table.get("bundle") != FORMAT:
        known = isinstance(table.get("bundle"), str) and str(table["bundle"]).startswith("coterie/bundle/")
        rule = "is of a newer format" if known else "is not a bundle's first line"
        raise _fault(
            "line 1", rule, "use a newer coterie" if known else "give a file that `coterie audit export` wrote"
        )
    texts = ("partner", "key", "made", "software")
    right = set(table) == {"bundle", "parts", *texts} and all(_short(table[name]) for name in texts)
    counts = table.get("parts")
    if not right or not isinstance(counts, dict) or set(counts) != set(KINDS):
        raise _fault("line 1", "must say whose bundle it is and how many parts follow")
    if not all(type(count) is int and 0 <= count <= _MOST for count in counts.values()):
        raise _fault("line 1", "counts parts out of range")
    return Header(table["partner"], table["key"], table["made"], table["software"], dict(counts)), line


def _entry(line: bytes, index: int) -> Part:
    place = f"entry {index}"
    leaf = line[-_TAIL + len(_LEAF) : -len(_END)]
    framed = line.startswith(_ENTRY) and line[-_TAIL:].startswith(_LEAF) and line.endswith(_END)
    if not framed or _HEX.fullmatch(leaf) is None or len(line) > _LONGEST_ENTRY:
        raise _fault(place, "is not a line that holds an entry and its hash")
    raw = line[len(_ENTRY) : -_TAIL]
    table = _parsed(raw, place)
    right = set(table) == {"at", "body", "kind", "salt", "seq"} and isinstance(table["body"], dict)
    salt = table.get("salt")
    # Types are compared too: true equals 1 for Python.
    placed = right and type(table["seq"]) is int and table["seq"] == index
    if not placed or not (_short(table["at"]) and _short(table["kind"])):
        raise _fault(place, "is missing, out of place, or lacks at, body, kind, salt or seq")
    if not isinstance(salt, str) or _SALT.fullmatch(salt) is None:
        raise _fault(place, "has no salt of 16 bytes")
    entry = Entry(index, table["at"], table["kind"], table["body"], salt)
    return Part("entry", index, entry, raw, bytes.fromhex(leaf.decode()))


def _only(line: bytes, kind: str, place: str) -> Any:  # noqa: ANN401 - any JSON value
    table = _parsed(line[:-1], place)
    if _deeper(table, _DEEPEST):
        raise _fault(place, f"holds values within values beyond {_DEEPEST}")
    if set(table) != {kind}:
        raise _fault(place, f"must be a {kind} here")
    return table[kind]


def _deeper(value: object, most: int) -> bool:
    """Return whether lists and tables lie within each other more than `most` deep; never recurses itself."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(value, dict | list) for value in level)


def _line(file: BinaryIO, place: str, longest: int = _LONGEST) -> bytes:
    line = file.readline(longest + 1)
    if not line.endswith(b"\n"):
        rule = f"is longer than {longest} bytes" if len(line) > longest else "is cut off or missing"
        raise _fault(place, rule)
    return line


def _unsure(text: bytes) -> bool:
    """Return whether a text may hold what orjson and RFC 8785 write differently."""
    plain = text.isascii() and b"[" not in text
    return (_UNSURE_FIELD if plain else _UNSURE).search(text) is not None


def _parsed(text: bytes, place: str) -> dict[str, Any]:
    """Read a JSON object in its one canonical spelling: neither doubled keys nor other numbers pass."""
    try:
        table = orjson.loads(text)
        sure = orjson.dumps(table, option=orjson.OPT_SORT_KEYS) == text and not _unsure(text)
        if not sure and canonical(table) != text:
            raise ValueError
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise _fault(place, "is not canonical JSON") from None
    if not isinstance(table, dict):
        raise _fault(place, "is not a JSON object")
    return table


def _short(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


def _fault(place: str, rule: str, fix: str = "ask the partner for the bundle again") -> BundleFault:
    return BundleFault(Fault(place, rule, fix))
