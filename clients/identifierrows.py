"""The vault's identifiers, opened for one match: the distinct values of one kind, and whose they are.

Rules this module enforces:
- nothing but a match opens identifiers, one kind at a time;
- only customers in the plan's segments, and of those only who consented where consent is the ground, are kept;
- a customer has one value of a kind, and equal values of several customers are one item of the list.

Guarantees:
    Adding or removing one customer changes the list by one item at most, and by none where another customer has the
    same value.

Memory: about 200 bytes a customer while the list is opened, for texts of common lengths, and half of that afterwards.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.groups import segment_of
from coterie.clients.ordered import begins, repeats, together
from coterie.clients.sealedtable import SealedTable
from coterie.clients.tables.table import PIECE
from coterie.clients.taint import taint
from coterie.clients.who import EVERYBODY, Who
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["IdentifierList", "open_identifiers"]

_FIX = "seal them again: coterie partner identifiers FOLDER TABLE"


@dataclass(frozen=True)
class IdentifierList:
    """A partner's identifiers of one kind in memory; dies with the match that opened it. Its `repr` shows nothing.

    Args:
        kind: "email", "phone" or "loyalty".
        version: Of the rules that made the values canonical.
        notes: Local counts of who was left out.
    """

    kind: str
    version: str
    notes: Mapping[str, int]
    _values: pa.Array  # the items, each once
    _customers: pa.Array  # by item
    _starts: NDArray[np.int64]  # of each item's customers, shape (items + 1,)

    def __repr__(self) -> str:
        """Return a text without any value or size."""
        return "IdentifierList(...)"

    @property
    def count(self) -> int:
        """How many items there are."""
        return len(self._values)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many items and customers are here, with the notes: for the partner's sealed records alone."""
        return {"items": self.count, "customers": len(self._customers), **self.notes}

    @property
    def digest(self) -> str:
        """What the list is: another text where any item, or whose it is, differs. As secret as the items themselves.

        Who may be matched can change while a match is made; by it, an array by item is held to the list it was made of.
        """
        found = hashlib.sha256(self._starts.tobytes())
        for texts in (self._values, self._customers):
            for start in range(0, len(texts), PIECE):
                part = texts.slice(start, PIECE).to_pylist()
                found.update("".join(f"{len(text)}:{text}" for text in part).encode())
        return found.hexdigest()

    def items(self) -> Iterator[list[str]]:
        """Yield the canonical values, each once and in their own order, 65,536 at most at a time."""
        for start in range(0, len(self._values), PIECE):
            yield self._values.slice(start, PIECE).to_pylist()

    def customers_of(self, chosen: NDArray[np.bool_]) -> pa.Array:
        """Return the customers of some items, each once, as large strings.

        Args:
            chosen: Whether an item is chosen, in the order of `items`, shape (count,).
        """
        return self._customers.filter(pa.array(chosen[self._item_of_each()]))

    def owners(self) -> tuple[pa.Array, NDArray[np.int64]]:
        """Return all customers, each once, as large strings, and the place of each one's item in the order of `items`.

        An array by item is turned into one by customer with the second.
        """
        return self._customers, taint(self._item_of_each())

    def _item_of_each(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(self.count), np.diff(self._starts))


def open_identifiers(table: SealedTable, kind: str, *, group_key: bytes, who: Who = EVERYBODY) -> IdentifierList:
    """Open one kind of a partner's identifiers.

    Args:
        table: The vault's identifiers.
        kind: "email", "phone" or "loyalty".
        group_key: 32 bytes that decide who is in which segment.
        who: Whose identifiers are opened; of the others nothing is kept.

    Raises:
        ContractFault: There is none of this kind; or they were sealed under two versions of the rules; or a customer
            has two; or a column of another table divides customers into segments.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    customers, values = list[pa.Array](), list[pa.Array]()
    versions, left_out = set[str](), Counter[str]()
    for piece in table.pieces(["customer", "kind", "value", "rules"]):
        rows = piece.filter(pc.equal(pc.cast(piece["kind"], pa.string()), kind))
        versions.update(pc.unique(pc.cast(rows["rules"], pa.string())).to_pylist())
        kept = _kept(rows["customer"], who, group_key, left_out)
        customers.append(rows["customer"].filter(kept))
        values.append(rows["value"].filter(kept))
    if len(versions) != 1:
        rule = "was sealed under two versions of the rules" if versions else "holds none of this kind"
        raise ContractFault(Fault(f"{table.place} of kind {kind}", rule, _FIX))
    notes = {f"customers: {why}": count for why, count in left_out.items() if count}
    names = together(customers)
    if repeats(names):
        raise ContractFault(Fault(f"{table.place} of kind {kind}", "has two of one customer", _FIX))
    texts = together(values)
    order = pc.sort_indices(texts)
    texts = texts.take(order)
    new = begins(texts)
    starts = np.append(np.flatnonzero(new), len(texts)).astype(np.int64)
    items = texts if new.all() else texts.filter(pa.array(new))
    return IdentifierList(kind, versions.pop(), notes, items, names.take(order), taint(starts))


def _kept(customers: pa.Array, who: Who, group_key: bytes, left_out: Counter[str]) -> pa.Array:
    """Return whose rows are kept, and count who is left out for want of consent."""
    kept = np.ones(len(customers), dtype=np.bool_)
    if who.among is not None:
        division, chosen = who.among.division, who.among.chosen
        told = (segment_of(division, group_key, name) in chosen for name in customers.to_pylist())
        kept = np.fromiter(told, dtype=np.bool_, count=len(customers))
    if who.consented is not None:
        # As in other tables, of the chosen segments alone is told who is left out.
        kept[kept], why = who.consented.keep(customers.filter(pa.array(kept)))
        left_out.update(why)
    return pa.array(kept)
