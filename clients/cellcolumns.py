"""One column of a table for exchange: its cells, the rows they are bound to, and the key that sealed them."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.cellring import CellKey, Ring
from coterie.clients.tables.celltexts import kind_of, texts_of, typed
from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.fields.codec import RandomisedCells, SearchableCells, check_counts
from coterie.privacy.fields.columns import ColumnPlace
from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.randomness import RandomSource

__all__ = ["CellColumn", "Rows", "key_of"]

_ID = re.compile(r"(?:v1|d1)\.([A-Za-z0-9_-]{22})\.[A-Za-z0-9_-]+")


class CellColumn:
    """The cells of one column, sealed or opened piece by piece; its `repr` shows nothing.

    Args:
        dataset: The data set.
        key: Which key.
        secret: Its bytes.
        random: Of nonces, and of what stands for missing values.
    """

    def __init__(self, dataset: str, key: CellKey, secret: bytearray, *, random: RandomSource) -> None:
        place = ColumnPlace(dataset, key.column, key.version)
        self._codec: RandomisedCells | SearchableCells
        if key.cells == "searchable":
            self._codec = SearchableCells(place, secret, source=random)
        else:
            self._codec = RandomisedCells(place, secret, source=random, sealed=key.sealed)
        self._kind, self._values = kind_of(key.type), _Hashes()

    def seal(self, values: pa.Array, row_keys: Sequence[str], *, first: int) -> pa.Array:
        """Return the cells of a piece.

        Raises:
            ContractFault: A row's key is another row's too, or a text is none that UTF-8 can hold.
            KeyFault: The key has sealed as many cells as it may.
        """
        texts = texts_of(values)
        if isinstance(self._codec, RandomisedCells):
            return pa.array(self._codec.seal_cells(texts, row_keys, first=first), pa.string())
        self._values.add([text for text in texts if text is not None])
        return pa.array(self._codec.seal_piece(texts, first=first), pa.string())

    def check(self) -> None:
        """Check, after the last piece, that a searchable column's values are many, and none of them frequent.

        Raises:
            ContractFault: They are not.
        """
        if isinstance(self._codec, SearchableCells):
            counts = self._values.counts()
            top = int(counts.max(initial=0))
            check_counts(self._codec.place.name, distinct=len(counts), top=top, present=int(counts.sum()))

    def open(self, cells: pa.Array, row_keys: Sequence[str], *, first: int) -> pa.Array:
        """Return the values of a piece's cells, with the type that they had.

        Raises:
            ContractFault: A row's key is another row's too.
            SealFault: A cell does not open.
        """
        texts = texts_of(cells)
        if isinstance(self._codec, RandomisedCells):
            opened = self._codec.open_cells(texts, row_keys, first=first)
        else:
            opened = self._codec.open_cells(texts, first=first)
        try:
            return typed(opened, self._kind)
        except ValueError:  # whoever sealed them holds the key, and follows other rules
            rule, fix = f"has values that are not of its type, from row {first} on", "seal the table again"
            raise SealFault(Fault(self._codec.place.name, rule, fix)) from None

    def cell_of(self, value: str) -> str | None:
        """Return the one cell of a value, or None where equal values have cells that differ.

        Raises:
            ContractFault: The text is none that UTF-8 can hold.
        """
        return self._codec.cell_of(value) if isinstance(self._codec, SearchableCells) else None


class Rows:
    """The rows' own keys, over all pieces of a table.

    Args:
        place: Where the table lies, for errors.
        column: Column that holds them; None for the rows' numbers.
    """

    def __init__(self, place: str, column: str | None) -> None:
        self.count, self._place, self._column, self._keys = 0, place, column, _Hashes()

    def take(self, piece: pa.RecordBatch) -> tuple[int, list[str]]:
        """Return the number of a piece's first row, and its rows' keys.

        Raises:
            ContractFault: A row has none.
        """
        first, self.count = self.count + 1, self.count + piece.num_rows
        if self._column is None:
            return first, [str(number) for number in range(first, self.count + 1)]
        texts = texts_of(piece[self._column])
        keys = [text for text in texts if text is not None]
        if len(keys) < len(texts):
            rule = f"has no row key in row {first + texts.index(None)}"
            raise ContractFault(Fault(f"{self._place} column {self._column}", rule, "give every row a key of its own"))
        self._keys.add(keys)
        return first, keys

    def check(self) -> None:
        """Check, after the last piece, that no key is two rows'.

        Raises:
            ContractFault: One is; cells could be exchanged between them.
        """
        row = self._keys.repeated()
        if row is not None:
            rule = f"the key of row {row} is another row's too, and could not tell their cells apart"
            raise ContractFault(Fault(f"{self._place} column {self._column}", rule, "give every row a key of its own"))


class _Hashes:
    """Texts by Python's own hash, keyed anew for each process: of 64 bits, so one pair in 2**64 is taken for one."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = []

    def add(self, texts: Sequence[str]) -> None:
        self._parts.append(np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts)))

    def counts(self) -> NDArray[np.int64]:
        """Return how often each text is there."""
        return np.unique(self._whole(), return_counts=True)[1]

    def repeated(self) -> int | None:
        """Return the number of the first row whose text was there before, from 1 on, or None."""
        whole = self._whole()
        order = np.argsort(whole, kind="stable")
        again = order[1:][whole[order[1:]] == whole[order[:-1]]]
        return int(again.min()) + 1 if len(again) else None

    def _whole(self) -> NDArray[np.int64]:
        return np.concatenate([np.empty(0, dtype=np.int64), *self._parts])


def key_of(ring: Ring, column: str, cells: str, *, begun: pa.Array | None) -> CellKey:
    """Return the key that a column's cells were sealed under, by what its first cells say.

    Args:
        ring: The data set's keys.
        column: The column.
        cells: The kind that its cells must be of.
        begun: Its first cells; None where there are no rows.

    Raises:
        SealFault: It is not of cells at all.
        KeyFault: None of the keys sealed it.
        ContractFault: Its cells are of another kind.
    """
    place = f"{ring.dataset}.{column}"
    held = {key.id: key for key in ring.keys if key.column == column}
    named = _named(begun, place)
    known = [held[name] for name in named if name in held]
    # Where no cell says anything, whatever key there is will tell what the cells are not.
    chosen = known[0] if known else ring.newest(column) if not named else None
    if chosen is None:
        rule = "has cells of a key that this workspace does not have"
        fix = "open it where it was sealed; a key that was forgotten is gone"
        raise KeyFault(Fault(place, rule if named else "has no cells that this workspace sealed", fix))
    if chosen.cells != cells:
        rule, fix = f"has {chosen.cells} cells, and {cells} ones are asked for", "give the plan that it was sealed by"
        raise ContractFault(Fault(place, rule, fix))
    return chosen


def _named(begun: pa.Array | None, place: str) -> list[str]:
    """Return the ids of keys that cells name, in their order."""
    if begun is None:
        return []
    if not (pa.types.is_string(begun.type) or pa.types.is_large_string(begun.type)):
        rule, fix = "is of another form than sealed cells", "seal the column; plaintext is never taken for a cell"
        raise SealFault(Fault(place, rule, fix))
    found = (_ID.fullmatch(cell) for cell in begun.to_pylist() if cell is not None)
    return list(dict.fromkeys(match[1] for match in found if match))
