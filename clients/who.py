"""Whose rows a study may read."""

from dataclasses import dataclass

from coterie.clients.consents import Consented
from coterie.clients.groups import Among

__all__ = ["EVERYBODY", "Who"]


@dataclass(frozen=True)
class Who:
    """Whose rows may be opened; nobody else's are looked at.

    Args:
        among: Customers of some segments; None for those of all.
        consented: Who consented to the purpose; None where its ground is another than consent.
    """

    among: Among | None = None
    consented: Consented | None = None


EVERYBODY = Who()
