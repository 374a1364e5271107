"""`coterie partner check`: everything that can be tested before the first study."""

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from coterie.cli.partner import app as partner
from coterie.cli.show import console

__all__: list[str] = []


@partner.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="The partner's workspace.")],
    offline: Annotated[bool, typer.Option("--offline", help="Leave the coordinator alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Test files, policy, vault, admission, network, clocks and a dry round; say the fix of whatever fails.

    Example: coterie partner check ./bank
    """
    from coterie.clients.preflight import checks_here, run_checks
    from coterie.clients.running.reaching import checks_there
    from coterie.clients.workspace import Workspace
    from coterie.privacy.clock import now
    from coterie.processes.quiet import quiet_environment

    workspace = Workspace(folder)
    # What is tested is what the node's processes will find: they are started without proxies and without telemetry.
    environment = quiet_environment(os.environ, folder.absolute() / "supernode")
    os.environ.clear()
    os.environ.update(environment)
    there = iter(()) if offline else checks_there(workspace, now)
    found = []
    for one in run_checks(itertools.chain(checks_here(workspace, now), there)):
        found.append(one)
        if not as_json:
            mark = "[green]ok[/green]    " if one.fine else "[red]failed[/red]"
            console.print(f"{mark} {one.name}: {escape(one.said)}", soft_wrap=True, highlight=False)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found]))
    if not all(one.fine for one in found):
        raise typer.Exit(1)
