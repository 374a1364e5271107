"""The catalogue: the items that a recommender speaks of, agreed on before anyone's interactions are looked at.

A catalogue is public. It says nothing of what any partner sells or any customer bought: its codes come from a public
list, and its attributes (category, brand, price, year) from what is printed on the shelf. An item's position, which is
all that weights know of it, is the rank of its code, so it does not depend on the order of a file's rows.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from coterie.models.itemcodes import normal_codes, normal_text, unprintable

__all__ = ["LONGEST_CELL", "MOST_ATTRIBUTES", "MOST_ITEMS", "NAME", "SEPARATOR", "Catalogue", "Cells", "encoded"]

MOST_ITEMS = 1_000_000
MOST_ATTRIBUTES = 32
LONGEST_CELL = 1000  # characters

NAME = "name"
"""The attribute that people read; it is never encoded."""

SEPARATOR = "|"
"""What stands between the words of one cell, as in "Comedy|Drama"."""

Cells = tuple[str, ...] | NDArray[np.float64]
"""One attribute of every item: texts ("" where there is none) or finite numbers (NaN where there is none)."""

_FORMAT = b"coterie/catalogue/v1\n"
_MOST_CELLS = 2**27  # of an encoding: half a gigabyte


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items in the order of their codes, with their public attributes; two are equal if their digests are.

    Args:
        codes: Normal forms of the codes, strictly ascending, 2 to `MOST_ITEMS` of them.
        attributes: Name -> the cells of all items, in the order of the codes.
        kind: One of `itemcodes.KINDS`.

    Raises:
        ValueError: The codes or the attributes are not of that form; `arranged` sorts what is not yet in order.
    """

    codes: tuple[str, ...]
    attributes: Mapping[str, Cells] = field(default_factory=dict)
    kind: str = "taxonomy"

    def __post_init__(self) -> None:
        """Check the form."""
        if not 2 <= len(self.codes) <= MOST_ITEMS:
            raise ValueError(f"a catalogue holds 2 to {MOST_ITEMS} items")
        if not all(one < next_one for one, next_one in pairwise(self.codes)):
            raise ValueError("codes must ascend, each there once")
        if "" in self.codes or normal_codes(self.codes, self.kind).codes != list(self.codes):
            raise ValueError(f"codes must be of kind {self.kind} and in their normal form")
        if len(self.attributes) > MOST_ATTRIBUTES:
            raise ValueError(f"a catalogue has at most {MOST_ATTRIBUTES} attributes")
        for name, cells in self.attributes.items():
            if not name or normal_text(name) != name or len(name) > LONGEST_CELL or unprintable(name):
                raise ValueError("an attribute's name must be a plain text")
            if len(cells) != len(self.codes) or not (_plain(cells) if isinstance(cells, tuple) else _finite(cells)):
                raise ValueError(f"attribute {name} must hold one plain text or finite number for each item")

    @classmethod
    def arranged(
        cls, codes: tuple[str, ...], attributes: Mapping[str, Cells] | None = None, *, kind: str = "taxonomy"
    ) -> "Catalogue":
        """Return the catalogue of items that are not yet in order.

        Args:
            codes: Normal forms of the codes, each there once.
            attributes: Name -> the cells of all items, in the order of `codes`.
            kind: One of `itemcodes.KINDS`.

        Raises:
            ValueError: The codes or the attributes are not of the right form.
        """
        order = sorted(range(len(codes)), key=codes.__getitem__)
        moved = {
            name: tuple(cells[place] for place in order) if isinstance(cells, tuple) else cells[order]
            for name, cells in (attributes or {}).items()
            if len(cells) == len(codes)
        }
        if len(moved) != len(attributes or {}):
            raise ValueError("an attribute must have one cell for each item")
        return cls(tuple(codes[place] for place in order), moved, kind)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.codes)

    def __repr__(self) -> str:
        """Return a short text: a catalogue may have a million items."""
        return f"Catalogue({len(self.codes)} items, {len(self.attributes)} attributes, kind={self.kind!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each item before people: its attribute "name", or its code where it has none."""
        names = self.attributes.get(NAME)
        if not isinstance(names, tuple):
            return self.codes
        return tuple(name or code for name, code in zip(names, self.codes, strict=True))

    def digest(self) -> str:
        """Return "sha256:" and the SHA-256 of every code and attribute, whatever file they were read from."""
        whole = hashlib.sha256(_FORMAT + self.kind.encode() + b"\n" + _column(self.codes))
        for name in sorted(self.attributes):
            # No name or text holds a line break, so no two catalogues give one sequence of bytes.
            whole.update(name.encode() + b"\n" + _column(self.attributes[name]))
        return "sha256:" + whole.hexdigest()


