"""A whole simulated study: some seeds, one report, and a folder that can be resumed.

run.json        the study and its settings
seed-0/ ...     one federation each: coordinator/ and partners/; result.json when it is done
report.html     what was released, what it cost, and how it compares
report.json     the same as data
model.safetensors, model-card.md    the first seed's model, where one is trained
overlap.json    the first seed's counts, where customers are matched: for `coterie audit statement`
"""

import dataclasses
import datetime
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coterie.models.card import model_card
from coterie.models.modelfile import ModelFile, model_bytes
from coterie.models.recommenders.choice import chosen_family
from coterie.privacy.calibration import calibrate
from coterie.privacy.canonical import canonical
from coterie.privacy.chosen import chosen_propensity
from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.plan import MATCHING, Plan
from coterie.privacy.randomness import OsSource, RandomSource
from coterie.privacy.statement import statement
from coterie.privacy.study import Source, read_study
from coterie.server.coordinator import Seen
from coterie.server.recording import record_of
from coterie.simulations import results, sources
from coterie.simulations.matchtrial import check_matching, counted, counts_file, matched_simulation, run_match_trial
from coterie.simulations.rankresults import ranked_simulation
from coterie.simulations.ranktrial import run_rank_trial
from coterie.simulations.releases import released
from coterie.simulations.report import render
from coterie.simulations.trial import Trial, run_trial

__all__ = ["Settings", "load_settings", "run_simulation", "save_settings", "study_of"]

_PACKAGES = ("coterie", "flwr", "opacus", "torch", "dp-accounting", "numpy", "cryptography")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a simulated study is run with.

    Args:
        study: Text of the study file.
        epsilon: Replaces the plan's epsilon; None leaves it.
        trust: Replaces the plan's trust; None leaves it.
        engine: "local" or "ray".
        seeds: How many seeds: each splits the customers anew.
    """

    study: str
    epsilon: float | None
    engine: str
    seeds: int
    trust: str | None = None


def save_settings(folder: Path, settings: Settings) -> None:
    """Begin a run: write its settings into a new folder.

    Raises:
        FileFault: The folder holds a run already.
    """
    if (folder / "run.json").exists():
        fix = f"resume it with --resume {folder}, or choose another --output"
        raise FileFault(Fault(str(folder), "holds a run already", fix))
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / "run.json", canonical(dataclasses.asdict(settings)))


def load_settings(folder: Path) -> Settings:
    """Read the settings of a run that is to go on.

    Raises:
        FileFault: There is no run in the folder.
    """
    try:
        return Settings(**json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise FileFault(Fault(str(folder), "holds no run", "give the folder of an interrupted run")) from None


def run_simulation(
    folder: Path,
    *,
    random: RandomSource | None = None,
    show: Callable[[int, Seen], None] = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run, or go on with, the study that a folder's settings describe.

    Args:
        folder: Where `save_settings` wrote.
        random: Where secret randomness comes from; the operating system when None.
        show: Called with the seed and what may be shown.
        stop: Asked before every round whether to stop.

    Returns:
        The report, which is also written to the folder.

    Raises:
        FileFault: The study file or the folder is wrong, or another process works in it.
        SourceFault: The data cannot be had.
        StudyAborted: Too few partners answered.
        Interrupted: `stop` said so.
    """
    settings = load_settings(folder)
    noise = random or OsSource()
    with _held(folder):
        plan, source = study_of(folder, settings)
        run_one = _trial_of(plan, source.dataset)
        done: list[Mapping[str, Any]] = []
        for seed in range(settings.seeds):
            place = folder / f"seed-{seed}"
            stored = place / "result.json"
            if not stored.exists():
                began = time.monotonic()
                trial = run_one(
                    place,
                    plan,
                    seed=seed,
                    engine=settings.engine,
                    random=noise,
                    show=functools.partial(show, seed),
                    stop=stop,
                )
                _keep(place, trial, noise.name, seconds=time.monotonic() - began)
            done.append(json.loads(stored.read_text(encoding="utf-8")))
        report = _report(settings, source, done)
        _write(folder, report)
    return report


