"""The data contract: which columns a study reads, their public bounds, and what to do outside them.

Everything here is public: bounds, vocabularies and bin edges are written down before any partner's
data is seen, so encoding with them costs no privacy budget. The contract is data; the module that
checks a table against it is `clients/vault.py`.
"""

from dataclasses import asdict, dataclass, field

from coterie.privacy.canonical import digest
from coterie.privacy.errors import Fault
from coterie.privacy.schema import integer, number, one_of, text

__all__ = ["Column", "Contract"]

_WIDEST = 5000  # features: what a coordinator may make a partner hold in memory for each row


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
        missing: A missing value is an "error", or is encoded as the "centre" and counted locally.
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

    def faults(self, place: str) -> list[Fault]:
        """Return what is wrong with the column beyond its types."""
        where = f"{place}.{self.name}"
        return self._categorical_faults(where) if self.kind == "categorical" else self._numeric_faults(where)

    def _categorical_faults(self, where: str) -> list[Fault]:
        if len(set(self.values)) != len(self.values) or not 2 <= len(self.values) <= 1000:
            return [Fault(where, "values must be 2 to 1000 different texts", "list the vocabulary")]
        if self.low is not None or self.high is not None or self.edges:
            return [Fault(where, "low, high and edges belong to numeric columns", "remove them")]
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
        return []


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What every partner's table must look like.

    Args:
        customer: Column with the customer's identifier; all rows with one identifier are one unit of
            privacy.
        label: Column that says what happened, 0 or 1.
        columns: The features.
        rows_per_customer: Greatest number of rows that a customer may contribute, in 1..256.
        too_many_rows: A customer with more rows is an "error", or a random "sample" of the rows is
            taken and the event counted locally.
    """

    customer: str = field(metadata=text(100))
    label: str = field(metadata=text(100))
    columns: tuple[Column, ...]
    rows_per_customer: int = field(default=1, metadata=integer(1, 256))
    too_many_rows: str = field(default="error", metadata=one_of("error", "sample"))

    def digest(self) -> str:
        """Return the digest by which a partner approves the contract."""
        return digest(asdict(self))

    def faults(self, place: str) -> list[Fault]:
        """Return everything that is wrong beyond types and ranges."""
        faults = [fault for column in self.columns for fault in column.faults(f"{place}.columns")]
        names = [self.customer, self.label, *(column.name for column in self.columns)]
        if len(set(names)) != len(names):
            faults.append(Fault(f"{place}.columns", "a name is used twice", "give each column its own name"))
        width = sum(len(column.values) or len(column.edges) + 1 for column in self.columns)
        if len(self.columns) > 500 or width > _WIDEST:
            rule = f"must encode to at most {_WIDEST} features from at most 500 columns"
            faults.append(Fault(f"{place}.columns", rule, "shorten vocabularies or edges"))
        if not self.columns:
            faults.append(Fault(f"{place}.columns", "is empty", "name at least one feature"))
        return faults
