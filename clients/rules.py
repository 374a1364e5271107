"""A partner's own rules for its lists, as a file: what may be recommended, to whom, and how often.

They act at the partner, after scoring, and cost no privacy: nothing of them or of what they leave out is released.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from coterie.models.catalogue import SEPARATOR, Catalogue, Cells
from coterie.models.itemcodes import normal_codes
from coterie.models.reranking import Rules
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.schema import integer, number, read, text

__all__ = ["OwnRules", "Permitted", "permitted", "read_own_rules"]


@dataclass(frozen=True, kw_only=True)
class OwnRules:
    """What a partner's lists must keep.

    Args:
        exclude_owned: Whether items of a customer's history are left out.
        stock: File of the items that can be had, beside the rules or by its full path: Parquet or CSV with a column
            `item`, or a text file with one code on each line; None where all can be had.
        red_lines: Attribute -> words; items that have one of them are recommended to nobody.
        at_most_per_item: Most customers that an item is recommended to; None for no bound. It goes to those whom it
            suits best, in step with the customers that were served, who come in an order drawn by a hash.
        diversity: 0 ranks by score alone; towards 1, an item counts less the more it is like one above it.
        least_score: Items below it are left out; None for no bound. Scores are on the model's own scale.
    """

    exclude_owned: bool = True
    stock: str | None = field(default=None, metadata=text(1000))
    red_lines: dict[str, tuple[str, ...]] = field(default_factory=dict, metadata=text(1000))
    at_most_per_item: int | None = field(default=None, metadata=integer(1, 1_000_000_000))
    diversity: float = field(default=0.0, metadata=number(0, 1, ends="[)"))
    least_score: float | None = field(default=None, metadata=number(-1e15, 1e15))

    def of_lists(self, top: int) -> Rules:
        """Return them as rules for lists of at most `top` items."""
        return Rules(
            top=top,
            owned=not self.exclude_owned,
            least=-inf if self.least_score is None else self.least_score,
            diversity=self.diversity,
            most_per_item=self.at_most_per_item,
        )


@dataclass(frozen=True)
class Permitted:
    """Which items may be recommended.

    Args:
        items: Shape (items,).
        notes: Local counts of what the stock's file says beyond the catalogue.
    """

    items: NDArray[np.bool_]
    notes: Mapping[str, int]


def read_own_rules(path: Path) -> OwnRules:
    """Read a file of rules.

    Raises:
        FileFault: It is missing or breaks the schema.
    """
    return read(OwnRules, path)


def permitted(rules: OwnRules, catalogue: Catalogue, *, place: Path) -> Permitted:
    """Apply the rules that are the same for all customers.

    Args:
        rules: The rules.
        catalogue: The items and their attributes.
        place: The file of the rules, for its folder and for errors.

    Raises:
        FileFault: The stock cannot be read, a red line is about nothing in the catalogue, or no item is left.
    """
    items, notes = np.ones(len(catalogue), dtype=np.bool_), {}
    if rules.stock is not None:
        path = place.parent / rules.stock
        items, unknown = _in_stock(_codes(path), catalogue)
        notes = {"codes in the stock that the catalogue does not know": unknown} if unknown else {}
        if not items.any():
            raise FileFault(Fault(str(path), "names no item of the catalogue", "write codes as the catalogue does"))
    faults: list[Fault] = []
    for name, words in rules.red_lines.items():
        items &= ~_crossing(catalogue.attributes.get(name), words, f"{place}: red_lines.{name}", faults)
    if not faults and not items.any():
        faults.append(Fault(str(place), "leaves no item to recommend", "loosen red_lines or stock"))
    if faults:
        raise FileFault(*faults)
    return Permitted(items, notes)


def _in_stock(codes: list[str], catalogue: Catalogue) -> tuple[NDArray[np.bool_], int]:
    """Return which items are in stock, and how many codes are of no item."""
    positions = {code: position for position, code in enumerate(catalogue.codes)}
    found = np.array([positions.get(code, -1) for code in normal_codes(codes, catalogue.kind).codes], dtype=np.int64)
    items = np.zeros(len(catalogue), dtype=np.bool_)
    items[found[found >= 0]] = True
    return items, int((found < 0).sum())


def _crossing(cells: Cells | None, words: tuple[str, ...], place: str, faults: list[Fault]) -> NDArray[np.bool_]:
    """Return which items have one of the words, in any case of letters: a red line is rather too wide than too thin."""
    if not isinstance(cells, tuple):
        faults.append(Fault(place, "is no attribute of words in the catalogue", "name one, or remove it"))
        return np.zeros(1, dtype=np.bool_)
    forbidden = {word.strip().casefold() for word in words}
    of_cell = {cell: {word.strip().casefold() for word in cell.split(SEPARATOR)} for cell in set(cells)}
    unknown = len(forbidden - set().union(*of_cell.values()))
    if unknown or not forbidden:
        # A word with a slip of the pen would hold nothing back, and nobody would see it.
        rule = f"has {unknown} words that no item has" if forbidden else "is empty"
        faults.append(Fault(place, rule, "write words as the catalogue does, or remove them"))
    crossing = {cell for cell, words_of in of_cell.items() if words_of & forbidden}
    return np.array([cell in crossing for cell in cells], dtype=np.bool_)


def _codes(path: Path) -> list[str]:
    """Return the codes of a list of items, without empty ones."""
    try:
        if path.suffix == ".csv":
            options = pyarrow.csv.ConvertOptions(column_types={"item": pa.string()})
            codes = pyarrow.csv.read_csv(path, convert_options=options).column("item").to_pylist()
        elif path.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                codes = file.read(columns=["item"]).column("item").cast(pa.string()).to_pylist()
        else:
            codes = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, LookupError, pa.ArrowException):
        fix = "give Parquet or CSV with a column item, or a text file with one code on each line"
        raise FileFault(Fault(str(path), "cannot be read as a list of items", fix)) from None
    return [code for code in codes if code and code.strip()]
