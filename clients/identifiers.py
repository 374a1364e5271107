"""Reading a table of customers' identifiers: in pieces, made canonical, with what is rejected counted and none guessed.

Rules this module enforces:
- a customer has one identifier of a kind at most: the first that is taken; another one is rejected, and the same again
  is no other;
- what cannot be made canonical is rejected, by its row and a reason that shows nothing of it;
- a row without its customer is a fault of the whole table: what nobody is named by can never be erased.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.consentrows import refuse, unnamed
from coterie.clients.firsts import ANOTHER, FIRST, Firsts
from coterie.clients.tables.newfile import NewFile
from coterie.clients.tables.table import Table
from coterie.privacy.errors import Fault
from coterie.privacy.matching.identifiers import KINDS, canonical, rules_version

__all__ = ["REPORT", "SEALED", "Identified", "Rows"]

SEALED = pa.schema(
    [
        ("customer", pa.large_string()),
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("value", pa.large_string()),
        ("rules", pa.dictionary(pa.int8(), pa.string())),
    ]
)
"""How identifiers are sealed: one row for each customer and kind, with the version of the rules that made its value."""

REPORT = pa.schema([("row", pa.int64()), ("kind", pa.string()), ("reason", pa.string())])
"""What is written of a rejected identifier: its row, counted from 1 after the header, and why."""

_EMPTY, _SECOND = "empty", "second"


@dataclass(frozen=True)
class Identified:
    """Which columns of a table say what.

    Args:
        customer: The column that names customers, as the other tables do.
        columns: The column of each kind of identifier that is there.
        region: Country of phone numbers that do not begin with +, two capital letters (ISO 3166-1); None where there is
            none.
        region_column: The column that says it of each row, but where its cell is empty; None where there is none.
    """

    customer: str
    columns: Mapping[str, str]
    region: str | None = None
    region_column: str | None = None

    def check(self) -> None:
        """Check what is asked for.

        Raises:
            ContractFault: No kind, or an unknown one; a region without phone numbers, or of no country.
        """
        unknown = [kind for kind in self.columns if kind not in KINDS]
        if unknown or not self.columns:
            rule, fix = "names no column of a known kind of identifier", f"name one of: {', '.join(KINDS)}"
            refuse([Fault("the table of identifiers", rule, fix)])
        if "phone" not in self.columns and (self.region is not None or self.region_column is not None):
            rule, fix = "is for phone numbers, and no column has any", "name that column, or leave the region out"
            refuse([Fault("the region", rule, fix)])
        if self.region is not None and self.region not in phonenumbers.SUPPORTED_REGIONS:
            refuse([Fault("the region", "is no country's", "give two capital letters of ISO 3166-1, such as GB")])

    @property
    def wanted(self) -> list[str]:
        """The columns that are read, each once."""
        more = [self.region_column] if self.region_column is not None else []
        return list(dict.fromkeys([self.customer, *self.columns.values(), *more]))


class Rows:
    """The canonical identifiers of one table, counted while they are read.

    Args:
        table: The table.
        where: Which of its columns say what; each is there once.
        report: Where rejected ones are written down. An empty cell is counted and not written down.

    Raises:
        ContractFault: A column is of a type that has several spellings of one value.
    """

    def __init__(self, table: Table, where: Identified, report: NewFile) -> None:
        self._table, self._where, self._report = table, where, report
        self.taken, self.rejected = Counter[str](), Counter[tuple[str, str]]()
        self._firsts = {kind: Firsts() for kind in where.columns}
        self._versions = pa.array([rules_version(kind) for kind in KINDS])
        self._before = 0
        named = [(name, table.schema.field(name).type) for name in where.wanted]
        some = [
            (name, kind) for name, kind in named if not pa.types.is_null(kind)
        ]  # a column of empty cells has no type
        refuse([fault for name, kind in some for fault in unnamed(f"{table.place} column {name}", kind)])

    def pieces(self) -> Iterator[pa.RecordBatch]:
        """Yield what is sealed, in order.

        Raises:
            ContractFault: The table cannot be read; or, after its last row, customers are missing.
            FileFault: The report cannot be written.
        """
        missing = 0
        for piece in self._table.pieces(self._where.wanted):
            columns = {name: pc.cast(piece[name], pa.large_string()) for name in self._where.wanted}
            missing += columns[self._where.customer].null_count
            if not missing:
                regions = self._regions(columns, piece.num_rows)
                for kind, name in self._where.columns.items():
                    yield from self._of(kind, columns[self._where.customer], columns[name], regions)
            self._before += piece.num_rows
        place, fix = f"{self._table.place} column {self._where.customer}", "fill it, or leave these rows out"
        refuse([Fault(place, f"is missing in {missing} rows", fix)] if missing else [])

    def _regions(self, columns: Mapping[str, pa.Array], rows: int) -> Sequence[str | None]:
        if self._where.region_column is None:
            return [self._where.region] * rows
        told = columns[self._where.region_column].to_pylist()
        known = phonenumbers.SUPPORTED_REGIONS
        # A word that is no country's is not taken for the one that was named for all: such a number has no region.
        return [self._where.region if word is None else word if word in known else None for word in told]

    def _of(
        self, kind: str, customers: pa.Array, column: pa.Array, regions: Sequence[str | None]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one kind that a piece has."""
        told = zip(column.to_pylist(), regions, strict=True)
        found = [canonical(kind, text, region=region if kind == "phone" else None) for text, region in told]
        reasons = np.array([one.reason for one in found], dtype=object)
        rows = np.flatnonzero(reasons == "")
        values = pa.array([found[row].value for row in rows], pa.large_string())
        named = customers.take(pa.array(rows))
        verdict = self._firsts[kind].take(_hashes(named), _hashes(values))
        reasons[rows[verdict == ANOTHER]] = _SECOND
        self._reject(kind, reasons)
        chosen = pa.array(verdict == FIRST)
        count = int(np.count_nonzero(verdict == FIRST))
        self.taken[kind] += count
        if count:
            codes = pa.array(np.full(count, KINDS.index(kind), dtype=np.int8))
            known = [pa.DictionaryArray.from_arrays(codes, words) for words in (pa.array(KINDS), self._versions)]
            columns = [named.filter(chosen), known[0], values.filter(chosen), known[1]]
            yield pa.RecordBatch.from_arrays(columns, schema=SEALED)

    def _reject(self, kind: str, reasons: NDArray[np.object_]) -> None:
        rows = np.flatnonzero(reasons != "")
        self.rejected.update((kind, str(reasons[row])) for row in rows)
        told = rows[reasons[rows] != _EMPTY]
        if len(told):
            columns = [pa.array(self._before + 1 + told), pa.array([kind] * len(told)), pa.array(reasons[told])]
            self._report.add(pa.RecordBatch.from_arrays(columns, schema=REPORT))


def _hashes(texts: pa.Array) -> NDArray[np.int64]:
    """Return Python's own hash of each text, which is keyed anew for each process."""
    return np.fromiter(map(hash, texts.to_pylist()), dtype=np.int64, count=len(texts))
