"""Matches and Disclosures, as a ledger tells of them: plain data, for the verdict."""

from dataclasses import dataclass

__all__ = ["Disclosed", "Matched"]


@dataclass(frozen=True)
class Disclosed:
    """A list of customers that left for a match whose outcome no epsilon covers (PRIVACY rule 16).

    Args:
        entry: Its entry.
        at: When.
        plan: Digest of the plan.
        name: The study's name, "" where nobody consented to it.
        purpose: What for, by the entry.
        outcome: "rows" or "tokens".
        identifier: "email", "phone" or "loyalty".
        partners: Names of all partners of the match.
    """

    entry: int
    at: str
    plan: str
    name: str
    purpose: str
    outcome: str
    identifier: str
    partners: tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """What a ledger tells of one study's match.

    Args:
        manifest: Digest of the lists of all partners that were accepted; "" where none were.
        entry: Its entry, 0 for none.
        evaluations: Points of others that this partner agreed to evaluate.
        evaluated: Points of others that it did evaluate.
        parcels: Pieces of lists that it sealed to another partner.
        counts: Whether this partner counted, and released noisy counts.
        ended: Whether it says that it has what the match is for, and destroyed its secrets.
    """

    manifest: str
    entry: int
    evaluations: int
    evaluated: int
    parcels: int
    counts: bool
    ended: bool
