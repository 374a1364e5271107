"""An epoch: one set-up of fresh keys, for sums that are named beforehand.

All that a server must not choose is here, and comes from the signed plan: the roster with its identity keys, the
threshold, and the width of the numbers. No message has a place for any of it.
"""

from dataclasses import dataclass

from coterie.privacy.secagg.errors import misused

__all__ = ["LEAST", "Epoch"]

LEAST = 3
"""Fewest survivors of a sum, whatever the threshold: of a sum of two, either knows the other's part."""


@dataclass(frozen=True)
class Epoch:
    """What every partner of an epoch knows of it before a message is read.

    Args:
        plan: Digest of the plan.
        number: Which set-up of the study: 1, 2, 3, ...
        roster: Name and identity key of every partner of the plan.
        threshold: Fewest partners that open anything; above two thirds of the roster, at least 3.
        steps: Names of the sums, each of which is opened once at most.
        bits: Sums are taken modulo 2**bits, 32 or 64.

    Raises:
        Misuse: Values under which the protocol does not protect.

    Guarantees:
        Above two thirds, two groups of `threshold` partners overlap in more than a third of the roster: no
        coordinator can have two stories about one sum confirmed unless that many partners help it.
    """

    plan: str
    number: int
    roster: tuple[tuple[str, str], ...]
    threshold: int
    steps: tuple[str, ...]
    bits: int

    def __post_init__(self) -> None:
        """Refuse what does not protect."""
        count = len(self.roster)
        if not (self.threshold >= LEAST and 3 * self.threshold > 2 * count and self.threshold <= count <= 255):
            raise misused("the threshold must exceed two thirds of the roster and be at least 3; at most 255 partners")
        if len({name for name, _ in self.roster}) != count or len({key for _, key in self.roster}) != count:
            raise misused("the roster must name every partner and every identity key once")
        if not self.steps or len(set(self.steps)) != len(self.steps):
            raise misused("an epoch needs steps, each named once")
        if self.bits not in {32, 64} or self.number < 1:
            raise misused("bits must be 32 or 64, and the number of an epoch 1 or more")

    def key_of(self, name: str) -> str:
        """Return a partner's identity key, or "" for a stranger."""
        return dict(self.roster).get(name, "")