def encoded(catalogue: Catalogue, *, bins: int = 8, fewest: int = 2, widest: int = 512) -> NDArray[np.float32]:
    """Encode the public attributes of items, so that items with rare attributes in common are alike.

    Every word of a text attribute and every bin of a number is a column of zeros and ones. An attribute's rarest words
    share a column, as do those beyond `widest`; what fewer than `fewest` items or all of them have is left out. Columns
    are divided by the root of the share of items that have them, and rows are scaled to unit length.

    Args:
        catalogue: The catalogue; nothing else decides a cell.
        bins: Bins of a number, at its quantiles over the catalogue.
        fewest: Items that a column needs, at least 1.
        widest: Most columns of one attribute; fewer where a large catalogue would need more than half a gigabyte.

    Returns:
        Shape (items, columns), rows of unit length or zero where an item has no attribute that is kept; attributes in
        alphabetical order.
    """
    items, attributes = len(catalogue), sorted(set(catalogue.attributes) - {NAME})
    widest = max(2, min(widest, _MOST_CELLS // (items * max(1, len(attributes)))))
    parts = []
    for name in attributes:
        cells = catalogue.attributes[name]
        rows, columns = _words(cells, widest, fewest) if isinstance(cells, tuple) else _bins(cells, min(bins, widest))
        counts = np.bincount(columns, minlength=1)
        kept = (counts >= fewest) & (counts < items)
        places, chosen = np.cumsum(kept) - 1, kept[columns] if len(columns) else np.zeros(0, dtype=np.bool_)
        parts.append((rows[chosen], places[columns[chosen]], counts[kept]))
    matrix = np.zeros((items, sum(len(counts) for _, _, counts in parts)), dtype=np.float32)
    begin = 0
    for rows, columns, counts in parts:
        matrix[rows, begin + columns] = np.sqrt(items / counts)[columns]
        begin += len(counts)
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    matrix /= np.where(lengths > 0, lengths, 1)[:, None]
    return matrix


def _words(cells: tuple[str, ...], widest: int, fewest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (item, column) pairs, each there once; the last column is of all rare words."""
    numbers: dict[str, int] = {}
    cell_of = np.fromiter((numbers.setdefault(cell, len(numbers)) for cell in cells), np.int64, len(cells))
    split = [{word for word in map(str.strip, cell.split(SEPARATOR)) if word} for cell in numbers]
    counts: dict[str, int] = {}
    for words, times in zip(split, np.bincount(cell_of).tolist(), strict=True):
        for word in words:
            counts[word] = counts.get(word, 0) + times
    common = sorted((word for word in counts if counts[word] >= fewest), key=lambda word: (-counts[word], word))
    column = {word: place for place, word in enumerate(sorted(common[: widest - 1]))}
    of_cell = [sorted({column.get(word, len(column)) for word in words}) for words in split]
    lengths = np.array([len(columns) for columns in of_cell], dtype=np.int64)
    flat = np.array([place for columns in of_cell for place in columns], dtype=np.int64)
    starts, width = np.cumsum(lengths) - lengths, lengths[cell_of]
    rows = np.repeat(np.arange(len(cells)), width)
    inside = np.arange(len(rows)) - np.repeat(np.cumsum(width) - width, width)
    return rows, flat[np.repeat(starts[cell_of], width) + inside]


def _bins(cells: NDArray[np.float64], bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (item, column) pairs; a bin ends with one of the catalogue's own numbers, so no edge is rounded."""
    rows = np.flatnonzero(~np.isnan(cells))
    if not len(rows):
        return rows, rows
    steps = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(cells[rows], steps, method="inverted_cdf")) if bins > 1 else np.zeros(0)
    return rows, np.searchsorted(edges, cells[rows], side="left")


def _plain(cells: tuple[str, ...]) -> bool:
    distinct = set(cells)
    return all(len(cell) <= LONGEST_CELL and normal_text(cell) == cell and not unprintable(cell) for cell in distinct)


def _finite(cells: NDArray[np.float64]) -> bool:
    return cells.dtype == np.float64 and cells.ndim == 1 and not bool(np.isinf(cells).any())


def _column(cells: Cells) -> bytes:
    """Return the digest of one column: its kind, and its cells."""
    if isinstance(cells, tuple):
        return b"texts\n" + hashlib.sha256("\n".join(cells).encode()).digest()
    numbers = np.where(np.isnan(cells), np.nan, cells + 0.0)  # one NaN, and no negative zero
    return b"numbers\n" + hashlib.sha256(numbers.astype("<f8").tobytes()).digest()
