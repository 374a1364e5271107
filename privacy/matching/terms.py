"""What a plan says of a match, for the protocol: who takes part, in which order lists travel, and what comes out.

All that a coordinator must not choose is here, and comes from the signed plan and from the rules of this version; no
message has a place for any of it.
"""

import hashlib
from dataclasses import dataclass

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import Fault
from coterie.privacy.matching.errors import MatchFault

__all__ = ["CHUNK", "COUNTS", "MOST_COUNTED", "OUTCOMES", "ROWS", "TOKENS", "MatchTerms"]

CHUNK = 65_536
"""Points of a parcel: 2 MiB."""

COUNTS, ROWS, TOKENS = "counts", "rows", "tokens"
OUTCOMES = (COUNTS, ROWS, TOKENS)

MOST_COUNTED = 8
"""Most partners of a match that is counted: each list holds dummies for 2^(n-1) cells."""

_MOST = 10_000_000


@dataclass(frozen=True)
class MatchTerms:
    """What every partner of a match knows of it before a message is read.

    Args:
        plan: Digest of the plan.
        identifier: "email", "phone" or "loyalty".
        outcome: "counts", "rows" or "tokens".
        epoch: 1 or more; under another epoch everything is unlinkable.
        rules: Version of the rules of canonical forms, with that of a library's data.
        most: Most identifiers of one partner, 1 to 10,000,000.
        least: Fewest identifiers of one partner; a noisy count below it is not given. 1 or more.
        size_class: Lists for rows and tokens are padded to a multiple of it, 1 or more.
        teller: The partner who counts; "" for the first of the roster, and without meaning but for counts.
        roster: Name and identity key of every partner of the plan, 2 or more (for counts at most 8), in the order in
            which lists go round.
        sigma: Scale of the noise in the number of dummies, in customers; None but for counts.
        chunk: Points of a parcel; another number than `CHUNK` is for tests.

    Raises:
        MatchFault: Values under which the protocol does not protect, or is not defined.
    """

    plan: str
    identifier: str
    outcome: str
    epoch: int
    rules: str
    most: int
    least: int
    size_class: int
    teller: str
    roster: tuple[tuple[str, str], ...]
    sigma: float | None
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        """Refuse what does not protect."""
        names = self.names
        if len(names) < 2 or len(set(names)) != len(names) or len({key for _, key in self.roster}) != len(names):
            raise _refused("partners", "a match is between two partners or more, each named once with a key of its own")
        if self.outcome not in OUTCOMES:
            raise _refused("outcome", f"must be one of {', '.join(OUTCOMES)}")
        if not (1 <= self.least <= self.most <= _MOST and self.size_class >= 1 and self.epoch >= 1 and self.chunk >= 1):
            raise _refused("most", "must be at most 10,000,000 and at least `least`; every number must be 1 or more")
        if self.outcome == COUNTS and len(names) > MOST_COUNTED:
            raise _refused("partners", f"at most {MOST_COUNTED} partners can be counted: there are 2^n cells")
        if self.outcome == COUNTS and (self.sigma is None or not 0 < self.sigma <= _MOST):
            raise _refused("sigma", "counts need a scale of noise above 0")
        if self.outcome != COUNTS and self.sigma is not None:
            raise _refused("sigma", "rows and tokens have no noise")
        if self.teller and self.teller not in names:
            raise _refused("teller", "must be a partner of the plan")

    @property
    def names(self) -> tuple[str, ...]:
        """The partners' names in the order of the roster."""
        return tuple(name for name, _ in self.roster)

    @property
    def dst(self) -> bytes:
        """Domain separation tag of identifiers (RFC 9380, section 3.1); planted items have one of their own."""
        bound = (self.plan, self.identifier, self.rules, self.epoch)
        return b"coterie-match-v1-" + hashlib.sha256(canonical(list(bound))).hexdigest().encode()

    def key_of(self, name: str) -> str:
        """Return a partner's identity key, or "" for a stranger."""
        return dict(self.roster).get(name, "")

    def route(self, owner: str) -> tuple[str, ...]:
        """Return the partners that multiply a list by their keys, in order: all but its owner, round the ring."""
        place = self.names.index(owner)
        return self.names[place + 1 :] + self.names[:place]

    def destination(self, owner: str) -> str:
        """Return who gets a list in the end: its owner, or for counts the teller."""
        if self.outcome == COUNTS:
            return self.teller or self.names[0]
        return owner

    def path(self, owner: str) -> tuple[str, ...]:
        """Return who holds a list, one after another, from its owner to whom it ends at."""
        round_trip = (owner, *self.route(owner))
        last = self.destination(owner)
        # A teller that is the last to multiply a list sends it to nobody.
        return round_trip if round_trip[-1] == last else (*round_trip, last)

    def chunks(self, size: int) -> int:
        """Return how many parcels a list of a size makes."""
        return -(-size // self.chunk)

    def rows_of(self, size: int, index: int) -> int:
        """Return how many points are in a list's parcel of an index, from 0."""
        return min(self.chunk, size - index * self.chunk)

    def to_dict(self) -> dict[str, object]:
        """Return all of it as plain JSON values."""
        return {
            "plan": self.plan,
            "identifier": self.identifier,
            "outcome": self.outcome,
            "epoch": self.epoch,
            "rules": self.rules,
            "most": self.most,
            "least": self.least,
            "size_class": self.size_class,
            "teller": self.teller,
            "roster": [list(one) for one in self.roster],
            "sigma": self.sigma,
            "chunk": self.chunk,
        }


def _refused(place: str, rule: str) -> MatchFault:
    return MatchFault(Fault(f"a match's {place}", rule, "ask the coordinator for another plan"))