def _trial_of(plan: Plan, dataset: str) -> Callable[..., Trial]:
    """Load what a plan needs of a source, and return what runs one seed of it."""
    if plan.matches:
        return functools.partial(run_match_trial, identifiers=sources.identifiers(dataset))
    tables = sources.load(dataset)
    if not plan.recommends:
        return functools.partial(run_trial, tables=tables)
    identifiers = None if plan.matching is None else sources.identifiers(dataset)
    catalogue = sources.catalogue(dataset)
    return functools.partial(run_rank_trial, tables=tables, catalogue=catalogue, identifiers=identifiers)


def study_of(folder: Path, settings: Settings) -> tuple[Plan, Source]:
    """Return the plan and the source of a run's study; the plan names its family, though the study may not."""
    path = folder / "study.toml"
    if not path.exists():
        write_durably(path, settings.study.encode())
    study = read_study(path)
    if study.source is None:
        raise FileFault(Fault(f"{path}: source", "is missing", "add [source] with a dataset, for simulation"))
    plan = study.trusting(settings.trust or study.plan.privacy.trust)
    if settings.epsilon is not None:
        plan = dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, epsilon=settings.epsilon))
    plan = _chosen(plan)
    plan.check(str(path))
    check_matching(plan)
    return plan, study.source


def _chosen(plan: Plan) -> Plan:
    """Return the plan with the family that a rule on its public facts chooses, where it leaves the choice."""
    plan = chosen_propensity(plan)
    if plan.model.family != "auto" or plan.catalogue is None:
        return plan
    customers = sum(partner.customers for partner in plan.partners)
    family = chosen_family(customers=customers, items=plan.catalogue.items, epsilon=plan.privacy.epsilon)
    return dataclasses.replace(plan, model=dataclasses.replace(plan.model, family=family))


def _keep(place: Path, trial: Trial, random: str, *, seconds: float) -> None:
    """Write down a finished seed."""
    plan, progress = trial.outcome.signed.plan, trial.outcome.progress
    told = counted(plan, progress, checked="this very run, among simulated partners") if plan.matches else None
    guarantee = statement(plan, calibrate(plan), random_source=random, overlap=told)
    if not plan.matches:
        about = {"plan": plan.to_dict(), "digest": plan.digest(), "guarantee": guarantee}
        if fitted := record_of(plan, progress).calibration:
            about["calibration"] = fitted
        model = ModelFile(plan.model.family, plan.model.hidden, progress.weights, about)
        write_durably(place / "model.safetensors", model_bytes(model))
    result = {
        "facts": results.study_facts(plan, ""),
        "release": released(plan, progress),
        "budget": results.budget(trial.outcome),
        "guarantee": guarantee,
        "exact": trial.exact,
        "seconds": seconds,
    }
    write_durably(place / "result.json", json.dumps(result).encode())


def _simulated(task: str, exact: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if task == MATCHING:
        return matched_simulation(exact)
    return ranked_simulation(exact) if task == "recommendation" else results.simulated(exact)


def _report(settings: Settings, source: Source, done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, exact = done[0], [result["exact"] for result in done]
    return {
        "format": "coterie/report/v1",
        "study": {**first["facts"], "dataset": source.dataset},
        "made": {
            "at": now().astimezone(datetime.UTC).isoformat(timespec="seconds"),
            "engine": settings.engine,
            "seconds": sum(result["seconds"] for result in done),
            "seeds": list(range(settings.seeds)),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}",
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "release": first["release"],
        "guarantee": first["guarantee"],
        "budget": first["budget"],
        "simulation": _simulated(first["facts"]["task"], exact),
    }


def _write(folder: Path, report: dict[str, Any]) -> None:
    if report["study"]["task"] == MATCHING:
        report["model"] = None
        write_durably(folder / "overlap.json", counts_file(report))
    else:
        model = (folder / "seed-0" / "model.safetensors").read_bytes()
        write_durably(folder / "model.safetensors", model)
        sha256 = hashlib.sha256(model).hexdigest()
        report["model"] = {"file": "model.safetensors", "sha256": sha256, "card": "model-card.md"}
        write_durably(folder / "model-card.md", model_card(report).encode())
    write_durably(folder / "report.json", json.dumps(report, indent=1, allow_nan=False).encode())
    write_durably(folder / "report.html", render(report).encode())


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process."""
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FileFault(Fault(str(folder), "is in use by another process", "wait for it to end")) from None
        yield
