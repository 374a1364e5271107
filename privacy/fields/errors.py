"""What goes wrong with sealed things: ours to mend (a key), or somebody's doing (a damaged or exchanged file)."""

from coterie.privacy.errors import CoterieError

__all__ = ["KeyFault", "SealFault"]


class KeyFault(CoterieError):
    """A key is missing, wrong, of another epoch, or its source does not answer."""


class SealFault(CoterieError):
    """Something sealed is damaged, cut short, exchanged, older than the ledger says, or not sealed at all."""
