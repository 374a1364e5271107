"""The plan: a study as data, agreed on before any partner's table is opened.

Rules this module enforces:
- everything that decides privacy is in the plan: sizes and rates are public constants declared by the
  partners, never counted from their tables (PRIVACY rule 14);
- `trust`, `threshold` and `colluders` have no default;
- the coordinator signs the digest of the canonical form; a partner verifies before it reads on.
"""

import dataclasses
import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.privacy.binterms import Bins
from coterie.privacy.canonical import digest
from coterie.privacy.contract import Contract
from coterie.privacy.errors import FileFault
from coterie.privacy.planrules import faults_of
from coterie.privacy.schema import one_of, parse, text
from coterie.privacy.terms import (
    COUNTS,
    MATCHING,
    NO_METRICS,
    NO_TRAINING,
    NOTHING,
    PROPENSITY,
    RECOMMENDERS,
    ROWS,
    SECURE,
    TOKENS,
    TRAINED,
    Catalogued,
    Cohort,
    Matching,
    Metrics,
    Model,
    Partner,
    Privacy,
    Recommendation,
    Secure,
    Split,
    Training,
    Tuning,
)

__all__ = [
    "COUNTS",
    "MATCHING",
    "PROPENSITY",
    "RECOMMENDERS",
    "ROWS",
    "SECURE",
    "TOKENS",
    "TRAINED",
    "Bins",
    "Catalogued",
    "Cohort",
    "Matching",
    "Metrics",
    "Model",
    "Partner",
    "Plan",
    "Privacy",
    "Recommendation",
    "Secure",
    "Split",
    "Training",
    "Tuning",
    "plan_from_dict",
]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole study, ready to be signed.

    Args:
        name: Short name; with the digest it names the study.
        purpose: What the model is for; policies decide by it.
        task: "propensity", "recommendation" or "matching".
        expires: Last day on which a partner may work for it.
        contract: What the tables look like; for matching the customer's column alone.
        model: What is trained; left out for matching, as are training and metrics.
        training: How.
        privacy: What it may spend.
        metrics: What is measured.
        cohort: Who may take part.
        partners: The roster.
        tuning: How the settings were chosen.
        secure: How secure sums are made; None for the defaults.
        catalogue: The items, for recommendation; None otherwise.
        recommendation: How the recommender is made; None for the defaults.
        matching: How customers are matched before all else; None where they are not.
        bins: The private bins that a propensity model learns on; None for the contract's public encoding.
    """

    name: str = field(metadata=text(60))
    purpose: str = field(metadata=text(100))
    task: str = field(metadata=one_of("propensity", "recommendation", MATCHING))
    expires: datetime.date
    contract: Contract
    model: Model = NOTHING
    training: Training = NO_TRAINING
    privacy: Privacy
    metrics: Metrics = NO_METRICS
    cohort: Cohort
    partners: tuple[Partner, ...]
    tuning: Tuning = field(default_factory=Tuning)
    secure: Secure | None = None
    catalogue: Catalogued | None = None
    recommendation: Recommendation | None = None
    matching: Matching | None = None
    bins: Bins | None = None

    @property
    def matches(self) -> bool:
        """Whether the plan matches customers and trains nothing."""
        return self.task == MATCHING

    @property
    def discloses(self) -> bool:
        """Whether something leaves that no epsilon covers: rows or tokens of a match."""
        return self.matching is not None and self.matching.outcome != COUNTS

    @property
    def recommends(self) -> bool:
        """Whether the plan makes a recommender: every step of it is then a sum of whole numbers."""
        return self.task == "recommendation"

    @property
    def grouped(self) -> int:
        """By how many groups histograms count customers: the words of a column, and none; 1 where they do not."""
        named = (column for column in self.contract.columns if self.metrics.groups == column.name)
        return next((len(column.values) + 1 for column in named), 1)

    @property
    def histogram_shape(self) -> tuple[int, int]:
        """Rows and bins of a histogram of held-out customers: two rows for each group."""
        return 2 * self.grouped, self.metrics.bins

    @property
    def parts(self) -> int:
        """In how many parts a person's contributions are divided: at how many partners it may be a customer."""
        return self.privacy.partners_per_person or 1

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def digest(self) -> str:
        """Return the digest that names the plan."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        return digest(self.to_dict())  # asked for many times with every message, of a plan that never changes

    def partner(self, name: str) -> Partner | None:
        """Return the roster's entry for `name`, or None."""
        return next((partner for partner in self.partners if partner.name == name), None)

    def check(self, place: str) -> None:
        """Raise FileFault with everything that is wrong beyond types and ranges."""
        faults = faults_of(self, place)
        if faults:
            raise FileFault(*faults)


def plan_from_dict(table: Mapping[str, Any]) -> Plan:
    """Read a plan that `Plan.to_dict` wrote.

    Raises:
        FileFault: It breaks the schema or a rule of the plan.
        ValueError, TypeError, KeyError: It is not even a table with a date.
    """
    fields = dict(table)
    fields["expires"] = datetime.date.fromisoformat(fields["expires"])
    plan = parse(Plan, fields, place="plan")
    plan.check("plan")
    return plan


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if dataclasses.is_dataclass(value):
        pairs = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: _plain(item) for f, item in pairs if item is not None and not _unsaid(f, item)}
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _unsaid(field_: dataclasses.Field[Any], item: object) -> bool:
    """Tell whether a field came later and says nothing new: plans of before keep their digest."""
    return "later" in field_.metadata and item == field_.default
