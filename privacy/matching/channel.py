"""Parcels: parts of lists on their way through the coordinator, sealed from partner to partner with AES-256-GCM.

The key is bound to the plan, the manifest and both names in their order; what a parcel is, is authenticated with it
(NIST SP 800-38D). The coordinator sees who sends how much to whom, which it knows from the manifest.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import Fault
from coterie.privacy.matching.errors import PeerFault, blame, misused
from coterie.privacy.matching.group import POINT
from coterie.privacy.matching.manifest import Manifest
from coterie.privacy.matching.own import Own
from coterie.privacy.matching.ways import Address, ends_of, known
from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.keys import derived, shared

__all__ = ["TOKEN", "Address", "Parcel", "fault_at", "opened", "seal", "width_of"]

TOKEN = 16
"""Bytes of a token."""

_NONCE, _TAG = 12, 16


@dataclass(frozen=True)
class Parcel:
    """A sealed part of a list.

    Leaks: to the coordinator nothing but its address and its size, which follow from the manifest.

    Args:
        plan: Digest of the plan.
        manifest: Digest of the manifest.
        address: What it is.
        count: Parcels of the whole list.
        sender: Who sealed it.
        receiver: Who can open it.
        sealed: Nonce, ciphertext and tag.
    """

    plan: str
    manifest: str
    address: Address
    count: int
    sender: str
    receiver: str
    sealed: bytes

    @property
    def header(self) -> dict[str, Any]:
        """All but the sealed bytes, as plain JSON values; authenticated with them."""
        return {
            "plan": self.plan,
            "manifest": self.manifest,
            "list": self.address.list,
            "towards": self.address.towards,
            "hop": self.address.hop,
            "index": self.address.index,
            "count": self.count,
            "sender": self.sender,
            "receiver": self.receiver,
        }

    @staticmethod
    def from_parts(header: object, sealed: bytes) -> "Parcel":
        """Read what came.

        Raises:
            PeerFault: It is not a parcel with exactly its fields.
        """
        try:
            if not isinstance(header, dict) or not isinstance(sealed, bytes):
                raise TypeError
            texts = [header[name] for name in ("plan", "manifest", "list", "towards", "sender", "receiver")]
            numbers = [header[name] for name in ("hop", "index", "count")]
            if not all(isinstance(one, str) for one in texts) or not all(type(one) is int for one in numbers):
                raise TypeError
            address = Address(header["list"], header["hop"], header["index"], header["towards"])
            ends = (header["count"], header["sender"], header["receiver"])
            read = Parcel(header["plan"], header["manifest"], address, *ends, sealed)
            if read.header != header:
                raise ValueError
        except (TypeError, ValueError, KeyError):
            raise blame("", "is not a parcel of a match") from None
        return read

    def to_bytes(self) -> bytes:
        """Return it as bytes: length of the header in 8 bytes, the header as canonical JSON, what is sealed."""
        head = canonical(self.header)
        return len(head).to_bytes(8, "big") + head + self.sealed

    @staticmethod
    def from_bytes(data: bytes) -> "Parcel":
        """Read what `to_bytes` gave.

        Raises:
            PeerFault: It is not a parcel, or has another spelling.
        """
        length = int.from_bytes(data[:8], "big")
        try:
            header = json.loads(data[8 : 8 + length])
        except (ValueError, RecursionError):
            raise blame("", "is not a parcel of a match") from None
        read = Parcel.from_parts(header, data[8 + length :])
        if read.to_bytes() != data:
            raise blame("", "is not a parcel of a match in its one spelling")
        return read


def fault_at(partner: str, address: Address, rule: str) -> PeerFault:
    """Return the fault of a partner's parcel ("" for the coordinator's), naming list, chunk and rule."""
    what = f"tokens of {address.list} for {address.towards}" if address.towards else f"the list of {address.list}"
    place = f"{what}, chunk {address.index}, from {partner or 'the coordinator'}"
    return PeerFault(partner, Fault(place, rule, "ask its sender; the match gives no result"))


def width_of(address: Address) -> int:
    """Return the bytes of a row: of a point, or of a token."""
    return TOKEN if address.towards else POINT


def seal(own: Own, manifest: Manifest, *, address: Address, rows: NDArray[np.uint8], stream: Stream) -> Parcel:
    """Seal a part of a list for the next partner on its way.

    The nonce is random (SP 800-38D, section 8.2.2), so that a snapshot that seals again repeats none.

    Args:
        own: Who sends.
        manifest: The manifest.
        address: What it is.
        rows: uint8; points or tokens, as many as belong to the address.
        stream: Secret randomness.

    Raises:
        MatchFault: The address is not on this partner's way, or the rows are not those of the address.
    """
    terms = manifest.terms
    sender, receiver = ends_of(terms, address)
    if sender != own.name:
        raise misused("a partner sends on what it holds, and nothing else")
    total = manifest.of(address.list).size
    if rows.dtype != np.uint8 or rows.shape != (terms.rows_of(total, address.index), width_of(address)):
        raise misused("a parcel holds exactly the rows of its address")
    parcel = Parcel(terms.plan, manifest.digest, address, terms.chunks(total), sender, receiver, b"")
    nonce = stream.bits(_NONCE)
    key = _key(own, manifest, sender=sender, receiver=receiver)
    return replace(parcel, sealed=nonce + AESGCM(key).encrypt(nonce, rows.tobytes(), canonical(parcel.header)))


def opened(own: Own, manifest: Manifest, parcel: Parcel) -> NDArray[np.uint8]:
    """Check a parcel against all that is known of it, and open it.

    Returns:
        uint8, shape (rows, 32) for points or (rows, 16) for tokens. That they are points is for `evaluated`.

    Raises:
        PeerFault: Naming the sender: it was sealed by someone else, for another match, manifest, way or place, or was
            altered. Or naming the coordinator (""), where the address itself is not of this match and partner.
    """
    terms, address = manifest.terms, parcel.address
    if parcel.plan != terms.plan or parcel.manifest != manifest.digest:
        raise fault_at("", address, "is of another plan or another manifest")
    if not known(terms, address) or (parcel.sender, parcel.receiver) != ends_of(terms, address):
        raise fault_at("", address, "is not on the way that lists go")
    if parcel.receiver != own.name:
        raise fault_at("", address, "is for another partner")
    total = manifest.of(address.list).size
    count = terms.chunks(total)
    if parcel.count != count or not 0 <= address.index < count:
        raise fault_at(parcel.sender, address, f"the list has {count} chunks as committed, and this is another")
    size = terms.rows_of(total, address.index) * width_of(address)
    if len(parcel.sealed) != _NONCE + size + _TAG:
        raise fault_at(parcel.sender, address, "is longer or shorter than was committed to")
    key = _key(own, manifest, sender=parcel.sender, receiver=parcel.receiver)
    try:
        data = AESGCM(key).decrypt(parcel.sealed[:_NONCE], parcel.sealed[_NONCE:], canonical(parcel.header))
    except InvalidTag:
        raise fault_at(parcel.sender, address, "does not open: it was altered, or sealed for another match") from None
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, width_of(address))


def _key(own: Own, manifest: Manifest, *, sender: str, receiver: str) -> bytes:
    """Return the AES key of one direction between two partners (RFC 7748, section 6.1; RFC 5869)."""
    other = receiver if sender == own.name else sender
    bound = {"plan": manifest.terms.plan, "manifest": manifest.digest, "sender": sender, "receiver": receiver}
    # A key of small order was refused with the manifest.
    secret = shared(own.secrets.channel, bytes.fromhex(manifest.of(other).channel), other)
    return derived(secret, {"format": "coterie/match/seal/v1", **bound})
