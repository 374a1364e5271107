"""CSV as a table: every cell is the text that was written, an empty one is missing, and nothing is guessed.

Rules this module enforces:
- the file is UTF-8, with or without a mark, and commas part its cells;
- the first row names the columns, and every other row has as many cells;
- a quote that is opened is closed: a row that is added at the end must come back as it was.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.csv

from coterie.clients.tables.refused import encoding_like, not_utf8, refused, utf16
from coterie.clients.tables.table import PIECE, checked
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["CsvFile"]

_HEAD, _BLOCK = 1 << 18, 1 << 20  # bytes: of a header at most, and of a row; dozens of blocks are read ahead
_END = "\x1fthe end\x1f"  # in the first cell of the row that is added


@dataclass(frozen=True)
class CsvFile:
    """A CSV file with a header.

    Args:
        path: The file.
        schema: Its columns, all of them texts.
        before: Rows up to and with the header; only empty ones are before it.
    """

    path: Path
    schema: pa.Schema
    before: int

    @classmethod
    def at(cls, path: Path) -> Self:
        """Read a file's header.

        Raises:
            ContractFault: The file is missing, a folder, unreadable, empty, not UTF-8, or not parted by commas, or its
                header is longer than 256 KiB.
        """
        try:
            with path.open("rb") as file:
                names, before = _header(path, file.read(_HEAD))
        except OSError as error:
            raise refused(path, error) from None
        return cls(path, pa.schema([(name, pa.string()) for name in names]), before)

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    def pieces(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, as `Table` says.

        Args:
            names: Columns of each piece.

        Raises:
            ContractFault: A column is not there once, the header is another one by now, a row has too many or too few
                cells or is longer than a MiB, a quote is not closed, or the file is not UTF-8.
        """
        chosen = checked(names, self.schema, self.place)
        if type(self).at(self.path) != self:
            rule = "has another header than a moment ago"
            raise ContractFault(Fault(self.place, rule, "leave it alone while it is read"))
        try:
            with self.path.open("rb") as file:
                for batch in self._batches(file, chosen):
                    columns = [batch.column(str(place)) for place in chosen]
                    rows = pa.RecordBatch.from_arrays(columns, schema=self._schema_of(chosen))
                    yield from (rows.slice(start, PIECE) for start in range(0, rows.num_rows, PIECE))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._why(error) from None

    def _schema_of(self, chosen: list[int]) -> pa.Schema:
        return pa.schema([self.schema.field(place) for place in chosen])

    def _batches(self, file: BinaryIO, chosen: list[int]) -> Iterator[pa.RecordBatch]:
        uneven: list[tuple[int, int]] = []
        held = None
        with self._stream(file, chosen, uneven) as stream:
            for batch in stream:
                if batch.num_rows and not uneven:
                    if held is not None:
                        yield held
                    held = batch
        if uneven:
            (row, cells), others = uneven[0], len(uneven) - 1
            rule = f"has {cells} cells in row {row} where the header has {len(self.schema)}"
            rule += f"; so it is in {others} more rows" if others else ""
            fix = "give every row a cell for each column, and quote cells that hold commas or line breaks"
            raise ContractFault(Fault(self.place, rule, fix))
        if held is None or held.column("0")[-1].as_py() != _END:
            raise ContractFault(Fault(self.place, "ends within quotes", "close the quote that is open"))
        yield held.slice(0, held.num_rows - 1)

    def _stream(
        self, file: BinaryIO, chosen: list[int], uneven: list[tuple[int, int]]
    ) -> pyarrow.csv.CSVStreamingReader:
        def skip(row: pyarrow.csv.InvalidRow) -> str:
            uneven.append((row.number, row.actual_columns))
            return "skip"

        # By place: names may be there twice. The library's own threads would not say which row is uneven.
        labels = [str(place) for place in range(len(self.schema))]
        return pyarrow.csv.open_csv(
            pa.PythonFile(_Ended(file, len(labels)), "r"),
            read_options=pyarrow.csv.ReadOptions(
                column_names=labels, skip_rows_after_names=self.before, block_size=_BLOCK, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(labels, pa.string()),
                include_columns=[str(place) for place in sorted({0, *chosen})],
                strings_can_be_null=True,
                null_values=[""],
            ),
        )

    def _why(self, error: Exception) -> ContractFault:
        """Return what to say of a file that the library would not read."""
        if isinstance(error, pa.ArrowInvalid):
            try:
                looks = encoding_like(self.path)
            except OSError as worse:
                return refused(self.path, worse)
            if looks is not None:
                return not_utf8(self.path, looks)
            if "straddling" in str(error):
                rule = f"has a row of more than {_BLOCK >> 10} KiB"
                return ContractFault(Fault(self.place, rule, "look for a quote that is not closed"))
        return refused(self.path, error)


class _Ended(io.RawIOBase):
    """A file with one more row, by which a quote that stays open is found."""

    def __init__(self, file: BinaryIO, columns: int) -> None:
        self._file = file
        self._rest = b"\n" + _END.encode() + b"," * (columns - 1) + b"\n"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        room = len(self._rest) if size < 0 else size - len(data)
        added, self._rest = self._rest[:room], self._rest[room:]
        return data + added


def _header(path: Path, head: bytes) -> tuple[list[str], int]:
    """Return the names of the columns, and the number of rows up to and with them."""
    if utf16(head):
        raise not_utf8(path, "UTF-16")
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text = decoder.decode(head.removeprefix(codecs.BOM_UTF8), final=len(head) < _HEAD)
    if not text.strip("\r\n"):
        raise ContractFault(Fault(str(path), "is empty", "give a table with a header"))
    names, before, rest = _first(text, ",")
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) < 2 and len(_first(text, mark)[0]) > 1:
            raise ContractFault(Fault(str(path), f"is parted by {word}", "save it with commas"))
    if len(head) == _HEAD and not rest:
        rule = f"has a header of more than {_HEAD >> 10} KiB"
        raise ContractFault(Fault(str(path), rule, "look for a quote that is not closed"))
    if not names:
        rule = "has quotes in its header that do not fit"
        raise ContractFault(Fault(str(path), rule, "look for a quote that is not closed"))
    if any("\udc80" <= character <= "\udcff" for character in "".join(names)):
        raise not_utf8(path, "Windows-1252 or Latin-1")
    return names, before


def _first(text: str, mark: str) -> tuple[list[str], int, str]:
    """Return the cells of the first row that has some, which row it is, and whether anything comes after it.

    There are no cells where its quotes do not fit.
    """
    lines, before = io.StringIO(text, newline=""), 0
    try:
        for names in csv.reader(lines, delimiter=mark, strict=True):
            before += 1
            if names:
                return names, before, lines.read(1)
    except csv.Error:
        return [], before, lines.read(1)
    return [], before, ""
