"""Whose rows a study may read."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.consents import Consented
from coterie.clients.groups import Among
from coterie.clients.taint import taint

__all__ = ["EVERYBODY", "Shared", "Who"]


@dataclass(frozen=True)
class Shared:
    """Customers whom the plan's match found at enough partners, and at no more than the plan protects.

    Args:
        customers: Their names, each once, as large strings.
    """

    customers: pa.Array

    def keep(self, customers: pa.Array) -> NDArray[np.bool_]:
        """Return whether each customer is one of them, shape (rows,).

        Args:
            customers: The customer of each row: texts or whole numbers.
        """
        found = pc.is_in(pc.cast(customers, pa.large_string()), value_set=self.customers)
        return taint(found.to_numpy(zero_copy_only=False).astype(np.bool_))


@dataclass(frozen=True)
class Who:
    """Whose rows may be opened; nobody else's are looked at.

    Args:
        among: Customers of some segments; None for those of all.
        consented: Who consented to the purpose; None where its ground is another than consent.
        shared: Customers of several partners; None where the study is not about them.
    """

    among: Among | None = None
    consented: Consented | None = None
    shared: Shared | None = None


EVERYBODY = Who()
