"""Study files: a plan, and where a simulation takes its tables from.

One file drives simulation and deployment; `[source]` and `[securely]` are read by simulation alone
and are no part of what is signed.
"""

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path

from coterie.privacy.plan import SECURE, Metrics, Plan, Secure, Training, Tuning
from coterie.privacy.schema import read, text

__all__ = ["Source", "Study", "Variant", "read_study"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a simulation takes its tables from; a deployment ignores it.

    Args:
        dataset: Name of a source in `simulations/sources`.
        fallback: Name of the study to run instead, with a clear word, when the data cannot be had.
    """

    dataset: str = field(metadata=text(60))
    fallback: str = ""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a study changes when a simulation runs it with secure aggregation instead of its own trust.

    Args:
        training: Replaces the plan's.
        metrics: Replaces the plan's.
        secure: Replaces the plan's.
        tuning: How these settings were chosen.
    """

    training: Training
    metrics: Metrics
    secure: Secure | None = None
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file: a plan and, for simulation, its source and what it changes with secure aggregation."""

    plan: Plan
    source: Source | None
    securely: Variant | None = None

    def trusting(self, trust: str) -> Plan:
        """Return the plan under another trust, or as it is where it has that one."""
        if trust == self.plan.privacy.trust:
            return self.plan
        plan = replace(self.plan, privacy=replace(self.plan.privacy, trust=trust))
        if trust != SECURE or self.securely is None:
            return plan
        one = self.securely
        return replace(plan, training=one.training, metrics=one.metrics, secure=one.secure, tuning=one.tuning)


@dataclass(frozen=True, kw_only=True)
class _StudyFile(Plan):
    source: Source | None = None
    securely: Variant | None = None


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        FileFault: The file breaks the schema or a rule of the plan.
    """
    whole = read(_StudyFile, path)
    plan = Plan(**{f.name: getattr(whole, f.name) for f in dataclasses.fields(Plan)})
    plan.check(str(path))
    return Study(plan=plan, source=whole.source, securely=whole.securely)
