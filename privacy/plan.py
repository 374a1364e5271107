"""The plan: a study as data, agreed on before any partner's table is opened.

Rules this module enforces:
- everything that decides privacy is in the plan: sizes and rates are public constants declared by the
  partners, never counted from their tables (PRIVACY rule 14);
- `trust`, `threshold` and `colluders` have no default;
- the coordinator signs the digest of the canonical form; a partner verifies before it reads on.
"""

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.privacy.canonical import digest
from coterie.privacy.contract import Contract
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.schema import integer, number, one_of, parse, text

__all__ = [
    "Cohort",
    "Metrics",
    "Model",
    "Partner",
    "Plan",
    "Privacy",
    "Split",
    "Training",
    "Tuning",
    "plan_from_dict",
]

_MOST_STEPS = 100_000


@dataclass(frozen=True, kw_only=True)
class Partner:
    """A company in the roster.

    Args:
        name: Its name in the study.
        customers: Order of magnitude of its training customers, declared by the partner as public. It sets the
            normaliser of its gradients and its weight in the average.
        key: Its identity key, "ed25519:" and base64; empty in a study file, filled when the plan is signed.
    """

    name: str = field(metadata=text(60))
    customers: int = field(metadata=integer(1, 1_000_000_000))
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained.

    Args:
        family: "logistic", or "mlp" with one hidden layer.
        hidden: Width of the hidden layer (mlp alone).
    """

    family: str = field(metadata=one_of("logistic", "mlp"))
    hidden: int = field(default=32, metadata=integer(1, 1024))


@dataclass(frozen=True, kw_only=True)
class Training:
    """How it is trained.

    Args:
        rounds: Published rounds.
        local_steps: DP-SGD steps that a partner takes in a round.
        sample_rate: Poisson rate at which a step includes each customer; public.
        learning_rate: Step size of the partner's SGD.
        clip: Greatest L2 norm of one customer's gradient.
        positive_weight: Weight of rows with label 1 in the loss; public.
        server: "fedavg" or "fedadam".
        server_learning_rate: Step size of the coordinator.
        spare: Attempts beyond the first that a partner may be charged for in the whole study after crashes;
            noise is calibrated for `rounds + spare`.
    """

    rounds: int = field(metadata=integer(1, 1000))
    local_steps: int = field(metadata=integer(1, 10_000))
    sample_rate: float = field(metadata=number(1e-6, 1))
    learning_rate: float = field(metadata=number(0, 1000, ends="(]"))
    clip: float = field(metadata=number(1e-6, 1000))
    positive_weight: float = field(default=1.0, metadata=number(0, 1000, ends="(]"))
    server: str = field(default="fedavg", metadata=one_of("fedavg", "fedadam"))
    server_learning_rate: float = field(default=1.0, metadata=number(0, 1000, ends="(]"))
    spare: int = field(default=0, metadata=integer(0, 100))


@dataclass(frozen=True, kw_only=True)
class Split:
    """How the study's epsilon is divided, as shares of it.

    Training touches the training customers alone and metrics the held-out ones alone; a customer is in one of
    the groups for life, so the groups compose in parallel (PRIVACY rule 13) and each may use the whole.
    Encodings come from public bounds and use nothing.

    Args:
        training: Share for the model updates.
        metrics: Share for the score histograms.
    """

    training: float = field(default=1.0, metadata=number(0, 1, ends="(]"))
    metrics: float = field(default=1.0, metadata=number(0, 1, ends="(]"))


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """What the study may spend, and what is assumed.

    Args:
        unit: "customer of one partner": all rows of one customer at one partner, add/remove.
        epsilon: The total for any one customer over everything that the study releases.
        delta: The total delta; below 1e-10 the accountant does not bound its own round-off, so it is refused.
        trust: "local": every release is private on its own, whoever sees it.
        threshold: Least partners whose replies make a round.
        colluders: Partners assumed to help the coordinator, at least 1.
        split: How epsilon is divided.
    """

    unit: str = field(metadata=one_of("customer of one partner"))
    epsilon: float = field(metadata=number(0, 20, ends="(]"))
    delta: float = field(metadata=number(1e-10, 1e-3))
    trust: str = field(metadata=one_of("local"))
    threshold: int = field(metadata=integer(1, 1000))
    colluders: int = field(metadata=integer(1, 1000))
    split: Split = Split()


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Which metrics are released.

    Args:
        rounds: Rounds after which held-out score histograms are released; the last one is the result.
        bins: Bins of a histogram, equal in log-odds from -6 to 6, the outer ones open.
    """

    rounds: tuple[int, ...]
    bins: int = field(default=24, metadata=integer(4, 200))


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Which partners may take part.

    Args:
        minimum_customers: Least training customers that a partner must hold; one that holds fewer is
            "unavailable" and does not say why.
        segments: Customer segments, by the partners' own policies, that take part and pay; None for all. The
            others' budgets are not touched.
    """

    minimum_customers: int = field(default=100, metadata=integer(10, 1_000_000_000))
    segments: tuple[str, ...] | None = field(default=None, metadata=text(60))


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the plan's settings were chosen; declared, printed, and not covered by epsilon.

    Args:
        configurations: How many were tried.
        data: On what.
    """

    configurations: int = field(default=0, metadata=integer(0, 1_000_000))
    data: str = field(default="none", metadata=text(200))


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
    tuning: Tuning = Tuning()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def digest(self) -> str:
        """Return the digest that names the plan."""
        return digest(self.to_dict())

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
        faults += self.contract.faults(f"{place}: contract")
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
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _plain(item) for name, item in pairs if item is not None}
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
