"""Shares on their way through the coordinator, sealed from dealer to holder with AES-256-GCM (NIST SP 800-38D).

The key is bound to plan, epoch, the digest of the key list, and both names in their order: a share is worth nothing
in another's hands, in another epoch, or beside other keys (Bonawitz et al. 2017, figure 4, rounds 1 and 2).
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.errors import blame
from coterie.privacy.secagg.keys import derived, shared

__all__ = ["Channel", "opened", "seal", "sealed_size"]

_NONCE, _TAG = 12, 16


@dataclass(frozen=True)
class Channel:
    """One direction between two partners.

    Args:
        epoch: The epoch.
        keys: Digest of the key list.
        sender: Who deals.
        receiver: Who holds.
    """

    epoch: Epoch
    keys: str
    sender: str
    receiver: str

    def key(self, private: bytes, public: bytes, other: str) -> bytes:
        """Return the channel's AES key; `other` is whose public key it is."""
        names = {"sender": self.sender, "receiver": self.receiver}
        bound = {"plan": self.epoch.plan, "epoch": self.epoch.number, "keys": self.keys, **names}
        return derived(shared(private, public, other), {"format": "coterie/secagg/seal/v1", **bound})


def sealed_size(steps: int) -> int:
    """Return how many bytes a holder's sealed shares take: of two leaves for each step."""
    return _NONCE + steps * 64 + _TAG


def seal(channel: Channel, private: bytes, public: bytes, *, shares: bytes, stream: Stream) -> bytes:
    """Seal shares for the receiver.

    The nonce is random (SP 800-38D, section 8.2.2), so that a snapshot that deals again repeats none.
    """
    nonce = stream.bits(_NONCE)
    return nonce + AESGCM(channel.key(private, public, channel.receiver)).encrypt(nonce, shares, None)


def opened(channel: Channel, private: bytes, public: bytes, *, sealed: bytes) -> bytes:
    """Open what the sender sealed.

    Raises:
        PeerFault: It was sealed by someone else, for someone else, for another list of keys, or was altered.
    """
    try:
        key = AESGCM(channel.key(private, public, channel.sender))
        return key.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
    except InvalidTag:
        raise blame(channel.sender, "has a sealed share that does not open") from None
