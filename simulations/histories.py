"""Leave one out: each training customer's last item is taken from the tables before the partners get them.

The simulator keeps those items, to see later where a model puts them. No partner has them, so no sum, no choice of a
partner and no negative example can have been made of them. Held-out customers keep their whole history: the last item
of each is what the charged counts of places ask about. A deployment has nothing like it.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from coterie.clients.catalogues import match_items
from coterie.clients.groups import is_held_out
from coterie.clients.interactions import wanted_rows
from coterie.clients.purchases import Purchases, read_purchases
from coterie.clients.tables.files import table_at
from coterie.models.catalogue import Catalogue
from coterie.models.histories import Histories
from coterie.privacy.contract import Contract
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["Kept", "hold_back", "together"]


@dataclass(frozen=True)
class Kept:
    """A partner's table without what was taken out, and what was.

    Args:
        table: What the partner gets.
        seen: Its training customers' histories, as they are in that table.
        held: The item that was taken from each of them, shape (customers,); -1 for none.
        held_out: How many customers are held out for the charged counts.
    """

    table: pa.Table
    seen: Histories
    held: NDArray[np.int64]
    held_out: int

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Kept(...)"


def hold_back(
    table: pa.Table, contract: Contract, catalogue: Catalogue, *, group_key: bytes, among: pa.Array | None = None
) -> Kept:
    """Take each training customer's last item out of a partner's table.

    A customer that would have too few items without it keeps it, and nothing is asked about it.

    Args:
        table: Of interactions.
        contract: What it keeps.
        catalogue: The items that count.
        group_key: 32 bytes that decide who is held out.
        among: Who takes part, as texts; all customers when None. The others' rows stay as they are.

    Raises:
        ContractFault: The table breaks the contract.
    """
    rows = contract.interactions
    if rows is None:
        raise ContractFault(Fault("the contract", "is about no interactions", "give a plan that recommends"))
    purchases = _read(table, contract, catalogue)
    drawn = np.array([is_held_out(group_key, name) for name in purchases.customers.to_pylist()], dtype=np.bool_)
    # One item more than partners use: without the last one it is the history that they will find.
    whole, _ = purchases.histories(np.arange(len(drawn)), longest=rows.most + 1)
    taking = np.ones(len(drawn), dtype=np.bool_)
    if among is not None:
        taking = pc.is_in(pc.cast(purchases.customers, pa.string()), value_set=among).to_numpy(zero_copy_only=False)
    asked = taking & ~drawn & (whole.lengths > rows.least)
    last = np.where(asked, whole.without_last()[1], -1)
    training = np.flatnonzero(taking & ~drawn & (whole.lengths >= rows.least))
    items, known = match_items(table[rows.item], catalogue), (contract.customer, purchases.customers)
    kept = table.filter(pa.array(_others(table, items, customers=known, last=last)))
    held = last[training]
    held_out = int((taking & drawn & (whole.lengths >= rows.least)).sum())
    return Kept(kept, _without(whole.of(training), held >= 0), held, held_out)


def together(parts: Mapping[str, Histories]) -> Histories:
    """Put the histories of all partners one after the other; a customer of two partners stays two."""
    lengths = np.concatenate([part.lengths for part in parts.values()])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items, days = (np.concatenate([getattr(part, name) for part in parts.values()]) for name in ("items", "days"))
    return Histories(starts, items, days)


def _read(table: pa.Table, contract: Contract, catalogue: Catalogue) -> Purchases:
    """Read a table as a partner will, from a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        pyarrow.parquet.write_table(table, path)
        return read_purchases(table_at(path), wanted_rows(contract), lambda codes: match_items(codes, catalogue))


def _others(
    table: pa.Table, items: NDArray[np.int64], *, customers: tuple[str, pa.Array], last: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which rows stay: all but those of a customer's last item, on whatever day.

    Args:
        table: Of interactions.
        items: Each row's item.
        customers: Name of the column with customers, and who they are.
        last: The last item of each of these, or -1.
    """
    column, known = customers
    names = pc.cast(table[column].combine_chunks(), pa.string())
    place = pc.fill_null(pc.index_in(names, value_set=known), -1).to_numpy(zero_copy_only=False)
    return np.asarray((place < 0) | (items < 0) | (items != last[place]), dtype=np.bool_)


def _without(whole: Histories, asked: NDArray[np.bool_]) -> Histories:
    """Return the histories without the last item of those that are asked about."""
    keep = np.ones(len(whole.items), dtype=np.bool_)
    keep[whole.starts[1:][asked] - 1] = False
    starts = np.concatenate([[0], np.cumsum(whole.lengths - asked)]).astype(np.int64)
    return Histories(starts, whole.items[keep], whole.days[keep])
