"""A partner's list, and its signed word for it: how long it is, what is in every parcel, and under which rules.

A list is in ascending order of its points' bytes. Points are pseudorandom, so that order says nothing of the rows that
they come from: sorting is the shuffle, and gives the same again after a restart.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.identity import verify
from coterie.privacy.matching.errors import MatchFault, blame, misused
from coterie.privacy.matching.group import POINT, Points, hash_to_group, multiply
from coterie.privacy.matching.own import Own
from coterie.privacy.matching.terms import MatchTerms
from coterie.privacy.secagg.keys import public_of

__all__ = ["Commitment", "ascending", "check_signed", "chunk_digest", "commit", "is_ascending", "own_points", "words"]

_DOMAIN = b"coterie/match/commitment/v1\n"
_CHUNK = b"coterie/match/chunk/v1\n"
_HEX = frozenset("0123456789abcdef")
_MOST_CHUNKS = 1 << 20


@dataclass(frozen=True)
class Commitment:
    """What a partner commits to before any list travels.

    Leaks: the size of the list, which for counts has noise in it (its event pays), and for rows and tokens is a
    multiple of the size class. Nothing else: digests are of pseudorandom points.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        attempt: 1 or more.
        rules: Version of its rules of canonical forms.
        size: Points on the list.
        chunks: SHA-256 of every parcel's points, in hexadecimal.
        channel: X25519 public key for this match, in hexadecimal.
        signature: Ed25519 of the partner's identity, in hexadecimal.
    """

    plan: str
    partner: str
    attempt: int
    rules: str
    size: int
    chunks: tuple[str, ...]
    channel: str
    signature: str = ""

    @property
    def header(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {**self.said, "signature": self.signature}

    @property
    def said(self) -> dict[str, Any]:
        """What is signed, as plain JSON values."""
        return {
            "plan": self.plan,
            "partner": self.partner,
            "attempt": self.attempt,
            "rules": self.rules,
            "size": self.size,
            "chunks": list(self.chunks),
            "channel": self.channel,
        }

    @staticmethod
    def from_header(header: object) -> "Commitment":
        """Read what `header` gave.

        Raises:
            PeerFault: It is not a commitment with exactly its fields.
        """
        try:
            if not isinstance(header, dict):
                raise TypeError
            read = Commitment(**{**header, "chunks": tuple(header["chunks"])})
            if not (_texts_of(read) and _numbers_of(read) and read.header == header):
                raise ValueError
        except (TypeError, ValueError, KeyError):
            raise blame("", "is not a commitment to a list") from None
        return read


def own_points(own: Own, pieces: Iterable[Sequence[bytes]], *, threads: int = 0) -> Iterator[Points]:
    """Give the points of a partner's own identifiers, under its key (counts) or its blind (rows, tokens).

    Args:
        own: The partner.
        pieces: Its different identifiers as `identifiers.item` makes them, a piece at a time; any cut gives the same.
        threads: Threads to use; 0 for one to a core.

    Raises:
        GroupMissing: There is no libsodium.
    """
    for items in pieces:
        yield multiply(hash_to_group(items, own.terms.dst, threads=threads), own.secrets.first, threads=threads)


def words(points: Points) -> NDArray[np.uint64]:
    """Return points as four numbers each, which compare as their bytes do; uint64, shape (n, 4)."""
    return np.ascontiguousarray(points).view(">u8").reshape(-1, POINT // 8).astype(np.uint64)


def ascending(points: Points) -> NDArray[np.int64]:
    """Return the order that sorts points by their bytes.

    Raises:
        MatchFault: Two points are equal: a partner's identifiers must differ, since a pair would mark a customer.
    """
    leading = np.ascontiguousarray(points[:, :8]).view(">u8").ravel().astype(np.uint64)
    order = np.argsort(leading, kind="stable")
    leading = leading[order]
    if np.any(leading[1:] == leading[:-1]):  # about once in 10^6 lists of ten million: all 32 bytes decide
        whole = words(points)
        order = np.lexsort(whole.T[::-1])
        whole = whole[order]
        if np.any(np.all(whole[1:] == whole[:-1], axis=1)):
            raise MatchFault(Fault("a list", "has two equal points", "give every identifier once"))
    return order.astype(np.int64)


def is_ascending(points: Points) -> bool:
    """Return whether points are in ascending order of their bytes, and no two are equal."""
    try:
        return bool(np.all(np.diff(ascending(points)) > 0))
    except MatchFault:
        return False


def chunk_digest(points: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of a parcel's rows, in hexadecimal."""
    return hashlib.sha256(_CHUNK + np.ascontiguousarray(points).tobytes()).hexdigest()


def commit(own: Own, points: Points, *, attempt: int) -> Commitment:
    """Commit to a list, which is read a parcel at a time.

    Args:
        own: The partner.
        points: The list in ascending order; may be a memory map.
        attempt: 1 or more.

    Raises:
        MatchFault: The list is not in ascending order, by which alone it says nothing of the rows behind it.
    """
    terms = own.terms
    chunks = []
    for start in range(0, len(points), terms.chunk):
        if not is_ascending(points[max(0, start - 1) : start + terms.chunk]):
            raise misused("a list is committed to in ascending order, with no two points equal")
        chunks.append(chunk_digest(points[start : start + terms.chunk]))
    channel = public_of(own.secrets.channel).hex()
    said = Commitment(terms.plan, own.name, attempt, terms.rules, len(points), tuple(chunks), channel)
    return replace(said, signature=own.identity.sign(_DOMAIN + canonical(said.said)).hex())


def check_signed(terms: MatchTerms, commitment: Commitment) -> None:
    """Check that a commitment is signed by the partner that it names, under its key in the roster.

    Raises:
        PeerFault: It is a stranger's, or was altered.
    """
    key = terms.key_of(commitment.partner)
    if not key:
        raise blame("", "shows the commitment of a partner that is not of the plan")
    try:
        verify(key, bytes.fromhex(commitment.signature), _DOMAIN + canonical(commitment.said))
    except PlanFault:
        raise blame(commitment.partner, "has a commitment that its identity key did not sign") from None


def _texts_of(read: Commitment) -> bool:
    texts = (read.plan, read.partner, read.rules, read.channel, read.signature, *read.chunks)
    hexes = [(read.channel, 64), (read.signature, 128), *((one, 64) for one in read.chunks)]
    return all(isinstance(one, str) for one in texts) and all(len(one) == n and set(one) <= _HEX for one, n in hexes)


def _numbers_of(read: Commitment) -> bool:
    whole = all(type(one) is int and 0 < one < 2**31 for one in (read.attempt, read.size))
    return whole and 0 < len(read.chunks) <= _MOST_CHUNKS
