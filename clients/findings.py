"""A table's columns held against the contract, piece by piece: every broken rule is counted, and told at the end.

Rules this module enforces:
- faults name the column, the rule and a count, never a value;
- what the contract lets pass (clipped, unknown, missing) is counted for the partner's own eyes;
- the same rules hold where a table is sealed, a piece at a time, and where it is opened for a study.
"""

from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.tables.numbers import numbers_of
from coterie.privacy.contract import Column, Contract
from coterie.privacy.errors import Fault

__all__ = ["Findings", "wanted_columns"]

Values: TypeAlias = pa.Array | pa.ChunkedArray


def wanted_columns(contract: Contract, *, needs_label: bool = True) -> list[str]:
    """Return the names of the columns that a contract reads."""
    if not needs_label:  # whoever is scored needs no column that is for audits alone
        return [contract.customer, *(column.name for column in contract.features)]
    return [contract.customer, *(column.name for column in contract.columns), contract.label]


class Findings:
    """What was found in a table so far.

    Args:
        contract: What it must keep.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._columns = {column.name: column for column in contract.columns}
        self._wrong: dict[str, Fault] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._classes: set[float] = set()

    def feature(self, column: Column, values: Values) -> NDArray[np.float64]:
        """Return a feature's numbers (NaN where missing), or vocabulary indices (-1 where there is none)."""
        if column.kind == "categorical":
            self._counts[column.name, "missing"] += values.null_count
            return self._words(column, values)
        if not _can_be_numbers(values.type):
            self._is_wrong(column.name, "must hold numbers", "correct its type")
            return np.empty(0)
        numbers = numbers_of(values)
        self._counts[column.name, "broken"] += numbers.broken
        self._counts[column.name, "commas"] += numbers.commas
        self._counts[column.name, "missing"] += int(np.isnan(numbers.values).sum()) - numbers.broken
        return self._bounded(column, numbers.values)

    def labels(self, values: Values) -> NDArray[np.float32]:
        """Return the labels, 0 or 1."""
        name = self._contract.label
        if not _can_be_numbers(values.type):
            self._is_wrong(name, "must hold 0 or 1 in every row", "correct its type")
            return np.empty(0, dtype=np.float32)
        labels = numbers_of(values).values
        right = np.isin(labels, (0, 1))
        self._counts[name, "label"] += int((~right).sum())
        self._classes.update(np.unique(labels[right]).tolist())
        return labels.astype(np.float32)

    def customers(self, values: Values) -> Values:
        """Return the customers' identifiers as texts."""
        name, kind = self._contract.customer, values.type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            # One spelling for one customer, for life: the group hash is made of it.
            self._is_wrong(name, "must hold texts or whole numbers", "correct its type")
            return pa.array([], pa.string())
        self._counts[name, "customer"] += values.null_count
        return pc.cast(values, pa.string())

    def crowded(self, rows_of_each: NDArray[np.int64]) -> None:
        """Take note of customers that have more rows than the contract allows.

        Args:
            rows_of_each: Rows of each customer, shape (customers,).
        """
        self._counts[self._contract.customer, "crowded"] += int((rows_of_each > self._contract.rows_per_customer).sum())

    @property
    def notes(self) -> Mapping[str, int]:
        """Local counts of what the contract lets pass."""
        words = {
            "missing": "missing",
            "unknown": "outside the vocabulary",
            "beyond": "clipped",
        }
        notes = {
            f"{name}: {words[rule]}": count
            for (name, rule), count in self._counts.items()
            if rule in words and count and name in self._columns
        }
        crowded = self._counts[self._contract.customer, "crowded"]
        return notes | ({"customers with too many rows": crowded} if crowded else {})

    def faults(self, place: str) -> list[Fault]:
        """Return everything that the contract does not let pass, in the order of its columns.

        Args:
            place: Where the table lies.
        """
        found = []
        for name in wanted_columns(self._contract):
            if name in self._wrong:
                found.append(self._wrong[name])
                continue
            rules = [(rule, count) for (column, rule), count in self._counts.items() if column == name and count]
            found += [fault for rule, count in rules if (fault := self._fault(name, rule, count))]
        if len(self._classes) == 1 and not found:
            fix = "give customers of both classes"
            found.append(Fault(f"column {self._contract.label}", "has one class only", fix))
        return [Fault(f"{place} {fault.place}", fault.rule, fault.fix) for fault in found]

    def _fault(self, name: str, rule: str, count: int) -> Fault | None:
        """Return what a count is a fault of, or None where the contract lets it pass."""
        contract, place, column = self._contract, f"column {name}", self._columns.get(name)
        if column is not None:
            return self._broken(name, count) if rule == "broken" else self._of_feature(column, rule, count)
        if rule == "label":
            return Fault(place, f"must hold 0 or 1 in every row; {count} hold something else", "correct it")
        if rule == "customer":
            return Fault(place, f"is missing in {count} rows", "give every row its customer")
        if rule == "crowded" and contract.too_many_rows == "error":
            said = f"names {count} customers in more than {contract.rows_per_customer} rows each"
            fix = 'give each customer at most that many, or plan with too_many_rows = "sample"'
            return Fault(place, said, fix)
        return None

    def _of_feature(self, column: Column, rule: str, count: int) -> Fault | None:
        place, clip = f"column {column.name}", 'correct them, or plan with outside = "clip"'
        if rule == "infinite":
            return Fault(place, f"is infinite in {count} rows", "correct them")
        if rule == "missing" and column.missing == "error":
            return Fault(place, f"is missing in {count} rows", 'fill it, or plan with missing = "centre"')
        if rule == "unknown" and column.outside == "error":
            return Fault(place, f"holds {count} values outside the contract's vocabulary of {len(column.values)}", clip)
        if rule == "beyond" and column.outside == "error" and not self._counts[column.name, "infinite"]:
            return Fault(place, f"lies outside {column.low:g} to {column.high:g} in {count} rows", clip)
        return None

    def _broken(self, name: str, count: int) -> Fault:
        commas = self._counts[name, "commas"]
        if commas:
            fix = "write 1234.5, without separators of thousands and with a decimal point"
            return Fault(
                f"column {name}", f"holds {count} texts that are no numbers, {commas} of them with commas", fix
            )
        return Fault(f"column {name}", f"must hold numbers; {count} rows hold something else", "correct them")

    def _words(self, column: Column, values: Values) -> NDArray[np.float64]:
        try:
            words = pc.cast(values, pa.string())
        except pa.ArrowException:
            self._is_wrong(column.name, "must hold texts", "correct its type")
            return np.empty(0)
        codes = pc.index_in(words, value_set=pa.array(column.values, pa.string()))
        self._counts[column.name, "unknown"] += codes.null_count - values.null_count
        return np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False), dtype=np.float64)

    def _bounded(self, column: Column, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = float(column.low or 0.0), float(column.high or 0.0)
        self._counts[column.name, "infinite"] += int(np.isinf(numbers).sum())
        self._counts[column.name, "beyond"] += int(((numbers < low) | (numbers > high)).sum())
        return np.clip(numbers, low, high)

    def _is_wrong(self, name: str, rule: str, fix: str) -> None:
        self._wrong[name] = Fault(f"column {name}", rule, fix)


def _can_be_numbers(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    return bool(text or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
