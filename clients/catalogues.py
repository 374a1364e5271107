"""Catalogues as files, and a partner's item codes as positions in one.

The same items give the same catalogue from CSV and from Parquet: every cell is read as text first, and a column is of
numbers if all that stands in it are numbers. What a plan agrees on is the catalogue's digest, so a partner that holds
another list of items is told so before it opens a table.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from coterie.models.catalogue import LONGEST_CELL, MOST_ATTRIBUTES, MOST_ITEMS, Catalogue, Cells
from coterie.models.itemcodes import KINDS, normal_codes, normal_text, unprintable
from coterie.privacy.errors import CoterieError, Fault

__all__ = ["ITEM", "CatalogueFault", "hold_to_digest", "match_items", "read_catalogue", "write_catalogue"]

ITEM = "item"
"""The column of a catalogue's file that holds the codes."""

_LARGEST = 2**30  # bytes, of the file and of the table that it unfolds to


class CatalogueFault(CoterieError):
    """A file is not a catalogue, or not the catalogue that was agreed on."""


def read_catalogue(path: Path, kind: str, *, words: Collection[str] = ()) -> Catalogue:
    """Read a catalogue from a CSV or Parquet file.

    Args:
        path: A file with a column `item`; every other column is a public attribute.
        kind: What the codes are, one of `itemcodes.KINDS`.
        words: Columns that are texts even where all that stands in them are numbers, as category codes may be.

    Returns:
        The catalogue, in the order of its codes.

    Raises:
        CatalogueFault: The file is no catalogue; every fault is named, by count and never by value.
    """
    table = _read(path)
    faults = _shape_faults(table, kind, words)
    if faults:
        raise _at(path, faults)
    read = normal_codes(_texts(table[ITEM], padded=kind == "gtin"), kind)
    faults = [
        Fault(f"column {ITEM}", f"holds {n} codes that {why}", _FIX_CODES[kind]) for why, n in read.refused.items()
    ]
    good = [code for code in read.codes if code]
    if len(set(good)) != len(good):
        rule = f"names an item again in {len(good) - len(set(good))} rows"
        faults.append(Fault(f"column {ITEM}", rule, "give each item one row"))
    attributes = {}
    for name in table.column_names:
        if name != ITEM:
            attributes[name] = _cells(table[name], name, faults, as_words=name in words)
    if faults:
        raise _at(path, faults)
    return Catalogue.arranged(tuple(read.codes), attributes, kind=kind)


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write a catalogue, as CSV if the name ends so and as Parquet otherwise.

    A text attribute that holds nothing but numbers is read back as text only if `read_catalogue` is told so.

    Args:
        catalogue: What to write.
        path: The file; one that is there is replaced.

    Raises:
        CatalogueFault: The file cannot be written.
    """
    columns = {ITEM: pa.array(catalogue.codes, pa.string())}
    for name, cells in catalogue.attributes.items():
        texts = isinstance(cells, tuple)
        columns[name] = pa.array(cells, pa.string()) if texts else pa.array(cells, pa.float64(), from_pandas=True)
    table, fresh = pa.table(columns), path.with_name(f"{path.name}.new")
    try:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, fresh)
        else:
            pyarrow.parquet.write_table(table, fresh)
        fresh.replace(path)
    except OSError:
        raise CatalogueFault(Fault(str(path), "cannot be written", "check the path and its rights")) from None


def hold_to_digest(catalogue: Catalogue, agreed: str, *, place: str) -> None:
    """Refuse a catalogue that is not the one that was agreed on.

    Args:
        catalogue: The one that is here.
        agreed: Digest of the one that the plan names.
        place: Where the catalogue was read from.

    Raises:
        CatalogueFault: They differ.
    """
    here = catalogue.digest()
    if here != agreed:
        rule = f"has the digest {here}, but the plan was agreed on the catalogue with {agreed}"
        raise CatalogueFault(Fault(place, rule, "ask the coordinator for the agreed file, or for a plan with this one"))


def match_items(codes: pa.ChunkedArray | pa.Array, catalogue: Catalogue) -> NDArray[np.int64]:
    """Find the position of each row's item.

    Args:
        codes: Item codes as a partner writes them, texts or whole numbers, one a row.
        catalogue: The agreed items.

    Returns:
        Position of each row's item in the catalogue, shape (rows,); -1 where the item is unknown or there is none.

    Raises:
        CatalogueFault: The column holds neither texts nor whole numbers.
    """
    column = codes if isinstance(codes, pa.ChunkedArray) else pa.chunked_array([codes])
    if not _is_code(_value_type(column.type)):
        raise CatalogueFault(Fault(f"column {ITEM}", "must hold texts or whole numbers", "correct its type"))
    coded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if not coded.num_chunks:
        return np.empty(0, dtype=np.int64)
    known = coded.chunk(0).dictionary
    written = _texts(pa.chunked_array([known]), padded=catalogue.kind == "gtin")
    # A code that is refused becomes "", which is in no catalogue.
    normal = pa.array(normal_codes(written, catalogue.kind).codes, pa.string())
    found = pc.index_in(normal, value_set=pa.array(catalogue.codes, pa.string()))
    # One more for the rows without a code.
    positions = np.append(np.asarray(pc.fill_null(found, -1), dtype=np.int64), -1)
    rows = [np.asarray(pc.fill_null(chunk.indices, len(known)), dtype=np.int64) for chunk in coded.chunks]
    matched: NDArray[np.int64] = positions[np.concatenate(rows)]
    return matched


_FIX_CODES: Mapping[str, str] = {
    "gtin": "give GTIN-8, -12, -13 or -14 as texts, with their leading zeros and check digits",
    "taxonomy": "give each item one plain text",
}


def _at(path: Path, faults: Sequence[Fault]) -> CatalogueFault:
    return CatalogueFault(*(Fault(f"{path} {fault.place}".strip(), fault.rule, fault.fix) for fault in faults))


def _read(path: Path) -> pa.Table:
    unreadable = Fault(str(path), "cannot be read as a table", "give a Parquet or CSV file with a header")
    try:
        large = path.stat().st_size > _LARGEST
        table = None if large else _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
        if table is None or table.nbytes > _LARGEST:
            raise CatalogueFault(Fault(str(path), "is larger than 1 GiB", "give a catalogue with fewer attributes"))
        table.column_names  # noqa: B018 - names that are not text are an error here, not later
    except (OSError, ValueError, pa.ArrowException):
        # The library's own text may hold a cell; it is not passed on.
        raise CatalogueFault(unreadable) from None
    return table


def _read_parquet(path: Path) -> pa.Table:
    with pyarrow.parquet.ParquetFile(path) as file:
        # A small file may unfold into very many rows; they are counted before they are read.
        return file.read() if file.metadata.num_rows <= MOST_ITEMS else file.schema_arrow.empty_table()


def _read_csv(path: Path) -> pa.Table:
    with pyarrow.csv.open_csv(path) as stream:
        names = stream.schema.names
    options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return pyarrow.csv.read_csv(path, convert_options=options)


def _shape_faults(table: pa.Table, kind: str, words: Collection[str]) -> list[Fault]:
    """Return what is wrong with a table before any cell is looked at."""
    names, faults = table.column_names, []
    if kind not in KINDS:
        faults.append(Fault("kind", "must be a known kind of code", f"name one of {', '.join(KINDS)}"))
    faults += [Fault(f"column {name}", "is missing", "add it") for name in [ITEM, *words] if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [Fault(f"column {name}", "is there twice", "keep one of them") for name in twice]
    if not 2 <= table.num_rows <= MOST_ITEMS:
        rule = f"must list at least 2 items and at most {MOST_ITEMS}"
        faults.append(Fault("", rule, "give the agreed catalogue whole: with one item there is nothing to choose"))
    if len(names) > MOST_ATTRIBUTES + 1:
        faults.append(Fault("", f"must have at most {MOST_ATTRIBUTES} attributes", "keep the most telling ones"))
    for name in names:
        if not name or normal_text(name) != name or len(name) > LONGEST_CELL or unprintable(name):
            faults.append(Fault("header", "must name every column in plain text", "correct it"))
        elif names.count(name) == 1 and not _allowed(_value_type(table[name].type), name):
            rule = "must hold texts or whole numbers" if name == ITEM else "must hold texts or numbers"
            faults.append(Fault(f"column {name}", rule, "correct its type"))
    return faults


def _allowed(kind: pa.DataType, name: str) -> bool:
    number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return _is_code(kind) or (bool(number) and name != ITEM) or bool(pa.types.is_null(kind))


def _is_code(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _texts(column: pa.ChunkedArray, *, padded: bool = False) -> list[str]:
    """Return the cells as they are written, "" for a missing one; whole numbers of a GTIN get their zeros back."""
    kind = _value_type(column.type)
    texts = pc.fill_null(pc.cast(column, pa.string()), "")
    if padded and pa.types.is_integer(kind):
        texts = pc.if_else(pc.equal(texts, ""), "", pc.utf8_lpad(texts, 14, "0"))
    listed: list[str] = texts.to_pylist()
    return listed


def _cells(column: pa.ChunkedArray, name: str, faults: list[Fault], *, as_words: bool) -> Cells:
    place = f"column {name}"
    numbers = None if as_words else _numbers(column)
    # Most columns say few things of many items: each is looked at once, and kept once.
    written = _texts(column) if numbers is None else []
    normal = {text: normal_text(text) for text in set(written)}
    texts = [normal[text] for text in written]
    if np.isnan(numbers).all() if numbers is not None else not any(texts):
        faults.append(Fault(place, "has no value", "fill it, or leave it out"))
    if numbers is not None:
        infinite = int(np.isinf(numbers).sum())
        if infinite:
            faults.append(Fault(place, f"is infinite in {infinite} rows", "correct them"))
        return numbers
    long = {text for text in normal.values() if len(text) > LONGEST_CELL}
    marred = {text for text in normal.values() if unprintable(text)}
    if long:
        rule = f"is longer than {LONGEST_CELL} characters in {sum(text in long for text in texts)} rows"
        faults.append(Fault(place, rule, "shorten them"))
    if marred:
        rule = f"holds control characters in {sum(text in marred for text in texts)} rows"
        faults.append(Fault(place, rule, "remove them"))
    return tuple(texts)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """Return the cells as numbers, NaN for a missing one, or None if one of them is something else."""
    kind = _value_type(column.type)
    if not (pa.types.is_integer(kind) or pa.types.is_float64(kind)):
        # Through text, so that a short float is the number that a CSV file says.
        texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
        column = pc.if_else(pc.equal(texts, ""), None, texts)
    try:
        numbers = pc.cast(column, pa.float64(), safe=False)
    except pa.ArrowInvalid:
        return None
    return np.asarray(numbers.to_numpy(), dtype=np.float64)
