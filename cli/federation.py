"""`coterie simulate federation`: a study among separate processes on this machine, and reports of deployed studies."""

import datetime
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.coordinator import app as coordinator
from coterie.cli.overlaps import show_overlap
from coterie.cli.show import console, print_table, stoppable
from coterie.cli.simulate import app as simulate
from coterie.privacy.errors import Fault, FileFault

__all__: list[str] = []

_JSON = typer.Option("--json", help="Print the result as JSON.")


@simulate.command("federation")
def federation(
    study: Annotated[str, typer.Argument(help="Name of a built-in study, or path of a study file.")] = "income",
    partners: Annotated[int, typer.Option(min=2, max=50, help="How many of its partners take part.")] = 4,
    trust: Annotated[str | None, typer.Option(help="local or secure-aggregation; the study's own if left out.")] = None,
    output: Annotated[Path | None, typer.Option(help="A new folder; runs/federation-... when left out.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Run a study among a coordinator and partners that are processes of their own, with TLS, and stop them again.

    Example: coterie simulate federation income --partners 4
    """
    from coterie.privacy.study import read_study
    from coterie.simulations import studies
    from coterie.simulations.federated import run_federated

    read = read_study(studies.path(study) if study in studies.names() else Path(study))
    if read.source is None:
        raise FileFault(Fault(f"{study}: source", "is missing", "add [source] with a dataset, for simulation"))
    plan = read.trusting(trust or read.plan.privacy.trust)
    if len(plan.partners) < partners:
        raise FileFault(Fault("--partners", f"must be at most {len(plan.partners)}, the study's", "ask for fewer"))
    folder = output or Path("runs") / f"federation-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}"
    shown: list[str] = []
    with console.status("setting up") as status, stoppable() as stop:

        def show(stage: str, rounds: int) -> None:
            status.update(f"{stage}: round {rounds}/{plan.training.rounds}" if rounds else stage)
            if stage not in shown:
                shown.append(stage)
                console.print(stage)

        done = run_federated(folder, plan, read.source.dataset, partners=partners, show=show, stop=stop)
    if as_json:
        typer.echo(json.dumps({"report": done.report, "seconds": dict(done.seconds)}))
        return
    _released(done.report)
    rows = [(one.round, len(one.cohort), f"{one.seconds:.2f}", one.sent, one.received) for one in done.rounds]
    if rows:
        print_table("Rounds", ("round", "partners", "seconds", "bytes sent", "bytes received"), rows)
    for what, seconds in done.seconds.items():
        typer.echo(f"{what}: {seconds:.1f} s")
    typer.echo(f"report: {folder / 'report.html'}")


@coordinator.command("report")
def report(
    folder: Annotated[Path, typer.Argument(help="The coordinator's folder.")],
    study: Annotated[str, typer.Argument(help="The study's name, or the first digits of its plan's digest.")],
    output: Annotated[Path, typer.Option(help="Page to write; its data and a model card go beside it.")] = Path(
        "report.html"
    ),
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Write the report of a finished study: charged releases alone, since the coordinator has nothing else.

    Example: coterie coordinator report ./coordinator income --output report.html
    """
    from coterie.privacy.clock import now
    from coterie.server.office import Office
    from coterie.simulations.deployedreport import deployed_report, write_report

    made = deployed_report(Office(folder), study, clock=now)
    write_report(made, output)
    if as_json:
        typer.echo(json.dumps(made))
        return
    _released(made)
    typer.echo(f"report: {output}")


def _released(made: dict[str, Any]) -> None:
    """Say what was released, and under which guarantee."""
    if made["study"]["task"] == "matching":
        show_overlap(made)
        return
    bound = made["guarantee"]["study"]
    last = (made["release"]["rounds"] or [{}])[-1]
    name = "hr@10 of 99" if made["study"]["task"] == "recommendation" else "auc"
    figure = last.get(name)
    said = "not measured" if figure is None else f"{figure:.3f}"
    epsilon = "unknown" if bound["epsilon"] is None else f"{bound['epsilon']:.3g}"
    typer.echo(
        f"{made['study']['name']}: charged and released {name.upper()} {said}; epsilon {epsilon} at delta "
        f"{bound['delta']:g} per {bound['unit']}, trust {bound['trust']}"
    )
    for sentence in made["guarantee"]["disclosures"]:
        typer.echo(f"- {sentence}")
    for refusal in made["release"]["refusals"]:
        typer.echo(f"  {refusal['partner']}: {refusal['code']} ({refusal['step']}, round {refusal['round']})")
