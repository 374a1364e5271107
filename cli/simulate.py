"""`coterie simulate`: studies on this machine."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.overlaps import show_overlap
from coterie.cli.show import StudyProgress, console, interval, print_table, stoppable

if TYPE_CHECKING:
    from coterie.simulations.run import Settings

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_STUDY = typer.Argument(help="Name of a built-in study, or path of a study file.")
_SEEDS = typer.Option(min=1, max=100, help="How many times, each with other held-out customers.")
_TRUST = typer.Option(help="local or secure-aggregation; the study's own when left out.")
_JSON = typer.Option("--json", help="Print the result as JSON.")


@app.command("studies")
def list_studies(as_json: Annotated[bool, _JSON] = False) -> None:
    """List the built-in studies.

    Example: coterie simulate studies
    """
    from coterie.privacy.study import read_study
    from coterie.simulations import sources, studies

    rows = []
    for name in studies.names():
        study = read_study(studies.path(name))
        dataset = study.source.dataset if study.source else "-"
        here = "yes" if sources.available(dataset) else "no: make data"
        rows.append((name, study.plan.purpose, dataset, len(study.plan.partners), here))
    if as_json:
        typer.echo(
            json.dumps([dict(zip(("study", "purpose", "dataset", "partners", "data"), r, strict=True)) for r in rows])
        )
        return
    print_table("Built-in studies", ("study", "purpose", "data set", "partners", "data is here"), rows)


@app.command()
def run(
    study: Annotated[str, _STUDY] = "",
    epsilon: Annotated[float | None, typer.Option(help="Epsilon in total; the study's own when left out.")] = None,
    trust: Annotated[str | None, _TRUST] = None,
    engine: Annotated[str, typer.Option(help="local (in this process) or ray (Flower's engine).")] = "local",
    seeds: Annotated[int, _SEEDS] = 1,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; runs/STUDY-... when left out.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the interrupted run in this folder.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Run a study among simulated partners and write a report.

    Example: coterie simulate run income --epsilon 1 --trust secure-aggregation --seeds 3
    """
    from coterie.simulations import run as runs
    from coterie.simulations.run import Settings

    folder = resume or _begin(study, Settings("", epsilon, engine, seeds, trust), output)
    settings = runs.load_settings(folder)
    plan, _ = runs.study_of(folder, settings)
    with StudyProgress(plan, settings.seeds) as show, stoppable() as stop:
        report = runs.run_simulation(folder, show=show, stop=stop)
    if as_json:
        typer.echo(json.dumps(report))
        return
    _summarise(report)
    made = "counts: " if plan.matches else "model:  "
    file = "overlap.json" if plan.matches else "model.safetensors"
    typer.echo(f"\nreport: {folder / 'report.html'}\n{made}{folder / file}")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a run, or its report.json.")],
    second: Annotated[Path, typer.Argument(help="Folder of another run, or its report.json.")],
    output: Annotated[Path, typer.Option(help="Page to write.")] = Path("comparison.html"),
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Put two reports side by side.

    Example: coterie simulate compare runs/income-a runs/income-b --output comparison.html
    """
    from coterie.privacy.durable import write_durably
    from coterie.simulations.compare import compared, load_report
    from coterie.simulations.report import render_comparison

    a, b = load_report(first), load_report(second)
    _refuse_matches(a["study"]["task"], b["study"]["task"])
    rows = compared(a, b)
    write_durably(output, render_comparison(a, b).encode())
    if as_json:
        typer.echo(json.dumps(rows))
        return
    cells = [
        (r["model"], r["metric"], interval(r["first"]), interval(r["second"]), f"{r['difference']:+.3f}") for r in rows
    ]
    print_table("Comparison", ("model", "metric", str(first), str(second), "difference"), cells)
    typer.echo(f"\npage: {output}")


@app.command()
def sweep(
    study: Annotated[str, _STUDY],
    epsilon: Annotated[str, typer.Option(help="Epsilons, separated by commas.")] = "0.5,1,2,4,8",
    seeds: Annotated[int, _SEEDS] = 3,
    jobs: Annotated[int, typer.Option(min=0, help="Runs at once; one per core when 0.")] = 0,
    trust: Annotated[str | None, _TRUST] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; runs/STUDY-sweep-... when left out.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Run a study at several epsilons, in parallel, and draw utility against epsilon.

    Example: coterie simulate sweep income --epsilon 0.5,1,2,4,8
    """
    from coterie.simulations.sweep import run_sweep

    values = _numbers(epsilon)
    text = _text(study)
    _refuse_matches(tomllib.loads(text).get("task"))
    folder = output or _fresh(f"{Path(study).stem}-sweep")
    with console.status(f"{len(values)} epsilons x {seeds} seeds") as status:
        reports = run_sweep(
            folder,
            text,
            values,
            trust=trust,
            seeds=seeds,
            jobs=jobs,
            done=lambda n: status.update(f"{n} of {len(values)} done"),
        )
    if as_json:
        typer.echo(json.dumps(reports))
        return
    keys = [model["key"] for model in reports[0]["simulation"]["models"]]
    main = _main(reports[0])
    rows = [
        (f"{value:g}", *(interval(_figure(report, key, main)) for key in keys))
        for value, report in zip(values, reports, strict=True)
    ]
    title = "HR@10 of 99 on held-out items" if _recommends(reports[0]) else "AUC on everybody's held-out customers"
    print_table(title, ("epsilon", *keys), rows)
    typer.echo(f"\npicture: {folder / 'sweep.html'}")


