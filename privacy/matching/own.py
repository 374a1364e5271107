"""A partner's secrets of one match; they are drawn for it, and destroyed when it ends."""

import json
from dataclasses import dataclass, field

from coterie.privacy.canonical import canonical
from coterie.privacy.identity import Identity
from coterie.privacy.matching.errors import misused
from coterie.privacy.matching.group import check_scalar, inverse, product, random_scalar
from coterie.privacy.matching.terms import COUNTS, MatchTerms
from coterie.privacy.randomness import Stream

__all__ = ["Own", "Secrets", "new_secrets"]

_FORMAT = "coterie/match/secrets/v1"


@dataclass(frozen=True)
class Secrets:
    """What only this partner knows of a match; whoever stores it seals it.

    Args:
        scalar: k, by which it multiplies every list, its own as well; 32 bytes.
        blind: r, under which its own list travels; None for counts, where the list never comes back.
        channel: X25519 private key, 32 bytes.
    """

    scalar: bytes = field(repr=False)
    blind: bytes | None = field(repr=False)
    channel: bytes = field(repr=False)

    @property
    def first(self) -> bytes:
        """What its own list is multiplied by before it leaves: r, or for counts k."""
        return self.scalar if self.blind is None else self.blind

    @property
    def last(self) -> bytes:
        """What its own list is multiplied by when it is back: k / r.

        Raises:
            MatchFault: There is no blind: in a match that is counted no list comes back.
        """
        if self.blind is None:
            raise misused("a list that is counted does not come back to its owner")
        return product(self.scalar, inverse(self.blind))

    def to_bytes(self) -> bytes:
        """Return the secrets as canonical JSON."""
        blind = "" if self.blind is None else self.blind.hex()
        return canonical(
            {"format": _FORMAT, "scalar": self.scalar.hex(), "blind": blind, "channel": self.channel.hex()}
        )

    @staticmethod
    def from_bytes(data: bytes) -> "Secrets":
        """Read what `to_bytes` wrote.

        Raises:
            MatchFault: It is not what `to_bytes` wrote.
        """
        try:
            table = json.loads(data)
            blind = bytes.fromhex(table["blind"]) or None
            secrets = Secrets(bytes.fromhex(table["scalar"]), blind, bytes.fromhex(table["channel"]))
            if secrets.to_bytes() != data or len(secrets.channel) != 32:  # one state, one byte string
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise misused("stored secrets cannot be read") from None
        check_scalar(secrets.scalar)
        check_scalar(secrets.first)
        return secrets


@dataclass(frozen=True)
class Own:
    """A partner in a match.

    Args:
        name: Its name in the roster.
        identity: Its long-lived signing key.
        terms: The match, from the signed plan.
        secrets: Its secrets of this match.

    Raises:
        MatchFault: The roster has the name under another key or not at all, or the secrets are of another outcome.
    """

    name: str
    identity: Identity
    terms: MatchTerms
    secrets: Secrets

    def __post_init__(self) -> None:
        """Refuse to speak under a name that is another's."""
        if self.terms.key_of(self.name) != self.identity.public:
            raise misused("the roster does not have this partner under its own key")
        if (self.secrets.blind is None) != (self.terms.outcome == COUNTS):
            raise misused("the secrets are of a match with another outcome")


def new_secrets(terms: MatchTerms, stream: Stream) -> Secrets:
    """Draw the secrets of a match.

    Args:
        terms: The match.
        stream: Secret randomness, used for nothing else.
    """
    blind = None if terms.outcome == COUNTS else random_scalar(stream)
    return Secrets(random_scalar(stream), blind, stream.bits(32))
