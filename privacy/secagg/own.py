"""Who a partner is in an epoch, and its signature."""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from coterie.privacy.identity import Identity
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.errors import misused
from coterie.privacy.secagg.messages import Message, arrays_digest, statement
from coterie.privacy.secagg.state import MemberState

__all__ = ["Own"]

Sent = TypeVar("Sent", bound=Message)


@dataclass(frozen=True)
class Own:
    """A partner in an epoch.

    Args:
        name: Its name in the roster.
        identity: Its long-lived signing key.
        epoch: The epoch, made from the signed plan.

    Raises:
        Misuse: The roster has the name under another key, or not at all.
    """

    name: str
    identity: Identity
    epoch: Epoch

    def __post_init__(self) -> None:
        """Refuse to speak under a name that is another's."""
        if self.epoch.key_of(self.name) != self.identity.public:
            raise misused("the roster does not have this partner under its own key")

    def signed(self, message: Sent, *, arrays: str = "") -> Sent:
        """Return a message with this partner's signature; Ed25519 gives one message one signature (RFC 8032, 5.1.6).

        Args:
            message: What to sign.
            arrays: Digest of its arrays, where it is at hand.
        """
        over = statement(message.kind, message.header, arrays or arrays_digest(message.arrays))
        return dataclasses.replace(message, signature=self.identity.sign(over).hex())

    def must_hold(self, state: MemberState) -> None:
        """Check that a state is this partner's, of this epoch.

        Raises:
            Misuse: It is another's.
        """
        mine = (self.epoch.plan, self.name, self.epoch.number, self.epoch.steps)
        if (state.plan, state.name, state.number, tuple(one.step for one in state.steps)) != mine:
            raise misused("the state is another partner's, or another epoch's")