def _refuse_matches(*tasks: str | None) -> None:
    """Refuse to compare models where there are none."""
    from coterie.privacy.errors import Fault, FileFault
    from coterie.privacy.plan import MATCHING

    if MATCHING in tasks:
        rule = "matches customers and trains no model, so there is nothing to compare"
        raise FileFault(Fault("study", rule, "run it alone: coterie simulate run"))


def _begin(study: str, settings: "Settings", output: Path | None) -> Path:
    """Check what was asked, fall back where data cannot be had, and begin a folder."""
    from coterie.privacy.errors import Fault, FileFault
    from coterie.privacy.plan import SECURE
    from coterie.simulations import run as runs
    from coterie.simulations.federation import ENGINES

    if settings.engine not in ENGINES:
        raise FileFault(Fault("--engine", "must be one of " + ", ".join(ENGINES), "choose one"))
    if settings.epsilon is not None and not 0 < settings.epsilon <= 20:
        raise FileFault(Fault("--epsilon", "must be in (0, 20]", "choose another"))
    if settings.trust not in {None, "local", SECURE}:
        raise FileFault(Fault("--trust", f"must be local or {SECURE}", "choose one"))
    text = _text(study)
    name = "-".join(
        (
            Path(study).stem,
            *(() if settings.epsilon is None else (f"epsilon-{settings.epsilon:g}",)),
            *(() if settings.trust is None else (settings.trust,)),
        )
    )
    folder = output or _fresh(name)
    runs.save_settings(folder, dataclasses.replace(settings, study=text))
    return folder


def _text(study: str) -> str:
    """Return the text of a study, or of the one that stands in while its data cannot be had."""
    from coterie.privacy.errors import Fault, FileFault
    from coterie.privacy.study import read_study
    from coterie.simulations import sources, studies

    if not study:
        raise FileFault(Fault("study", "is missing", "name one of " + ", ".join(studies.names())))
    path = Path(study) if study.endswith(".toml") else studies.path(study)
    source = read_study(path).source
    if source is not None and source.fallback and not sources.available(source.dataset):
        console.print(
            f"the data set {source.dataset} is not here (get it with: make data); "
            f"running the study {source.fallback}, on generated customers, instead",
            style="bold yellow",
        )
        path = studies.path(source.fallback)
    return path.read_text(encoding="utf-8")


def _fresh(name: str) -> Path:
    """Return the first folder of this name that is free."""
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder


def _numbers(text: str) -> list[float]:
    from coterie.privacy.errors import Fault, FileFault

    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not all(0 < value <= 20 for value in values):
        raise FileFault(Fault("--epsilon", "must be numbers in (0, 20], separated by commas", "e.g. 0.5,1,2"))
    return values


def _recommends(report: dict[str, Any]) -> bool:
    return bool(report["study"]["task"] == "recommendation")


def _main(report: dict[str, Any]) -> str:
    """Return the metric by which a report's models are compared."""
    return "hr@10 of 99" if _recommends(report) else "auc"


def _figure(report: dict[str, Any], key: str, metric: str) -> dict[str, Any]:
    model = next(model for model in report["simulation"]["models"] if model["key"] == key)
    figure: dict[str, Any] = model["metrics"][metric]
    return figure


def _summarise(report: dict[str, Any]) -> None:
    if report["study"]["task"] == "matching":
        show_overlap(report)
        return
    bound = report["guarantee"]["study"]
    typer.echo(
        f"\ncharged and released: {_said(report)}; epsilon {_number(bound['epsilon'], '.3g')} "
        f"at delta {bound['delta']:g} per {bound['unit']}, trust {bound['trust']}\n"
    )
    names = {"auc": "AUC", "average_precision": "average precision", "top_decile_lift": "top-decile lift"}
    if _recommends(report):
        names = {"hr@10 of 99": "HR@10 of 99", "ndcg@10 of 99": "NDCG@10 of 99", "hr@20": "HR@20 of all"}
    rows = [
        (model["title"], *(interval(model["metrics"][name]) for name in names))
        for model in report["simulation"]["models"]
    ]
    where = "items taken out of training" if _recommends(report) else "everybody's held-out customers"
    print_table(f"Simulation only: exact, on {where}", ("model", *names.values()), rows)
    for sentence in [*report["simulation"]["verdict"], *report["guarantee"]["disclosures"]]:
        typer.echo(f"- {sentence}")


def _said(report: dict[str, Any]) -> str:
    """Return the main charged figures of the last round in words."""
    last = (report["release"]["rounds"] or [{}])[-1]
    if not _recommends(report):
        return f"AUC {_number(last.get('auc'), '.3f')}, top-decile lift {_number(last.get('top_decile_lift'), '.2f')}"
    main = _main(report)
    floor = (last.get("floor") or {}).get(main)
    return f"HR@10 of 99 {_number(last.get(main), '.3f')}, of what is most popular {_number(floor, '.3f')}"


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else f"{value:{form}}"
