"""The manifest of a match: every partner's commitment, verified, in the order of the roster.

A match is of all partners or it is not: nobody may be missing. The manifest's digest is bound into every key that seals
a list, so that partners who were shown different ones cannot read each other's lists.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from coterie.privacy.canonical import digest
from coterie.privacy.matching.commitment import Commitment, check_signed
from coterie.privacy.matching.decoys import sizes
from coterie.privacy.matching.errors import PeerFault, blame, misused
from coterie.privacy.matching.own import Own
from coterie.privacy.matching.terms import COUNTS, MatchTerms
from coterie.privacy.secagg.keys import has_small_order, public_of

__all__ = ["Manifest", "manifest", "settled", "verified"]


@dataclass(frozen=True)
class Manifest:
    """What all partners of a match committed to; made by `manifest` or `verified` alone.

    Args:
        terms: The match.
        commitments: One of every partner, in the order of the roster.
    """

    terms: MatchTerms
    commitments: tuple[Commitment, ...]

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the terms and of all that was committed to; not of signatures, which might be spelt twice."""
        said = [one.said for one in self.commitments]
        return digest({"format": "coterie/match/manifest/v1", "terms": self.terms.to_dict(), "commitments": said})

    def of(self, partner: str) -> Commitment:
        """Return a partner's commitment."""
        return self.commitments[self.terms.names.index(partner)]

    def evaluations(self, partner: str) -> int:
        """Return how many points of others a partner will be asked to multiply: what its quota must carry."""
        return sum(one.size for one in self.commitments if one.partner != partner)


def manifest(own: Own, commitment: Commitment, *, commitments: Sequence[Commitment]) -> Manifest:
    """Verify what all partners committed to.

    Args:
        own: The partner that asks.
        commitment: What it committed to itself, from its own store.
        commitments: What the coordinator shows, in any order.

    Raises:
        MatchFault: The partner's own commitment is not of its secrets, or of another match.
        PeerFault: Naming the partner whose commitment breaks a rule, or the coordinator ("") for one that is missing,
            invented, shown twice, or not what this partner signed.
    """
    terms = own.terms
    mine = (commitment.plan, commitment.partner, commitment.channel)
    if mine != (terms.plan, own.name, public_of(own.secrets.channel).hex()):
        raise misused("the commitment is another partner's, or another match's")
    found = verified(terms, commitments)
    if found.of(own.name) != commitment:
        raise blame("", "shows another commitment than this partner signed")
    return found


def verified(terms: MatchTerms, commitments: Sequence[Commitment]) -> Manifest:
    """Verify what all partners committed to, as the coordinator does who has committed to nothing.

    Args:
        terms: The match.
        commitments: In any order.

    Raises:
        PeerFault: As `manifest`.
    """
    shown = {one.partner: one for one in commitments}
    if len(shown) != len(commitments):
        raise blame("", "shows two commitments of one partner")
    for name in sorted(set(shown) - set(terms.names)):
        raise blame("", f"shows a commitment of {name}, who is not of the plan")
    for name in terms.names:
        if name not in shown:
            raise blame("", f"shows no commitment of {name}: a match is of all partners of its plan")
        check_signed(terms, shown[name])
        _check(terms, shown[name])
    if len({one.channel for one in commitments}) != len(commitments):
        raise blame("", "shows two partners with one channel key")
    return Manifest(terms, tuple(shown[name] for name in terms.names))


def settled(manifest: Manifest, kept: str) -> None:
    """Check that a manifest is the one that a partner went on with before.

    Args:
        manifest: What is asked for now.
        kept: Digest of the manifest that the partner keeps for the plan; "" where it has none.

    Raises:
        PeerFault: Of the coordinator: it is a second one. Who could choose a second list after the first would find
            out about single customers.
    """
    if kept and kept != manifest.digest:
        raise blame("", "asks for a second manifest: a match has one, for ever")


def _check(terms: MatchTerms, one: Commitment) -> None:
    """Hold a commitment to the plan."""
    if one.plan != terms.plan:
        raise blame(one.partner, "committed to a list for another plan")
    if one.rules != terms.rules:
        raise _other_rules(one.partner)
    least, most = sizes(terms)
    if not least <= one.size <= most:
        raise blame(one.partner, f"committed to a list of {one.size} points; from {least} to {most} are taken")
    if terms.outcome != COUNTS and one.size % terms.size_class:
        raise blame(one.partner, f"committed to a list that is not padded to a multiple of {terms.size_class}")
    if len(one.chunks) != terms.chunks(one.size):
        raise blame(one.partner, f"committed to {len(one.chunks)} chunks, and {terms.chunks(one.size)} are due")
    if has_small_order(bytes.fromhex(one.channel)):
        raise blame(one.partner, "has a channel key of small order")


def _other_rules(partner: str) -> PeerFault:
    rule = "made its identifiers under another version of the rules: equal customers would have different points"
    return blame(partner, rule)
