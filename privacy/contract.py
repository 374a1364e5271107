"""The data contract: which columns a study reads, their public bounds, and what to do outside them.

Everything here is public: bounds, vocabularies and bin edges are written down before any partner's
data is seen, so encoding with them costs no privacy budget. The contract is data; the module that
checks a table against it is `clients/opening.py`.
"""

import datetime
from dataclasses import asdict, dataclass, field

from coterie.privacy.canonical import digest
from coterie.privacy.errors import Fault
from coterie.privacy.schema import LATER, integer, number, one_of, text

__all__ = ["Column", "Contract", "Interactions"]

_WIDEST = 5000  # features: what a coordinator may make a partner hold in memory for each row
_MOST_WORDS = 1000  # of a vocabulary
_CELLS: dict[str, object] = {**one_of("randomised", "searchable"), **LATER}
_LATER_COLUMN = {"cells": "randomised", "atoms": (), "spacing": "even", "use": "feature"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a partner's table.

    Args:
        name: The column's name.
        kind: "numeric" (needs `low` and `high`) or "categorical" (needs `values`).
        sensitivity: "ordinary", "personal" or "special" (as in GDPR article 9); policies decide by it.
        low: Least value in the column's own unit.
        high: Greatest value.
        edges: Public inner bin edges, ascending, inside (low, high); with them the column is encoded as
            bins, so that atoms and steps are seen. A bin is [edge, next edge).
        values: The vocabulary of a categorical column.
        outside: A value beyond the bounds or vocabulary is an "error", or is "clip"ped to the bounds
            (numeric) or encoded as no value (categorical) and counted locally.
        missing: A missing value is an "error", or is encoded as the "centre" and counted locally; in a plan with
            bins it has one of its own.
        cells: How the column is sealed where a table is exchanged cell by cell: "randomised", or "searchable", where
            equal values give equal cells (`docs/formats/cells.md` says what that tells).
        atoms: Values of a numeric column that many customers have, such as 0 for what most never did; in a plan with
            bins each is one of its own.
        spacing: How a plan with bins cuts the range into fine cells where there are no edges: "even", or "log", cells
            that grow with their distance from `low`, for amounts with a long tail.
        use: "feature", or "audit": a categorical column that is read to measure fairness alone, and never learned from.
    """

    name: str = field(metadata=text(100))
    kind: str = field(metadata=one_of("numeric", "categorical"))
    sensitivity: str = field(default="personal", metadata=one_of("ordinary", "personal", "special"))
    low: float | None = field(default=None, metadata=number(-1e15, 1e15))
    high: float | None = field(default=None, metadata=number(-1e15, 1e15))
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    outside: str = field(default="error", metadata=one_of("error", "clip"))
    missing: str = field(default="error", metadata=one_of("error", "centre"))
    cells: str = field(default="randomised", metadata=_CELLS)
    atoms: tuple[float, ...] = field(default=(), metadata={**LATER})
    spacing: str = field(default="even", metadata={**one_of("even", "log"), **LATER})
    use: str = field(default="feature", metadata={**one_of("feature", "audit"), **LATER})

    @property
    def is_feature(self) -> bool:
        """Whether models learn from it."""
        return self.use == "feature"

    def faults(self, place: str) -> list[Fault]:
        """Return what is wrong with the column beyond its types."""
        where = f"{place}.{self.name}"
        return self._categorical_faults(where) if self.kind == "categorical" else self._numeric_faults(where)

    def _categorical_faults(self, where: str) -> list[Fault]:
        if len(set(self.values)) != len(self.values) or not 2 <= len(self.values) <= _MOST_WORDS:
            return [Fault(where, f"values must be 2 to {_MOST_WORDS} different texts", "list the vocabulary")]
        if self.low is not None or self.high is not None or self.edges or self.atoms or self.spacing != "even":
            return [Fault(where, "low, high, edges, atoms and spacing belong to numeric columns", "remove them")]
        return []

    def _numeric_faults(self, where: str) -> list[Fault]:
        low, high = self.low, self.high
        if self.values:
            return [Fault(where, "values belong to categorical columns", "remove them")]
        if low is None or high is None or not low < high:
            return [Fault(where, "a numeric column needs low < high", "state the public bounds")]
        inside = all(low < edge < high for edge in self.edges)
        if not inside or list(self.edges) != sorted(set(self.edges)):
            return [Fault(where, "edges must ascend strictly between low and high", "correct them")]
        if list(self.atoms) != sorted(set(self.atoms)) or not all(low <= atom <= high for atom in self.atoms):
            return [Fault(where, "atoms must ascend strictly from low to high", "correct them")]
        if not self.is_feature:
            return [Fault(where, "must be categorical, to be counted by its words", "give values, or drop use")]
        return []


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """What a table of interactions looks like: a row says that a customer chose an item on a day.

    Args:
        item: Column with the item's code, as the agreed catalogue writes it. Codes that are not in it are left out and
            counted locally.
        time: Column with the day: a date, a time, or a text that begins with an ISO date.
        value: Column with a number, such as a rating, that decides with `least_value` which rows count; None for all.
        least_value: Least value of a row that counts.
        most: Items of one customer that are used, its most recent ones; each counts once, from its first day on.
        least: Items that a customer must have to take part.
        earliest: First day, as 2025-01-31.
        latest: Last day.
        outside: A day before the first or after the last is an "error", or its row is "drop"ped and counted locally.
    """

    item: str = field(metadata=text(100))
    time: str = field(metadata=text(100))
    value: str | None = field(default=None, metadata=text(100))
    least_value: float | None = field(default=None, metadata=number(-1e15, 1e15))
    most: int = field(default=256, metadata=integer(2, 2048))
    least: int = field(default=2, metadata=integer(1, 2048))
    earliest: str = field(metadata=text(10))
    latest: str = field(metadata=text(10))
    outside: str = field(default="error", metadata=one_of("error", "drop"))

    def faults(self, place: str) -> list[Fault]:
        """Return everything that is wrong beyond types and ranges."""
        faults = []
        try:
            ordered = datetime.date.fromisoformat(self.earliest) <= datetime.date.fromisoformat(self.latest)
        except ValueError:
            ordered = False
        if not ordered:
            faults.append(Fault(f"{place}.earliest", "and latest must be days, in this order", "write 2025-01-31"))
        if (self.value is None) != (self.least_value is None):
            faults.append(Fault(f"{place}.value", "and least_value belong together", "give both or neither"))
        if self.least > self.most:
            faults.append(Fault(f"{place}.least", "exceeds most", "lower it"))
        return faults


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What every partner's table must look like.

    Args:
        customer: Column with the customer's identifier; all rows with one identifier are one unit of
            privacy.
        label: Column that says what happened, 0 or 1; empty for interactions.
        columns: The features; none for interactions.
        rows_per_customer: Greatest number of rows that a customer may contribute, in 1..256.
        too_many_rows: A customer with more rows is an "error", or a random "sample" of the rows is
            taken and the event counted locally.
        interactions: What rows say where they are interactions; None where they have label and features.
        customer_cells: As a column's `cells`, of the customer's identifier; it must be searchable for look-ups.
    """

    customer: str = field(metadata=text(100))
    label: str = field(default="", metadata=text(100, least=0))
    columns: tuple[Column, ...] = ()
    rows_per_customer: int = field(default=1, metadata=integer(1, 256))
    too_many_rows: str = field(default="error", metadata=one_of("error", "sample"))
    interactions: Interactions | None = None
    customer_cells: str = field(default="randomised", metadata=_CELLS)

    def digest(self) -> str:
        """Return the digest by which a partner approves the contract."""
        table = asdict(self)
        # Contracts that were approved before there were interactions, or kinds of cells, keep their name.
        if self.interactions is None:
            del table["interactions"]
        if table["customer_cells"] == "randomised":
            del table["customer_cells"]
        for column in table["columns"]:
            for name, unsaid in _LATER_COLUMN.items():
                if column[name] == unsaid:
                    del column[name]
        return digest(table)

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that models learn from."""
        return tuple(column for column in self.columns if column.is_feature)

    def faults(self, place: str) -> list[Fault]:
        """Return everything that is wrong beyond types and ranges."""
        if self.interactions is not None:
            return self._interaction_faults(place, self.interactions)
        faults = [fault for column in self.columns for fault in column.faults(f"{place}.columns")]
        names = [self.customer, self.label, *(column.name for column in self.columns)]
        if len(set(names)) != len(names):
            faults.append(Fault(f"{place}.columns", "a name is used twice", "give each column its own name"))
        # A vocabulary that is too long by itself is one fault, not two.
        width = sum(min(len(column.values), _MOST_WORDS) or len(column.edges) + 1 for column in self.features)
        if len(self.columns) > 500 or width > _WIDEST:
            rule = f"must encode to at most {_WIDEST} features from at most 500 columns"
            faults.append(Fault(f"{place}.columns", rule, "shorten vocabularies or edges"))
        if not self.features:
            faults.append(Fault(f"{place}.columns", "is empty", "name at least one feature"))
        if not self.label:
            faults.append(Fault(f"{place}.label", "is missing", "name the column that says what happened"))
        return faults

    def _interaction_faults(self, place: str, rows: Interactions) -> list[Fault]:
        faults = rows.faults(f"{place}.interactions")
        if self.label or self.columns:
            faults.append(Fault(f"{place}.label", "and columns do not go with interactions", "remove them"))
        names = [self.customer, rows.item, rows.time, *([rows.value] if rows.value else [])]
        if len(set(names)) != len(names):
            faults.append(Fault(f"{place}.interactions", "uses a name twice", "give each column its own name"))
        return faults
