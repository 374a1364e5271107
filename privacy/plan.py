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

from coterie.privacy.canonical import digest
from coterie.privacy.contract import Contract
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.schema import one_of, parse, text
from coterie.privacy.terms import (
    SECURE,
    Cohort,
    Metrics,
    Model,
    Partner,
    Privacy,
    Secure,
    Split,
    Training,
    Tuning,
)

__all__ = [
    "SECURE",
    "Cohort",
    "Metrics",
    "Model",
    "Partner",
    "Plan",
    "Privacy",
    "Secure",
    "Split",
    "Training",
    "Tuning",
    "plan_from_dict",
]

_MOST_STEPS = 100_000
_MOST_SUMMED, _MOST_SUMS = 255, 1024  # shares are points of GF(256); keys are dealt a round at a time


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole study, ready to be signed.

    Args:
        name: Short name; with the digest it names the study.
        purpose: What the model is for; policies decide by it.
        task: "propensity".
        expires: Last day on which a partner may work for it.
        contract: What the tables look like.
        model: What is trained.
        training: How.
        privacy: What it may spend.
        metrics: What is measured.
        cohort: Who may take part.
        partners: The roster.
        tuning: How the settings were chosen.
        secure: How secure sums are made; None for the defaults.
    """

    name: str = field(metadata=text(60))
    purpose: str = field(metadata=text(100))
    task: str = field(metadata=one_of("propensity"))
    expires: datetime.date
    contract: Contract
    model: Model
    training: Training
    privacy: Privacy
    metrics: Metrics
    cohort: Cohort
    partners: tuple[Partner, ...]
    tuning: Tuning = field(default_factory=Tuning)
    secure: Secure | None = None

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
        faults: list[Fault] = []
        names = [partner.name for partner in self.partners]
        if len(set(names)) != len(names) or not names:
            faults.append(Fault(f"{place}: partners", "names must differ, at least one", "correct the roster"))
        if not self.privacy.threshold <= len(names):
            faults.append(Fault(f"{place}: privacy.threshold", "exceeds the roster", "lower it"))
        if not self.privacy.colluders < len(names):
            faults.append(Fault(f"{place}: privacy.colluders", "must be below the roster's size", "lower it"))
        keys = [partner.key for partner in self.partners if partner.key]
        if len(set(keys)) != len(keys):
            faults.append(Fault(f"{place}: partners", "two partners have one key", "give each its own"))
        if (self.training.rounds + self.training.spare) * self.training.local_steps > _MOST_STEPS:
            rule = f"rounds times local_steps must be at most {_MOST_STEPS}"
            faults.append(Fault(f"{place}: training", rule, "ask for fewer steps"))
        rounds = self.metrics.rounds
        ascending = list(rounds) == sorted(set(rounds)) and rounds
        if not ascending or rounds[0] < 1 or rounds[-1] != self.training.rounds:
            faults.append(
                Fault(
                    f"{place}: metrics.rounds",
                    f"must ascend within 1..{self.training.rounds} and end with the last round",
                    "correct the list",
                )
            )
        segments = self.cohort.segments
        if segments is not None and (not segments or list(segments) != sorted(set(segments))):
            rule = "must name segments in ascending order, each once"
            faults.append(Fault(f"{place}: cohort.segments", rule, "correct the list, or leave it out for all"))
        if self.privacy.trust == SECURE:
            faults += self._secure_faults(place)
        faults += self.contract.faults(f"{place}: contract")
        if faults:
            raise FileFault(*faults)

    def _secure_faults(self, place: str) -> list[Fault]:
        """Return what makes secure sums unsafe: who may be missing, and who may tell two stories."""
        count, least, colluders = len(self.partners), self.privacy.threshold, self.privacy.colluders
        faults = []
        if count < 3 or least < 3 or 3 * least <= 2 * count:
            rule = f"must be at least 3 and above two thirds of the {count} partners"
            faults.append(Fault(f"{place}: privacy.threshold", rule, "raise it, or add partners"))
        if least - colluders < 2 or 2 * least <= count + colluders:
            rule = "are too many: two different stories could both reach the threshold"
            faults.append(Fault(f"{place}: privacy.colluders", rule, "lower it, or raise the threshold"))
        if count > _MOST_SUMMED or self.training.local_steps > _MOST_SUMS:
            rule = f"sums at most {_MOST_SUMMED} partners, in rounds of at most {_MOST_SUMS} steps"
            faults.append(Fault(f"{place}: privacy.trust", rule, "ask for fewer"))
        if self.training.server != "fedavg" or self.training.server_learning_rate != 1.0:
            fix = "leave it out, and set secure.optimizer and training.learning_rate"
            faults.append(Fault(f"{place}: training.server", "has no part in secure aggregation", fix))
        return faults


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
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _plain(item) for name, item in pairs if item is not None}
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
