"""Numbers out of cells: of number types as they are, of texts where they are written as numbers and as nothing else."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["Numbers", "numbers_of"]

# What CSV readers take for "there is none" (the default of Apache Arrow's), and for yes and no.
_MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
_YES, _NO = ("TRUE", "True", "true"), ("FALSE", "False", "false")
_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity))$"
_COMMAS = r"^[+-]?[\d.' ]*\d,[\d.,' ]*$"


@dataclass(frozen=True)
class Numbers:
    """What the cells of a column say as numbers; its `repr` shows nothing of them.

    Args:
        values: float64, shape (rows,); NaN where a number is missing, or where a cell is none.
        broken: How many cells hold something that is no number.
        commas: How many of those look like numbers with decimal commas or thousands separators.
        kind_ok: Whether the column's type can hold numbers: a number, a truth value or a text. Where it cannot, all
            cells that are there are broken.
    """

    values: NDArray[np.float64]
    broken: int
    commas: int
    kind_ok: bool

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Numbers(...)"


def numbers_of(values: pa.Array | pa.ChunkedArray) -> Numbers:
    """Return the numbers of a column.

    Args:
        values: Numbers (whole ones that no float64 holds are rounded), truth values, or texts, also encoded by a
            dictionary. A text is a number in decimal digits with a point, perhaps a sign and an exponent, "inf", or
            "true" or "false"; "NA", "null" and the like are missing; spaces around it do not count.
    """
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    parts = [_of(chunk) for chunk in chunks]
    kind = _plain(values.type)
    return Numbers(
        np.concatenate([np.empty(0), *(part.values for part in parts)]),
        sum(part.broken for part in parts),
        sum(part.commas for part in parts),
        _is_number(kind) or _is_text(kind),
    )


@dataclass(frozen=True)
class _Part:
    values: NDArray[np.float64]
    is_broken: NDArray[np.bool_]
    has_commas: NDArray[np.bool_]

    @property
    def broken(self) -> int:
        return int(self.is_broken.sum())

    @property
    def commas(self) -> int:
        return int(self.has_commas.sum())

    def take(self, places: pa.Array) -> "_Part":
        """Return the cells that a dictionary's indices name."""
        there = places.is_valid().to_numpy(zero_copy_only=False)
        index = pc.fill_null(places, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        if not there.any():
            nothing = np.zeros(len(index), dtype=np.bool_)
            return _Part(np.full(len(index), np.nan), nothing, nothing)
        return _Part(
            np.where(there, self.values[index], np.nan), there & self.is_broken[index], there & self.has_commas[index]
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _of(chunk: pa.Array) -> _Part:
    if pa.types.is_dictionary(chunk.type):
        return _of(chunk.dictionary).take(chunk.indices)
    there = chunk.is_valid().to_numpy(zero_copy_only=False)
    if _is_number(chunk.type):
        # Not "safe": whole numbers that no float holds lie outside every contract, and the refusal would say them.
        floats = pc.cast(chunk, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        nothing = np.zeros(len(chunk), dtype=np.bool_)
        return _Part(np.asarray(floats, dtype=np.float64), nothing, nothing)
    if not _is_text(chunk.type):
        return _Part(np.full(len(chunk), np.nan), there, np.zeros(len(chunk), dtype=np.bool_))
    return _of_texts(pc.utf8_trim_whitespace(pc.cast(chunk, pa.large_string())))


def _of_texts(texts: pa.Array) -> _Part:
    said = pc.cast(pc.if_else(pc.match_substring_regex(texts, _NUMBER), texts, None), pa.float64())
    yes, no = (pc.is_in(texts, pa.array(words, texts.type)) for words in (_YES, _NO))
    said = pc.if_else(yes, 1.0, pc.if_else(no, 0.0, said))
    missing = pc.or_(texts.is_null(), pc.is_in(texts, pa.array(_MISSING, texts.type)))
    broken = pc.and_not(said.is_null(), missing)
    commas = pc.fill_null(pc.and_(broken, pc.match_substring_regex(texts, _COMMAS)), fill_value=False)
    floats = said.to_numpy(zero_copy_only=False)
    return _Part(
        np.asarray(floats, dtype=np.float64),
        broken.to_numpy(zero_copy_only=False),
        commas.to_numpy(zero_copy_only=False),
    )
