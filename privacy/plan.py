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
    PERSON,
    RECOMMENDERS,
    SECURE,
    TRAINED,
    Catalogued,
    Cohort,
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
    "RECOMMENDERS",
    "SECURE",
    "TRAINED",
    "Catalogued",
    "Cohort",
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

_MOST_STEPS = 100_000
_MOST_CELLS = 2**24  # numbers of a sweep's sum, and of one customer in it
_MOST_SUMMED, _MOST_SUMS = 255, 1024  # shares are points of GF(256); keys are dealt a round at a time


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole study, ready to be signed.

    Args:
        name: Short name; with the digest it names the study.
        purpose: What the model is for; policies decide by it.
        task: "propensity" or "recommendation".
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
        catalogue: The items, for recommendation; None otherwise.
        recommendation: How the recommender is made; None for the defaults.
    """

    name: str = field(metadata=text(60))
    purpose: str = field(metadata=text(100))
    task: str = field(metadata=one_of("propensity", "recommendation"))
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
    catalogue: Catalogued | None = None
    recommendation: Recommendation | None = None

    @property
    def recommends(self) -> bool:
        """Whether the plan makes a recommender: every step of it is then a sum of whole numbers."""
        return self.task == "recommendation"

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
        faults += self._task_faults(place)
        faults += self._unit_faults(place)
        faults += self.contract.faults(f"{place}: contract")
        if faults:
            raise FileFault(*faults)

    def _unit_faults(self, place: str) -> list[Fault]:
        """Return what keeps persons at several partners from being protected as one.

        Parts of a k-th each add up to one contribution in a secure sum over all customers, whatever group the person is
        in at which partner: of Gaussians with a and b parts in both groups, a + b = k, the losses compose to no more
        than the worse group's alone, because (a/k)^2 + (b/k)^2 <= 1. So they do over attempts with other partners in
        each, because no partner makes more sums of a kind than were charged, and squares add up (Dong, Roth and Su
        2022, corollary 3.3). Sampled by each partner for itself, they do not.
        """
        privacy = self.privacy
        if (privacy.unit == PERSON) != (privacy.partners_per_person is not None):
            return [
                Fault(f"{place}: privacy.partners_per_person", f'goes with unit "{PERSON}"', "give both or neither")
            ]
        if privacy.unit != PERSON:
            return []
        right = self.recommends and privacy.trust == SECURE and self.training.sample_rate == 1
        if right and self.parts <= len(self.partners):
            return []
        rule = f"is for recommendation by {SECURE} at sample_rate 1, with k at most the roster"
        return [Fault(f"{place}: privacy.unit", rule, "see the statement's table by number of partners instead")]

    def _task_faults(self, place: str) -> list[Fault]:
        """Return what of the plan does not go with its task."""
        family, training, faults = self.model.family, self.training, []
        if self.recommends != (family in {"auto", *RECOMMENDERS}):
            faults.append(Fault(f"{place}: model.family", f"is none for {self.task}", "choose another"))
        parts = (self.contract.interactions is not None, self.catalogue is not None)
        if parts != (self.recommends, self.recommends) or (self.recommendation is not None and not self.recommends):
            rule = "contract.interactions, catalogue and recommendation go together, with this task alone"
            faults.append(Fault(f"{place}: task", rule, "add what is missing, or remove what is too much"))
        if not self.recommends:
            return faults
        if family not in {"auto", *TRAINED} and (training.sample_rate != 1 or training.local_steps != 1):
            rule = "and local_steps must be 1: every sum of this family is over all customers"
            faults.append(Fault(f"{place}: training.sample_rate", rule, "set both to 1"))
        if family in {"popularity", "item-gram"} and training.rounds != 1:
            faults.append(Fault(f"{place}: training.rounds", "must be 1: the model is made of one sum", "set it to 1"))
        if training.server != "fedavg" or training.server_learning_rate != 1.0 or training.positive_weight != 1.0:
            fix = "leave it out, and set secure.optimizer and training.learning_rate"
            faults.append(Fault(f"{place}: training.server", "has no part in recommendation", fix))
        return faults + self._size_faults(place)

    def _size_faults(self, place: str) -> list[Fault]:
        """Return what would make a partner's work too large: memory that grew with histories would tell of them."""
        rows, catalogue, how = self.contract.interactions, self.catalogue, self.recommendation or Recommendation()
        if self.model.family != "ials" or rows is None or catalogue is None:
            return []
        cells = how.dimension * (how.dimension + 3) // 2  # of one item
        if cells * max(rows.most, min(how.keep, catalogue.items)) <= _MOST_CELLS:
            return []
        rule = "makes sums of ials too large for so many items kept, or of one customer"
        return [Fault(f"{place}: recommendation.dimension", rule, "lower it, or keep fewer items")]

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
