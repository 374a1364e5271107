"""`coterie partner profile`: what a table is like, for its owner's eyes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.asking import passphrase
from coterie.cli.partner import app as partner

if TYPE_CHECKING:
    from coterie.clients.profile.facts import Profile
    from coterie.clients.tables.table import Table

__all__: list[str] = []


@partner.command("profile")
def profile(
    plan: Annotated[Path, typer.Option(help="Study file or signed plan with the contract.")],
    output: Annotated[Path, typer.Option(help="Folder for the page and its JSON; new, or closed to others.")],
    table: Annotated[Path | None, typer.Argument(help="Parquet or CSV file.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Look at what is sealed in this workspace instead.")] = None,
    quasi: Annotated[
        list[str] | None, typer.Option(help="A column that may help to tell customers apart; give it again for more.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="The profile.json of an earlier profile.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say what a table is like, what stops a study and what deserves a look; nothing leaves.

    Example: coterie partner profile customers.csv --plan study.toml --output profile
    """
    from coterie.clients.intake import plan_of
    from coterie.clients.profile.drift import read_profile
    from coterie.clients.profile.output import PAGE, write_profile
    from coterie.clients.profile.profiling import Wish, profile_table
    from coterie.privacy.clock import now
    from coterie.privacy.randomness import OsSource

    asked = plan_of(plan)
    wish = Wish(
        today=now().date(),
        key=OsSource().stream("profile").bits(32),
        quasi=tuple(quasi or ()),
        earlier=read_profile(against) if against else None,
    )
    with _rows(table, workspace, interactions=asked.recommends) as rows:
        made = profile_table(rows, asked.contract, wish)
    write_profile(made, output)
    _tell(made, output / PAGE, as_json=as_json)
    if made.stops:
        raise typer.Exit(1)


@contextmanager
def _rows(table: Path | None, workspace: Path | None, *, interactions: bool) -> "Iterator[Table]":
    """Lend the table to look at: a file, or else what a workspace keeps sealed, which is held meanwhile."""
    from coterie.clients.tables.files import table_at
    from coterie.clients.vault import CUSTOMERS, INTERACTIONS, open_vault
    from coterie.privacy.clock import now
    from coterie.privacy.errors import Fault, FileFault

    if table is not None and workspace is None:
        yield table_at(table)
    elif table is None and workspace is not None:
        with open_vault(workspace, now, ask=passphrase) as vault:
            yield vault.table(INTERACTIONS if interactions else CUSTOMERS)
    else:
        raise FileFault(Fault("a table", "or --workspace is needed, and not both", "give one of them"))


def _tell(made: "Profile", page: Path, *, as_json: bool) -> None:
    if as_json:
        stops, looks = ([str(one) for one in found] for found in (made.stops, made.looks))
        told = {"output": str(page), "verdict": made.verdict, "stops": stops, "looks": looks, "fine": list(made.fine)}
        typer.echo(json.dumps(told))
        return
    for found, words in ((made.stops, "stops a study"), (made.looks, "deserves a look")):
        for one in found:
            typer.echo(f"{words}: {one}")
    for sentence in made.fine:
        typer.echo(f"fine: {sentence}")
    typer.echo(f"{page} (readable by you alone)")
