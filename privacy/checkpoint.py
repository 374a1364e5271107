"""Checkpoints: a ledger's size and root as a signed note, which a coordinator cosigns.

Formats of the C2SP project: signed-note, tlog-checkpoint and tlog-cosignature (Ed25519, signature types 0x01 and
0x04). A note is one text that opens in any editor and is checked by any implementation of these formats:

    coterie-ledger/5f0c...        origin: who signs, by its key
    42                            entries
    CsUYapGGPo4dkMgIAUqom/Xa...   root of the Merkle tree

    — coterie-ledger/5f0c... Az3grlgtzPICa5OS...
    — coterie-coordinator/91ab... jWbPPwAAAABkGFDL...
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from coterie.privacy.errors import Fault, LedgerFault, PlanFault
from coterie.privacy.identity import Identity, raw_key, verify

__all__ = [
    "Checkpoint",
    "Cosigned",
    "cosign",
    "noted_size",
    "origin_of",
    "read_note",
    "sign_checkpoint",
]

_LEDGER, _COORDINATOR = "coterie-ledger", "coterie-coordinator"
_SIGNED, _COSIGNED = b"\x01", b"\x04"  # signed-note, "Signature types"
_LONGEST = 4096
_TEXT = re.compile(r"(?P<origin>[a-z/0-9-]{1,100})\n(?P<size>0|[1-9][0-9]{0,15})\n(?P<root>[A-Za-z0-9+/]{43}=)\n")
_LINE = re.compile(r"— (?P<name>[a-z/0-9-]{1,100}) (?P<payload>[A-Za-z0-9+/]+={0,2})\n")


@dataclass(frozen=True)
class Checkpoint:
    """What a partner says its ledger is.

    Args:
        origin: Name of the ledger, made of the partner's key.
        size: Entries.
        root: Root of their tree, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note's text, which is what is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True)
class Cosigned:
    """A coordinator's statement that a checkpoint extended all that it had seen of the ledger before.

    Args:
        key: The coordinator's public key.
        at: When, in seconds since 1970, by the coordinator's clock.
    """

    key: str
    at: int


def origin_of(public: str, *, coordinator: bool = False) -> str:
    """Return the name under which the holder of a key signs notes."""
    return f"{_COORDINATOR if coordinator else _LEDGER}/{hashlib.sha256(raw_key(public)).hexdigest()[:32]}"


def sign_checkpoint(size: int, root: bytes, identity: Identity) -> str:
    """Return a checkpoint as a note signed by the ledger's partner."""
    checkpoint = Checkpoint(origin_of(identity.public), size, root)
    payload = _key_id(checkpoint.origin, _SIGNED, identity.public) + identity.sign(checkpoint.text.encode())
    return f"{checkpoint.text}\n{_line(checkpoint.origin, payload)}"


def cosign(note: str, identity: Identity, at: int) -> str:
    """Add a coordinator's cosignature to a note.

    Args:
        note: What `sign_checkpoint` made; the caller has checked it, and that it extends what it saw before.
        identity: The coordinator's.
        at: Seconds since 1970.
    """
    text = note.partition("\n\n")[0] + "\n"
    name = origin_of(identity.public, coordinator=True)
    payload = _key_id(name, _COSIGNED, identity.public) + at.to_bytes(8, "big")
    return note + _line(name, payload + identity.sign(_cosigned(text, at)))


def read_note(
    note: str, *, partner: str, coordinators: tuple[str, ...] = ()
) -> tuple[Checkpoint, tuple[Cosigned, ...]]:
    """Read a note and check every signature on it.

    Args:
        note: At most 4,096 characters.
        partner: Public key of the ledger's partner.
        coordinators: Public keys whose cosignatures are expected; a signature by any other is an error.

    Returns:
        The checkpoint, and who cosigned it.

    Raises:
        LedgerFault: It is no such note, is another ledger's, or a signature on it does not verify.
    """
    head, gap, lines = note.partition("\n\n")
    found = _TEXT.fullmatch(head + "\n")
    signatures = [_LINE.fullmatch(line + "\n") for line in lines.removesuffix("\n").split("\n")]
    if not gap or len(note) > _LONGEST or found is None or not all(signatures) or not note.endswith("\n"):
        raise _fault("is not a checkpoint")
    checkpoint = Checkpoint(found["origin"], int(found["size"]), _decoded(found["root"]))
    if checkpoint.origin != origin_of(partner):
        raise _fault("belongs to another partner's ledger")
    first, *others = [(line["name"], _decoded(line["payload"])) for line in signatures if line is not None]
    _check(first, (checkpoint.origin, _SIGNED, partner), checkpoint.text.encode())
    by_name = {origin_of(key, coordinator=True): key for key in coordinators}
    cosigned = tuple(_cosignature(checkpoint, line, by_name) for line in others)
    if len({one.key for one in cosigned}) != len(cosigned):
        raise _fault("is cosigned twice by one coordinator")
    return checkpoint, cosigned


def noted_size(note: str) -> int:
    """Return how many entries a note speaks of; the note has been checked before."""
    return int(note.split("\n")[1])


def _cosignature(checkpoint: Checkpoint, line: tuple[str, bytes], by_name: dict[str, str]) -> Cosigned:
    name, payload = line
    key = by_name.get(name)
    if key is None:
        raise _fault("is cosigned by a coordinator that was not named")
    at = int.from_bytes(payload[4:12], "big")
    signature = (name, payload[:4] + payload[12:])
    _check(signature, (name, _COSIGNED, key), _cosigned(checkpoint.text, at))
    return Cosigned(key, at)


def _check(line: tuple[str, bytes], by: tuple[str, bytes, str], message: bytes) -> None:
    (name, payload), (expected, kind, public) = line, by
    if name != expected or payload[:4] != _key_id(expected, kind, public):
        raise _fault("is signed by another key")
    try:
        verify(public, payload[4:], message)
    except PlanFault:
        raise _fault("has a signature that does not verify") from None


def _cosigned(text: str, at: int) -> bytes:
    """tlog-cosignature, "Ed25519 signed message"."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _key_id(name: str, kind: bytes, public: str) -> bytes:
    """signed-note, "Key ID": the first 4 bytes of SHA-256(name || 0x0A || type || key)."""
    return hashlib.sha256(name.encode() + b"\n" + kind + raw_key(public)).digest()[:4]


def _line(name: str, payload: bytes) -> str:
    return f"— {name} {base64.b64encode(payload).decode()}\n"


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise _fault("is not a checkpoint") from None
    if base64.b64encode(data).decode() != text:  # one spelling for one value
        raise _fault("is not a checkpoint")
    return data


def _fault(rule: str) -> LedgerFault:
    return LedgerFault(Fault("the checkpoint", rule, "ask the partner for it again, and compare keys out of band"))
