"""The vault's second table: customers' interactions, opened for one call as histories of catalogue positions.

Rules this module enforces, beside those of `purchases.py`, which reads the table:
- a customer is in the held-out group by the same keyed hash as ever, and so for life;
- a customer has at most as many items as the contract says, its most recent ones, and takes part with the least
  that it says;
- what the contract lets pass is counted for the partner's own eyes.
"""

import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coterie.clients.catalogues import hold_to_digest, match_items, read_catalogue
from coterie.clients.groups import Among, is_held_out, segment_of
from coterie.clients.purchases import Purchases, Wanted, read_purchases
from coterie.clients.tables.table import Table
from coterie.clients.taint import taint
from coterie.clients.who import EVERYBODY, Who
from coterie.models.catalogue import Catalogue, encoded
from coterie.models.histories import Histories
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.plan import Plan

__all__ = ["OpenedHistories", "attributes_of", "catalogue_of", "open_histories", "wanted_rows"]


@dataclass(frozen=True)
class OpenedHistories:
    """A partner's histories in memory; dies with the call that opened it.

    Args:
        training: Of the training customers.
        held_out: Of the others.
        notes: Local counts of what the contract let pass.
    """

    training: Histories
    held_out: Histories
    notes: Mapping[str, int]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many customers and items of theirs are here, with the notes: for the partner's sealed records alone."""
        parts = {"training customers": self.training, "held-out customers": self.held_out}
        items = len(self.training.items) + len(self.held_out.items)
        return {**{name: len(part) for name, part in parts.items()}, "items": items, **self.notes}

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "OpenedHistories(...)"


def catalogue_of(path: Path, plan: Plan) -> Catalogue:
    """Read the plan's catalogue from where the partner keeps it.

    Raises:
        CatalogueFault: It is missing, unreadable, or not the plan's.
        ContractFault: The plan has none, or counts its items wrongly.
    """
    if plan.catalogue is None:
        raise ContractFault(Fault("the plan", "has no catalogue", "ask for one that recommends"))
    changed = path.stat().st_mtime_ns if path.exists() else 0
    catalogue = _catalogue(path, plan.catalogue.kind, changed)
    hold_to_digest(catalogue, plan.catalogue.digest, place=str(path))
    if len(catalogue.codes) != plan.catalogue.items:
        raise ContractFault(
            Fault(str(path), "has another number of items than the plan says", "have the plan corrected")
        )
    return catalogue


def attributes_of(path: Path, plan: Plan) -> NDArray[np.float32]:
    """Return the encoded public attributes of a plan's items, (items, attributes).

    Raises:
        CatalogueFault: The catalogue is not the plan's.
        ContractFault: It encodes to another number of columns than the plan says.
    """
    found = _encoded(path, plan, path.stat().st_mtime_ns if path.exists() else 0)
    if plan.catalogue is None or found.shape[1] != plan.catalogue.attributes:
        rule = "encodes to another number of attributes than the plan says"
        raise ContractFault(Fault(str(path), rule, "have the plan corrected"))
    return found


@functools.lru_cache(maxsize=1)
def _encoded(path: Path, plan: Plan, changed: int) -> NDArray[np.float32]:  # noqa: ARG001 - likewise
    return encoded(catalogue_of(path, plan))


@functools.lru_cache(maxsize=2)
def _catalogue(path: Path, kind: str, changed: int) -> Catalogue:  # noqa: ARG001 - a changed file is another one
    return read_catalogue(path, kind)


def open_histories(
    table: Table, contract: Contract, catalogue: Catalogue, *, group_key: bytes, who: Who = EVERYBODY
) -> OpenedHistories:
    """Open a table of interactions and check it.

    Args:
        table: The interactions.
        contract: What it must keep.
        catalogue: The items that count.
        group_key: 32 bytes that decide who is held out.
        who: Whose rows are opened; of the others nothing is kept.

    Raises:
        ContractFault: The table breaks the contract; every fault is named.
    """
    rows = _rows_of(contract)
    purchases = read_purchases(table, wanted_rows(contract), lambda codes: match_items(codes, catalogue))
    names = purchases.customers.to_pylist()
    mine = np.array([_is_among(who.among, group_key, name) for name in names], dtype=np.bool_)
    left_out: Mapping[str, int] = {}
    if who.consented is not None:
        kept, left_out = who.consented.keep(purchases.customers)
        mine &= kept
    if who.shared is not None:
        mine &= who.shared.keep(purchases.customers)
    drawn = np.array([is_held_out(group_key, name) for name in names], dtype=np.bool_)
    notes = {**purchases.notes, **{f"customers: {why}": count for why, count in left_out.items()}}
    training, held_out = (_histories(purchases, mine & group, rows, notes) for group in (~drawn, drawn))
    if not len(training.items):
        rule = "holds no customer with enough items that count"
        raise ContractFault(Fault(table.place, rule, "compare its items with the catalogue, and its days and values"))
    return OpenedHistories(training, held_out, notes)


def wanted_rows(contract: Contract) -> Wanted:
    """Return what of a table of interactions a contract reads, and on which terms."""
    rows = _rows_of(contract)
    return Wanted(
        customer=contract.customer,
        item=rows.item,
        time=rows.time,
        value=rows.value,
        least_value=rows.least_value,
        earliest=datetime.date.fromisoformat(rows.earliest),
        today=datetime.date.fromisoformat(rows.latest),
        early=rows.outside,
        future=rows.outside,
    )


def _rows_of(contract: Contract) -> Interactions:
    if contract.interactions is None:
        raise ContractFault(Fault("the contract", "is about no interactions", "give a plan that recommends"))
    return contract.interactions


def _histories(purchases: Purchases, chosen: NDArray[np.bool_], rows: Interactions, notes: dict[str, int]) -> Histories:
    found, crowded = purchases.histories(np.flatnonzero(chosen), longest=rows.most)
    enough = found.lengths >= rows.least
    for name, count in (("customers with too many items", crowded), ("customers with too few items", (~enough).sum())):
        if count:
            notes[name] = notes.get(name, 0) + int(count)
    kept = found.of(np.flatnonzero(enough))
    for array in (kept.starts, kept.items, kept.days):
        taint(array)
    return kept


def _is_among(among: Among | None, group_key: bytes, name: str) -> bool:
    return among is None or segment_of(among.division, group_key, name) in among.chosen
