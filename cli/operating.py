"""`coterie coordinator` and `coterie partner`: running processes and studies."""

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.coordinator import app as coordinator
from coterie.cli.following import follow
from coterie.cli.partner import app as partner
from coterie.cli.show import print_table
from coterie.privacy.errors import CoterieError, Fault

if TYPE_CHECKING:
    from coterie.processes.held import Holder

__all__: list[str] = []

_OFFICE = typer.Argument(help="The coordinator's folder.")
_WORKSPACE = typer.Argument(help="The partner's workspace.")
_STUDY = typer.Argument(help="The study's name, or the first digits of its plan's digest.")
_JSON = typer.Option("--json", help="Print the result as JSON.")
_PATIENCE = typer.Option(help="Seconds to wait for the processes to end.")


@partner.command("start")
def start_partner(
    folder: Annotated[Path, _WORKSPACE],
    health_port: Annotated[int, typer.Option(help="Loopback port of health and metrics; 0 for any.")] = 0,
) -> None:
    """Run the partner's node in the foreground until it is told to stop.

    Example: coterie partner start ./bank
    """
    from coterie.clients.running.service import run

    run(folder, health_port=health_port, stop=threading.Event(), ready=_ready)


@partner.command("stop")
def stop_partner(folder: Annotated[Path, _WORKSPACE], seconds: Annotated[float, _PATIENCE] = 60.0) -> None:
    """Ask the partner's node to end, after the task at work, and wait for it.

    Example: coterie partner stop ./bank
    """
    from coterie.clients.workspace import Workspace

    _stop(Workspace(folder).run, seconds)


@partner.command("status")
def partner_status(folder: Annotated[Path, _WORKSPACE], as_json: Annotated[bool, _JSON] = False) -> None:
    """Say whether the partner's node runs, and how its processes do.

    Example: coterie partner status ./bank
    """
    from coterie.clients.workspace import Workspace

    _status(Workspace(folder).run, as_json=as_json)


@coordinator.command("start")
def start_coordinator(folder: Annotated[Path, _OFFICE]) -> None:
    """Run the coordinator's service in the foreground until it is told to stop.

    Example: coterie coordinator start ./coordinator
    """
    from coterie.server.running.service import run

    run(folder, stop=threading.Event(), ready=_ready)


@coordinator.command("stop")
def stop_coordinator(
    folder: Annotated[Path, _OFFICE],
    study: Annotated[
        str, typer.Argument(help="Stop this study after its step; the service itself when left out.")
    ] = "",
    seconds: Annotated[float, _PATIENCE] = 60.0,
) -> None:
    """Stop a study, which can be resumed, or the coordinator's service.

    Example: coterie coordinator stop ./coordinator spring-campaign
    """
    from coterie.privacy.clock import now
    from coterie.server.books import Books
    from coterie.server.office import Office

    office = Office(folder)
    if not study:
        _stop(office.run, seconds)
        return
    with Books(office.books_url, now) as books:
        asked = books.ask_stop(books.study(study).digest)
    typer.echo(f"{asked.name}: asked to stop; go on with: coterie coordinator resume {folder} {asked.digest[7:19]}")


@coordinator.command("status")
def coordinator_status(folder: Annotated[Path, _OFFICE], as_json: Annotated[bool, _JSON] = False) -> None:
    """Say whether the coordinator's service runs, and how its processes do.

    Example: coterie coordinator status ./coordinator
    """
    from coterie.server.office import Office

    _status(Office(folder).run, as_json=as_json)


@coordinator.command("run")
def run_study(
    folder: Annotated[Path, _OFFICE],
    study: Annotated[Path, typer.Argument(help="Study file; partners without a key have that of their admission.")],
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is in the books.")] = False,
) -> None:
    """Sign a study's plan, hand it to the service, and show its progress; Ctrl-C leaves it running.

    Example: coterie coordinator run ./coordinator study.toml
    """
    from coterie.privacy.clock import now
    from coterie.server.books import Books
    from coterie.server.office import Office
    from coterie.server.submitting import submit

    office = Office(folder)
    with Books(office.books_url, now) as books:
        filed = submit(office, books, study)
        typer.echo(f"{filed.name}: {filed.digest}")
        if not detach:
            follow(books, filed.digest, coordinator=office.identity.public)


@coordinator.command("resume")
def resume_study(
    folder: Annotated[Path, _OFFICE],
    study: Annotated[str, _STUDY],
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is in the books.")] = False,
) -> None:
    """Go on with a study that was stopped or ended early, from its last published round.

    Example: coterie coordinator resume ./coordinator spring-campaign
    """
    from coterie.privacy.clock import now
    from coterie.server.books import Books
    from coterie.server.office import Office
    from coterie.server.submitting import resume

    office = Office(folder)
    with Books(office.books_url, now) as books:
        filed = resume(books, study)
        typer.echo(f"{filed.name}: {filed.digest}")
        if not detach:
            follow(books, filed.digest, coordinator=office.identity.public)


def _ready(port: int) -> None:
    typer.echo(
        f"started; health and metrics at http://127.0.0.1:{port}; Ctrl-C, or the command stop, ends it", err=True
    )


def _stop(folder: Path, seconds: float) -> None:
    from coterie.processes.held import ask_to_stop

    stopped = ask_to_stop(folder, seconds)
    typer.echo("stopped" if stopped is not None else "nothing runs")


def _status(folder: Path, *, as_json: bool) -> None:
    from coterie.processes.held import running

    holder = running(folder)
    if holder is None:
        typer.echo(json.dumps({"running": False}) if as_json else "not running")
        raise typer.Exit(1)
    told = _told(holder)
    if as_json:
        typer.echo(json.dumps({"running": True, "pid": holder.pid, **told}))
        return
    rows = [(name, "yes" if one["running"] else "no", one["restarts"]) for name, one in told["processes"].items()]
    print_table(f"{told['name']}, process {holder.pid}", ("process", "running", "started again"), rows)


def _told(holder: "Holder") -> dict[str, Any]:
    """Return what a service says of itself."""
    import urllib.request

    place = f"process {holder.pid}"
    if "health" not in holder.ports:
        raise CoterieError(Fault(place, "has only just begun", "ask again in a moment"))
    here = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is no proxy's business
    try:
        with here.open(f"http://127.0.0.1:{holder.ports['health']}/status", timeout=5) as answer:
            told: dict[str, Any] = json.loads(answer.read())
    except (OSError, ValueError):
        raise CoterieError(Fault(place, "does not say how it is", "read its logs, or stop and start it")) from None
    return told
