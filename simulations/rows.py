"""The simulation's own view of every partner's rows, for baselines and exact metrics.

A deployment has no such view: this module is why a report marks some of its figures "simulation only".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.clients.opening import open_table
from coterie.clients.predicting import inputs_of
from coterie.clients.vault import CUSTOMERS, open_vault
from coterie.privacy.clock import now
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import OsSource

__all__ = ["Rows", "everyone", "read_rows"]


@dataclass(frozen=True)
class Rows:
    """Encoded rows.

    Args:
        features: What the plan's model takes of rows: encoded features, (rows, features), or cells, (rows, columns).
        labels: 0 or 1, shape (rows,).
        customer: Whole numbers, equal for rows of one customer at one partner, shape (rows,).
    """

    features: NDArray[Any]
    labels: NDArray[np.float32]
    customer: NDArray[np.int64]

    @property
    def customers(self) -> int:
        """How many customers there are."""
        return len(np.unique(self.customer))

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each row at which every customer counts once, shape (rows,)."""
        _, index, counts = np.unique(self.customer, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / counts[index], dtype=np.float64)


def read_rows(plan: Plan, folders: Sequence[Path]) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Read every partner's training rows and held-out rows, by partner name."""
    training: dict[str, Rows] = {}
    held_out: dict[str, Rows] = {}
    for partner, folder in zip(plan.partners, folders, strict=True):
        stream = OsSource().stream("baselines")
        with open_vault(folder, now) as vault:
            group_key = vault.workspace.group_key
            opened = open_table(vault.table(CUSTOMERS), plan.contract, group_key=group_key, stream=stream)
        features = inputs_of(plan, opened.columns)
        for rows, mine in ((training, ~opened.held_out), (held_out, opened.held_out)):
            rows[partner.name] = Rows(features[mine], opened.labels[mine], opened.customer[mine])
    return training, held_out


def everyone(rows: Mapping[str, Rows]) -> Rows:
    """Put all partners' rows together; a customer of two partners stays two."""
    offset, customers = 0, []
    for part in rows.values():
        customers.append(part.customer + offset)
        offset += int(part.customer.max(initial=-1)) + 1
    return Rows(
        np.concatenate([part.features for part in rows.values()]),
        np.concatenate([part.labels for part in rows.values()]),
        np.concatenate(customers),
    )
