"""One seed of a study that matches customers: a federation, and the exact counts beside the noisy ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.matching.leaving import OverlapCounts
from coterie.privacy.overlaps import Counted, overlap_file, read_overlap
from coterie.privacy.plan import COUNTS, Plan
from coterie.privacy.randomness import RandomSource
from coterie.server.coordinator import Seen
from coterie.server.registry import Progress
from coterie.simulations.federation import run_federation
from coterie.simulations.results import refusals_of, spread
from coterie.simulations.shared import exact_overlap
from coterie.simulations.trial import Trial

__all__ = ["check_matching", "counted", "counts_file", "matched_release", "matched_simulation", "run_match_trial"]

_LISTS = ("cells", "totals", "pairs", "multiplicity")


def check_matching(plan: Plan) -> None:
    """Check that a simulation can report a plan's match.

    Raises:
        FileFault: The plan does nothing but disclose rows or tokens, of which no report has a figure.
    """
    if plan.matches and plan.matching is not None and plan.matching.outcome != COUNTS:
        rule = f'is "{plan.matching.outcome}", which leaves its result with the partners and none to report'
        fix = 'ask for "counts"; or try it with: coterie partner matches, at partners of a federation'
        raise FileFault(Fault("matching.outcome", rule, fix))


def run_match_trial(  # noqa: PLR0913 - all of it is the edge of the program
    root: Path,
    plan: Plan,
    identifiers: Mapping[str, pa.Table],
    *,
    seed: int,
    engine: str,
    random: RandomSource,
    show: Callable[[Seen], None],
    stop: Callable[[], bool],
) -> Trial:
    """Match the customers of simulated partners; arguments as `run_federation`.

    Raises:
        FileFault: The source has no identifiers of the plan's kind.
        StudyAborted: A partner is missing, or refused.
        Interrupted: `stop` said so.
    """
    exact = exact_overlap(plan, identifiers)
    outcome = run_federation(
        root, plan, {}, seed=seed, engine=engine, random=random, show=show, stop=stop, identifiers=identifiers
    )
    return Trial(outcome, {**exact, "overlap": dict(outcome.progress.overlap)})


def counted(plan: Plan, progress: Progress, *, checked: str) -> Counted:
    """Return the counts of a finished match as a statement takes them.

    Args:
        plan: With [matching] of outcome "counts".
        progress: Where it ended.
        checked: What is known of where the counts come from, in words.
    """
    data = _file(plan.digest(), matched_release(plan, progress))
    return replace(read_overlap(data, place="the counts"), study=plan.name, checked=checked)


def counts_file(report: Mapping[str, Any]) -> bytes:
    """Return the counts of a report of a match as the file that `coterie audit statement` reads."""
    return _file(report["study"]["digest"], report["release"])


def matched_release(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Return the report's "release" of a plan that matches: the noisy counts, who counted, and who refused what."""
    teller = (plan.matching.teller if plan.matching is not None else "") or plan.partners[0].name
    return {"rounds": [], "partner": teller, "overlap": dict(progress.overlap), "refusals": refusals_of(progress)}


def _file(plan: str, release: Mapping[str, Any]) -> bytes:
    return overlap_file(OverlapCounts(plan, release["partner"], release["overlap"]))


def matched_simulation(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report's "simulation" from the exact counts and each seed's noisy ones."""
    first = trials[0]
    errors = {name: [_errors(trial, name) for trial in trials] for name in _LISTS}
    return {
        "models": [],
        "exact": {name: first[name] for name in _LISTS},
        "errors": {name: spread([_size(one) for one in found]) for name, found in errors.items()},
        "verdict": _verdict(first, _errors(first, "cells")),
    }


def _errors(trial: Mapping[str, Any], name: str) -> list[float]:
    """Return by how many of its standard deviations each printed count is off."""
    pairs = zip(trial["overlap"][name], trial[name], strict=True)
    return [
        (noisy["customers"] - exact["customers"]) / noisy["deviation"]
        for noisy, exact in pairs
        if noisy["customers"] is not None
    ]


def _size(errors: Sequence[float]) -> float | None:
    """Return the root of the mean square; None of nothing."""
    return math.sqrt(sum(error * error for error in errors) / len(errors)) if errors else None


def _verdict(trial: Mapping[str, Any], errors: Sequence[float]) -> list[str]:
    """Say in sentences how far the released counts of the first seed are from the truth."""
    noisy, exact = trial["overlap"]["cells"], trial["cells"]
    everybody = sum(cell["customers"] for cell in exact)
    several = sum(cell["customers"] for cell in exact if len(cell["partners"]) > 1)
    untold = [e["customers"] for n, e in zip(noisy, exact, strict=True) if n["customers"] is None]
    said = [
        f"Of {everybody} people {several} ({100 * several / max(everybody, 1):.1f} %) are customers of two or more "
        "partners.",
        f"{len(untold)} of {len(exact)} sets of partners are not told, their noisy counts being below the plan's "
        f"least; {sum(untold)} people are in them, {max(untold, default=0)} in the largest.",
    ]
    if errors:
        worst = max(abs(error) for error in errors)
        said.append(
            f"The {len(errors)} counts that are told are off by {_size(errors):.2f} standard deviations of their noise "
            f"in the root mean square, and by {worst:.1f} at most."
        )
    return said
