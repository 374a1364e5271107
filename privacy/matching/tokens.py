"""Tokens: what an owner has of its own customers when its list is back, and how two owners compare them.

A token is a hash of (product of all partners' keys) * H(identifier); nobody can compute one alone. Two partners compare
tokens under a key of the pair, so that what one sends the other means nothing beside another pair's.
"""

import hashlib
import hmac

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.errors import Fault
from coterie.privacy.matching.channel import TOKEN
from coterie.privacy.matching.decoys import CANARIES
from coterie.privacy.matching.errors import PeerFault, misused
from coterie.privacy.matching.group import POINT, Points
from coterie.privacy.matching.legs import Leg, Stage
from coterie.privacy.matching.manifest import Manifest
from coterie.privacy.matching.own import Own
from coterie.privacy.matching.terms import CHUNK, ROWS
from coterie.privacy.secagg.keys import derived, shared

__all__ = ["Tokens", "canaries_digest", "exchange_legs", "matches", "rekeyed", "tokens"]

_TOKEN, _CANARIES = b"coterie/match/token/v1\n", b"coterie/match/canaries/v1\n"

Tokens = NDArray[np.uint8]
"""Shape (n, 16)."""


def tokens(manifest: Manifest, points: Points) -> Tokens:
    """Return the tokens of final points.

    Args:
        manifest: The manifest, to which tokens are bound: those of another match or epoch cannot be linked.
        points: What `relay.evaluated` gave when the list was back, shape (n, 32).

    Returns:
        In the same order, shape (n, 16).
    """
    begin = hashlib.sha256(_TOKEN + manifest.digest.encode())
    data = np.ascontiguousarray(points).tobytes()
    found = bytearray()
    for start in range(0, len(data), POINT):
        one = begin.copy()
        one.update(data[start : start + POINT])
        found += one.digest()[:TOKEN]
    return np.frombuffer(bytes(found), dtype=np.uint8).reshape(-1, TOKEN)


def exchange_legs(own: Own, manifest: Manifest) -> tuple[Leg, ...]:
    """Return this partner's legs for re-keyed tokens: two for every other partner, to it and from it.

    The first waits for `Leg.make` of what `rekeyed` gives; from then on they are legs as all others.

    Raises:
        MatchFault: The match is not about rows: tokens are compared for these alone.
    """
    terms = manifest.terms
    if terms.outcome != ROWS:
        raise misused("tokens are compared where the outcome is rows, and nowhere else")
    found, last = [], len(terms.names)
    for other in terms.names:
        if other != own.name:
            mine, theirs = (terms.chunks(manifest.of(name).size) for name in (own.name, other))
            found.append(Leg(own.name, last, mine, ends=False, towards=other, stage=Stage.TAKEN))
            found.append(Leg(other, last + 1, theirs, ends=True, towards=own.name))
    return tuple(found)


def rekeyed(own: Own, manifest: Manifest, *, other: str, tokens: Tokens) -> Tokens:
    """Return what one partner is sent of a list's tokens: under the pair's key, in ascending order.

    Args:
        own: Who sends.
        manifest: The manifest.
        other: Who gets them.
        tokens: Of its whole list, with canaries and padding.
    """
    under = _under(_pair_key(own, manifest, other), tokens)
    return under[np.argsort(_texts(under), kind="stable")]


def matches(
    own: Own, manifest: Manifest, *, other: str, tokens: Tokens, received: Tokens, count: int
) -> NDArray[np.bool_]:
    """Return which of this partner's customers another partner has too.

    Args:
        own: Who asks.
        manifest: The manifest.
        other: Who sent.
        tokens: This partner's, in the order in which its list was made: its identifiers, canaries, padding.
        received: What the other sent, whole.
        count: Its identifiers.

    Returns:
        By identifier, shape (count,).

    Raises:
        PeerFault: Naming the other: it sent tokens that are equal or not in order. Or naming the two lists: their
            canaries do not agree, or padding is shared, and nothing of them is to be used.
    """
    texts = _texts(received)
    if len(received) != manifest.of(other).size or not np.all(texts[1:] > texts[:-1]):
        rule = "are not as many as its list has, each once and in ascending order"
        raise PeerFault(other, Fault(f"tokens of {other}", rule, "ask there; the match gives no result"))
    mine = _texts(_under(_pair_key(own, manifest, other), tokens))
    # What was received is in order: looked up, it needs no copy of both, as `isin` makes.
    shared_ones = texts[np.minimum(np.searchsorted(texts, mine), len(texts) - 1)] == mine
    canaries, padding = shared_ones[count : count + CANARIES], shared_ones[count + CANARIES :]
    if len(canaries) != CANARIES or not canaries.all() or padding.any():
        rule = "do not agree in their canaries: one went through other hands, or under another key"
        place = f"the lists of {own.name} and {other}"
        raise PeerFault("", Fault(place, rule, "ask every partner; the match gives no result"))
    found: NDArray[np.bool_] = shared_ones[:count]
    return found


def canaries_digest(tokens: Tokens, *, count: int) -> str:
    """Return what the canaries' tokens of all partners must give alike, in hexadecimal.

    Args:
        tokens: A partner's, in the order in which its list was made.
        count: Its identifiers.

    Leaks: nothing about a customer; the hash of eight pseudorandom points that all partners have.
    """
    return hashlib.sha256(_CANARIES + tokens[count : count + CANARIES].tobytes()).hexdigest()


def _pair_key(own: Own, manifest: Manifest, other: str) -> bytes:
    """Return the key that two partners compare tokens under; the same for both directions."""
    pair = [name for name in manifest.terms.names if name in {own.name, other}]
    secret = shared(own.secrets.channel, bytes.fromhex(manifest.of(other).channel), other)
    bound = {"plan": manifest.terms.plan, "manifest": manifest.digest, "partners": pair}
    return derived(secret, {"format": "coterie/match/rows/v1", **bound})


def _under(key: bytes, tokens: Tokens) -> Tokens:
    found = np.empty(tokens.shape, dtype=np.uint8)
    for start in range(0, len(tokens), CHUNK):  # as Python objects they take ten times their bytes
        data = np.ascontiguousarray(tokens[start : start + CHUNK]).tobytes()
        pieces = (data[place : place + TOKEN] for place in range(0, len(data), TOKEN))
        joined = b"".join(hmac.digest(key, piece, "sha256")[:TOKEN] for piece in pieces)
        found[start : start + CHUNK] = np.frombuffer(joined, dtype=np.uint8).reshape(-1, TOKEN)
    return found


def _texts(tokens: Tokens) -> NDArray[np.bytes_]:
    """Return tokens as texts of 16 bytes, which numpy compares byte by byte."""
    return np.ascontiguousarray(tokens).view(f"S{TOKEN}").ravel()
