"""A study at several epsilons: whole runs side by side on the cores there are."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from coterie.privacy.durable import write_durably
from coterie.simulations.compare import load_report
from coterie.simulations.report import render_sweep
from coterie.simulations.run import Settings, run_simulation, save_settings

__all__ = ["run_sweep"]


def run_sweep(  # noqa: PLR0913 - all of it is the edge of the program
    folder: Path,
    study: str,
    epsilons: Sequence[float],
    *,
    seeds: int,
    jobs: int,
    done: Callable[[int], None],
    trust: str | None = None,
) -> list[dict[str, Any]]:
    """Run a study at each epsilon; those that an earlier, interrupted sweep finished are kept.

    Args:
        folder: One folder per epsilon is made in it, and sweep.html.
        study: Text of the study file.
        epsilons: Ascending.
        seeds: Per epsilon.
        jobs: Runs at once; 0 for one per core.
        done: Called with the number of runs that are finished.
        trust: Replaces the study's own; None leaves it.

    Returns:
        The reports, in the order of `epsilons`.
    """
    places = [folder / f"epsilon-{value:g}" for value in epsilons]
    for place, value in zip(places, epsilons, strict=True):
        if not (place / "run.json").exists():
            save_settings(place, Settings(study, value, "local", seeds, trust))
    todo = [place for place in places if not (place / "report.json").exists()]
    done(len(places) - len(todo))
    # Fresh processes: a fork would copy Flower's identity and torch's threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs or os.cpu_count(), mp_context=context) as pool:
        running = [pool.submit(_one, place) for place in todo]
        for count, future in enumerate(concurrent.futures.as_completed(running), start=1):
            future.result()
            done(len(places) - len(todo) + count)
    reports = [load_report(place) for place in places]
    write_durably(folder / "sweep.html", render_sweep(reports).encode())
    return reports


def _one(place: Path) -> None:
    torch.set_num_threads(1)
    run_simulation(place)
