"""The manifest of a sealed data set: which streams it is made of, under which keys, signed by the partner.

A manifest is named by its digest, and the ledger says which digest is the newest. So a stream that was exchanged, cut
or put back from another version is found by its key and context, and an older manifest by the ledger. What an outsider
could read off it (column names, types, counts of rows) is inside a sealed part; what lies open are sizes.

Format: `docs/formats/vault.md`.
"""

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from coterie.privacy.canonical import canonical, digest
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.fields.errors import SealFault
from coterie.privacy.identity import Identity, verify

__all__ = ["Manifest", "Stream", "Whose", "column_context", "inside_context", "key_context"]

FORMAT = "coterie/vault/v1"
_DOMAIN = b"coterie/vault-manifest/v1\n"
_NAME, _SHA256 = re.compile(r"[0-9a-f]{32}"), re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_TEXT, _MOST_STREAMS, _LONGEST_KEY = 200, 10_000, 4096


@dataclass(frozen=True)
class Stream:
    """One sealed column.

    Args:
        file: Name of the file: 32 hexadecimal digits, drawn anew for each.
        version: Version of the data set at which it was sealed.
        size: Bytes of the file.
        sha256: Digest of the file, so that a copy can be checked without any key.
        key: Its data key, wrapped.
    """

    file: str
    version: int
    size: int
    sha256: str
    key: bytes


@dataclass(frozen=True)
class Whose:
    """What a manifest must be about.

    Args:
        partner: The partner's public identity key.
        dataset: Name of the data set.
    """

    partner: str
    dataset: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A data set as it stands.

    Args:
        whose: Whose data set it is, and which.
        version: 1 for the first; one more with every change.
        keys: Kind of the source of the key-encryption keys.
        epoch: Under which of its epochs the data keys are wrapped.
        streams: One for each column, in the table's order.
        inside: The sealed part.
        inside_key: Its data key, wrapped.
        salt: 32 hexadecimal digits, so that the digest in the ledger says nothing that could be guessed.
        signature: 64 bytes by the partner, Ed25519 (RFC 8032); empty until it is signed.
    """

    whose: Whose
    version: int
    keys: str
    epoch: str
    streams: tuple[Stream, ...]
    inside: bytes
    inside_key: bytes
    salt: str
    signature: bytes = b""

    @staticmethod
    def new_salt() -> str:
        """Return a fresh salt."""
        return secrets.token_hex(16)

    def signed(self, identity: Identity) -> "Manifest":
        """Return the manifest with the partner's signature."""
        return replace(self, signature=identity.sign(_DOMAIN + canonical(_body(self))))

    def digest(self) -> str:
        """Return the digest that names the manifest."""
        return digest(self._whole())

    def to_bytes(self) -> bytes:
        """Return the manifest as canonical JSON."""
        return canonical(self._whole())

    @staticmethod
    def from_bytes(data: bytes, whose: Whose, *, place: str) -> "Manifest":
        """Read a manifest and check whose it is.

        Args:
            data: What `to_bytes` wrote.
            whose: What it must be about.
            place: Where it lies, for errors.

        Raises:
            SealFault: It is not a manifest, was changed, or is another partner's or data set's.
        """
        fix = "restore the vault together with its ledger, or seal the table again"
        try:
            found = _read(json.loads(data))
            if found.to_bytes() != data:  # one manifest, one byte string
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
            raise SealFault(Fault(place, "is not a manifest of a vault of this version, or was changed", fix)) from None
        if found.whose != whose:
            raise SealFault(Fault(place, "is of another partner or data set", fix))
        try:
            verify(whose.partner, found.signature, _DOMAIN + canonical(_body(found)))
        except PlanFault:
            raise SealFault(Fault(place, "is not signed by this partner", fix)) from None
        return found

    def _whole(self) -> dict[str, Any]:
        return _body(self) | {"signature": self.signature.hex()}


def key_context(whose: Whose, name: str) -> bytes:
    """Return what a data key is bound to when it is wrapped.

    Args:
        whose: Partner and data set.
        name: The stream's file, or the manifest's salt for its sealed part.
    """
    return canonical([FORMAT + "/data-key", whose.partner, whose.dataset, name])


def column_context(whose: Whose, column: str, stream: Stream) -> bytes:
    """Return what a column's stream is bound to: partner, data set, column, version and file."""
    return canonical([FORMAT + "/column", whose.partner, whose.dataset, column, stream.version, stream.file])


def inside_context(whose: Whose, version: int, salt: str) -> bytes:
    """Return what a manifest's sealed part is bound to."""
    return canonical([FORMAT + "/inside", whose.partner, whose.dataset, version, salt])


def _body(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "partner": manifest.whose.partner,
        "dataset": manifest.whose.dataset,
        "version": manifest.version,
        "keys": manifest.keys,
        "epoch": manifest.epoch,
        "salt": manifest.salt,
        "inside": _text(manifest.inside),
        "inside_key": _text(manifest.inside_key),
        "streams": [
            {"file": s.file, "version": s.version, "size": s.size, "sha256": s.sha256, "key": _text(s.key)}
            for s in manifest.streams
        ],
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read(table: Mapping[str, Any]) -> Manifest:
    if table["format"] != FORMAT or len(table["streams"]) > _MOST_STREAMS:
        raise ValueError
    if not _NAME.fullmatch(table["salt"]):
        raise ValueError
    return Manifest(
        whose=Whose(_words(table["partner"]), _words(table["dataset"])),
        version=_count(table["version"]),
        keys=_words(table["keys"]),
        epoch=_words(table["epoch"]),
        streams=tuple(_stream(row) for row in table["streams"]),
        inside=base64.b64decode(table["inside"], validate=True),
        inside_key=_key(table["inside_key"]),
        salt=table["salt"],
        signature=bytes.fromhex(table["signature"]),
    )


def _stream(row: Mapping[str, Any]) -> Stream:
    if not _NAME.fullmatch(row["file"]) or not _SHA256.fullmatch(row["sha256"]):
        raise ValueError
    return Stream(row["file"], _count(row["version"]), _count(row["size"]), row["sha256"], _key(row["key"]))


def _key(text: str) -> bytes:
    key = base64.b64decode(text, validate=True)
    if len(key) > _LONGEST_KEY:
        raise ValueError
    return key


def _words(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TEXT:
        raise ValueError
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError
    return value
