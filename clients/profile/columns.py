"""One column of a table, looked at piece by piece, in memory that does not grow with its rows."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.profile.facts import ColumnFacts, DayFacts, Word, WordFacts
from coterie.clients.profile.hashing import hashes_of, is_number, texts_of
from coterie.clients.profile.numeric import NumberTally
from coterie.clients.profile.signs import looks_like_a_value, signs_of
from coterie.clients.profile.sketch import Different, Frequent
from coterie.clients.tables.numbers import numbers_of
from coterie.privacy.contract import Column, Contract

__all__ = ["ColumnTally", "Role", "roles"]


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a column is to the contract.

    Args:
        name: As the table has it.
        place: Where it stands, from 1.
        kind: "customer", "label", "feature", "item", "time", "value" or "other".
        column: What the contract says of a feature; None for others.
    """

    name: str
    place: int
    kind: str
    column: Column | None = None

    @property
    def shown(self) -> str:
        """The name, or "column 3" where there is none, or it looks like a value, as it does without a header."""
        hidden = self.kind == "other" and (not self.name.strip() or looks_like_a_value(self.name))
        return f"column {self.place}" if hidden else self.name

    @property
    def wanted(self) -> str:
        """What the contract wants of it, in words."""
        column = self.column
        if column is None:
            words = {"label": "0 or 1", "time": "days", "value": "numbers", "other": ""}
            return words.get(self.kind, "texts or whole numbers")
        if column.kind == "categorical":
            return f"one of {len(column.values)} words"
        return f"numbers from {column.low:g} to {column.high:g}"


def roles(names: list[str], contract: Contract) -> list[Role]:
    """Return what each column of a table is to a contract, in the table's order."""
    features = {column.name: column for column in contract.columns}
    kinds = {contract.customer: "customer", contract.label: "label"}
    if contract.interactions is not None:
        rows = contract.interactions
        kinds |= {rows.item: "item", rows.time: "time", rows.value or "": "value"}
    kinds |= dict.fromkeys(features, "feature")
    kinds.pop("", None)
    return [
        Role(name=name, place=place, kind=kinds.get(name, "other"), column=features.get(name))
        for place, name in enumerate(names, start=1)
    ]


class ColumnTally:
    """What was found of a column so far.

    Args:
        role: What it is to the contract.
        kind: Its type in the table.
        key: 32 bytes for hashes.
    """

    def __init__(self, role: Role, kind: pa.DataType, key: bytes) -> None:
        self.role, self._kind, self._key = role, kind, key
        self._different, self._frequent = Different(), Frequent()
        self._missing, self._rows = 0, 0
        self._lengths: tuple[int, int, int] | None = None  # least, sum, greatest
        numeric = role.column is not None and role.column.kind == "numeric"
        self._numbers = NumberTally(role.column) if numeric and role.column else None
        self._words = _WordTally(role.column) if role.column and not numeric else None

    def add(self, values: pa.Array) -> None:
        """Take in some cells."""
        self._rows += len(values)
        self._missing += values.null_count
        if self._numbers is not None:
            self._numbers.add(values)
        cells = values if is_number(values.type) else texts_of(values)
        if cells is None:
            return
        counted = pc.value_counts(cells.drop_null())
        different, times = counted.field("values"), counted.field("counts").to_numpy()
        hashes = hashes_of(different, self._key)
        self._different.add(hashes, different)
        self._frequent.add(hashes, times)
        if self._words is not None:
            self._words.add(pc.cast(different, pa.string()), times)
        if not is_number(cells.type):
            self._measure(different, times)

    def _measure(self, words: pa.Array, times: NDArray[np.int64]) -> None:
        if len(words):
            lengths = pc.utf8_length(words).to_numpy().astype(np.int64)
            least, total, greatest = self._lengths or (int(lengths.min()), 0, 0)
            total += int((lengths * times).sum())
            self._lengths = min(least, int(lengths.min())), total, max(greatest, int(lengths.max()))

    def facts(self, days: DayFacts | None = None) -> ColumnFacts:
        """Return what was found."""
        sample = self._different.sample()
        there = self._rows - self._missing
        least, total, greatest = self._lengths or (0, 0, 0)
        return ColumnFacts(
            name=self.role.shown,
            role=self.role.kind,
            found=_found(self._kind, sample),
            wanted=self.role.wanted,
            sensitivity=self.role.column.sensitivity if self.role.column else "",
            missing=self._missing if self._numbers is None else self._numbers.missing,
            different=self._different.count,
            exact=self._different.exact,
            commonest=self._frequent.most,
            lengths=(least, round(total / there, 1), greatest) if self._lengths and there else None,
            numbers=self._numbers.facts() if self._numbers else None,
            words=self._words.facts() if self._words else None,
            days=days,
            signs=signs_of(self.role.name, sample),
        )


class _WordTally:
    """How often each word of a vocabulary came so far."""

    def __init__(self, column: Column) -> None:
        self._words = column.values
        self._folded = {_fold(word) for word in column.values}
        self._counts = np.zeros(len(column.values), dtype=np.int64)
        self._unknown = self._nearly = 0

    def add(self, words: pa.Array, times: NDArray[np.int64]) -> None:
        """Take in how often different words came."""
        codes = pc.fill_null(pc.index_in(words, value_set=pa.array(self._words, pa.string())), -1).to_numpy()
        known = codes >= 0
        np.add.at(self._counts, codes[known], times[known])
        self._unknown += int(times[~known].sum())
        others = words.filter(pa.array(~known)).to_pylist()
        folded = np.array([_fold(word) in self._folded for word in others], dtype=np.bool_)
        self._nearly += int(times[~known][folded].sum())

    def facts(self) -> WordFacts:
        """Return what was found."""
        counted = zip(self._words, self._counts, strict=True)
        words = tuple(Word(word=word, rows=int(rows)) for word, rows in counted)
        return WordFacts(words=words, unknown=self._unknown, nearly=self._nearly)


def _fold(word: str) -> str:
    return " ".join(word.split()).casefold()


def _found(kind: pa.DataType, sample: list[str]) -> str:
    """Say what a column holds; a text type may hold numbers, as every column of a CSV file does."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (
        (pa.types.is_boolean, "true or false"),
        (pa.types.is_integer, "whole numbers"),
        (pa.types.is_floating, "numbers"),
        (pa.types.is_decimal, "numbers"),
        (pa.types.is_date, "days"),
        (pa.types.is_timestamp, "times"),
    )
    named = next((words for test, words in tests if test(kind)), None)
    if named is not None:
        return named
    if not any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        return "nothing" if pa.types.is_null(kind) else "another type"
    numbers = numbers_of(pa.array(sample, pa.string()))
    return "numbers, written as texts" if sample and not numbers.broken else "texts"
