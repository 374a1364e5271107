"""Study files: a plan, and where a simulation takes its tables from.

One file drives simulation and deployment; `[source]` is read by simulation alone and is no part of what is signed.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from coterie.privacy.plan import Plan
from coterie.privacy.schema import read, text

__all__ = ["Source", "Study", "read_study"]


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
class Study:
    """A study file: a plan and, for simulation, its source."""

    plan: Plan
    source: Source | None


@dataclass(frozen=True, kw_only=True)
class _StudyFile(Plan):
    source: Source | None = None


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        FileFault: The file breaks the schema or a rule of the plan.
    """
    whole = read(_StudyFile, path)
    plan = Plan(**{f.name: getattr(whole, f.name) for f in dataclasses.fields(Plan)})
    plan.check(str(path))
    return Study(plan=plan, source=whole.source)
