"""What a profile says: counts, shares of public things, and never a cell.

Rules this module enforces:
- a value of a table is in no field; the words that are, are the contract's own, and so are bins and bounds. The least
  and greatest number found are rounded outward to one digit;
- nothing here leaves the partner: a profile is written into files that its owner alone can read (PRIVACY rule 18).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from coterie.privacy.errors import Fault

__all__ = [
    "FORMAT",
    "Anonymity",
    "Bin",
    "ColumnFacts",
    "CustomerFacts",
    "DayFacts",
    "Drift",
    "LabelFacts",
    "NumberFacts",
    "Profile",
    "Sign",
    "Word",
    "WordFacts",
    "as_table",
]

FORMAT = "coterie/profile/v1"


@dataclass(frozen=True, kw_only=True)
class Bin:
    """One bin of a numeric column: numbers from `low` up to, and without, `high`; the last one holds its end too."""

    low: float
    high: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class NumberFacts:
    """How a column's numbers stand to the contract's bounds.

    Args:
        broken: Cells that are no number.
        commas: Those of them that look like numbers with commas.
        infinite: Cells that are infinite.
        below: Cells under the contract's `low`.
        above: Cells over its `high`.
        least: The least finite number, rounded down to one digit; None without any.
        greatest: The greatest one, rounded up to one digit.
        bins: By the contract's edges, or ten of equal width between its bounds; what lies outside is in the first and
            the last, as it would be when clipped.
    """

    broken: int
    commas: int
    infinite: int
    below: int
    above: int
    least: float | None
    greatest: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Word:
    """How often a word of the contract's vocabulary came."""

    word: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class WordFacts:
    """How a column's words stand to the contract's vocabulary.

    Args:
        words: Each word of the vocabulary, in its order.
        unknown: Rows with something else.
        nearly: Rows of those that differ from a word in spaces around it or in the case of letters alone.
    """

    words: tuple[Word, ...]
    unknown: int
    nearly: int


@dataclass(frozen=True, kw_only=True)
class DayFacts:
    """How a column's days stand to the contract's first and last day; rows without an item do not count.

    Args:
        undated: Rows without a day, or with something that is none.
        before: Rows before the first day.
        after: Rows after the last day.
    """

    undated: int
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A sign that a column says who somebody is.

    Args:
        kind: What it looks like.
        by: "content", "name", or "content and name".
        passed: Values of the sample that pass the test; 0 where the name alone says it.
        tested: Values that were tested.
        note: When it is wrong.
    """

    kind: str
    by: str
    passed: int
    tested: int
    note: str


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """One column.

    Args:
        name: Its name; "column 3" where the name itself looks like a value.
        role: "customer", "label", "feature", "item", "time", "value", or "other" where the contract does not name it.
        found: What it holds, in words.
        wanted: What the contract wants, in words; empty for other columns.
        sensitivity: As the contract marks it; empty where it does not.
        missing: Rows without a value.
        different: Different values.
        exact: Whether `different` is counted and not estimated (to within about 1 %).
        commonest: Rows with the commonest value, at least; too low by at most a thousandth of all rows.
        lengths: Least, mean and greatest number of characters; None for numbers, and where a type has no text.
        numbers: For numeric features.
        words: For categorical features.
        days: For the time of interactions.
        signs: Of personal data.
    """

    name: str
    role: str
    found: str
    wanted: str
    sensitivity: str
    missing: int
    different: int
    exact: bool
    commonest: int
    lengths: tuple[int, float, int] | None
    numbers: NumberFacts | None = None
    words: WordFacts | None = None
    days: DayFacts | None = None
    signs: tuple[Sign, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CustomerFacts:
    """Whose rows they are.

    Args:
        customers: Different identifiers.
        several: Customers with more than one row.
        crowded: Customers with more rows than the contract allows; always 0 for interactions, where it does not say.
        most: Rows of the customer that has most.
        doubled: Rows that are equal to an earlier one in all columns.
        by_rows: How many customers have so many rows: 1, 2, 3 to 5, 6 to 10, 11 to 100, more.
    """

    customers: int
    several: int
    crowded: int
    most: int
    doubled: int
    by_rows: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """How often it happened: rows with 1, rows with 0, and rows with neither."""

    ones: int
    zeros: int
    other: int


@dataclass(frozen=True, kw_only=True)
class Anonymity:
    """How far some columns together tell customers from each other (k-anonymity, Sweeney 2002, definition 3).

    Args:
        columns: The quasi-identifiers.
        chosen: "given", or "suggested" by their names.
        groups: Different combinations of their values.
        smallest: Customers in the smallest group: the k of k-anonymity.
        alone: Customers that a combination has for itself.
        few: Customers that stand in a group of fewer than five.
        one_label: Customers in a group of several, all of whom have the same label (no 2-diversity; Machanavajjhala et
            al. 2007); None without a label.
    """

    columns: tuple[str, ...]
    chosen: str
    groups: int
    smallest: int
    alone: int
    few: int
    one_label: int | None


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a column has moved since an earlier profile.

    Args:
        column: Its name.
        index: Population stability index, at least 0.
        chance: What two samples of one population of these sizes have on average.
    """

    column: str
    index: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Everything; `repr` shows nothing of it.

    Args:
        made: The day, as 2026-01-31.
        contract: Digest of the contract.
        rows: Rows of the table.
        stops: What breaks the contract: a study would be refused.
        looks: What deserves a look.
        fine: What was looked at and is as it should be.
        columns: In the order of the table.
        left_out: Columns whose names cannot be asked for: there twice, too long, or with control characters.
        customers: None where the table does not have the customer's column.
        label: None for interactions, and where the table does not have the label.
        anonymity: None without customers or without quasi-identifiers.
        drift: By column; empty without an earlier profile.
    """

    made: str
    contract: str
    rows: int
    stops: tuple[Fault, ...] = ()
    looks: tuple[Fault, ...] = ()
    fine: tuple[str, ...] = ()
    columns: tuple[ColumnFacts, ...]
    left_out: int
    customers: CustomerFacts | None
    label: LabelFacts | None
    anonymity: Anonymity | None
    drift: tuple[Drift, ...] = field(default=())

    def __repr__(self) -> str:
        """Return a text without any size or name."""
        return "Profile(...)"

    @property
    def verdict(self) -> str:
        """Whether something stops a study, deserves a look, or all is "fine"."""
        return "stops" if self.stops else "look" if self.looks else "fine"


def as_table(profile: Profile) -> dict[str, Any]:
    """Return a profile as JSON writes it; the format is described in `docs/profile.md`."""
    return {"format": FORMAT, "verdict": profile.verdict, **asdict(profile)}
