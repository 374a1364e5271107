"""`coterie partner seal`, `consents` and `vault`: tables on their way into the vault, and how it stands."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.asking import passphrase
from coterie.cli.partner import app as partner
from coterie.cli.show import console, print_table
from coterie.privacy.errors import Fault, FileFault

if TYPE_CHECKING:
    from coterie.clients.tables.table import Table

__all__ = ["DATABASE", "TABLE", "progress", "table_called"]

_FOLDER = typer.Argument(help="The partner's workspace.")
_JSON = typer.Option("--json", help="Print the result as JSON.")
TABLE = typer.Argument(help="Parquet or CSV file; with --database the name of a table there.")
DATABASE = typer.Option(
    help="SQLAlchemy URL of a database; better in the variable, where no list of processes shows it.",
    envvar="COTERIE_DATABASE",
)


@partner.command()
def seal(
    folder: Annotated[Path, _FOLDER],
    table: Annotated[str, TABLE],
    plan: Annotated[Path, typer.Option("--plan", "--contract", help="Study file or signed plan with the contract.")],
    catalogue: Annotated[Path | None, typer.Option(help="The agreed item table, for a plan that recommends.")] = None,
    database: Annotated[str | None, DATABASE] = None,
) -> None:
    """Check a table against a plan's contract, seal it into the vault, and approve the contract.

    Example: coterie partner seal ./bank customers.csv --contract study.toml
    """
    from coterie.clients.intake import plan_of, take_in, take_in_interactions
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    asked = plan_of(plan)
    if asked.recommends and catalogue is None:
        raise FileFault(Fault("--catalogue", "is missing, and the plan recommends", "give the agreed item table"))
    source = table_called(table, database)
    with open_vault(folder, now, ask=passphrase) as vault, progress("rows sealed") as see:
        if asked.recommends and catalogue is not None:
            notes = take_in_interactions(vault, source, asked, catalogue, see=see)
        else:
            notes = take_in(vault, source, asked.contract, see=see)
    typer.echo("sealed into the vault; the contract is kept, and approved for studies")
    for note, count in notes.items():
        typer.echo(f"  noted: {note} in {count} rows")
    typer.echo(f"{source.place} is as it was: remove it where it is no longer needed")


@partner.command()
def consents(
    folder: Annotated[Path, _FOLDER],
    table: Annotated[str, TABLE],
    database: Annotated[str | None, DATABASE] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Seal the table of customers' consents: customer, purpose, given, expires, withdrawn.

    Example: coterie partner consents ./bank consents.csv
    """
    from coterie.clients.intake import take_in_consents
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    source = table_called(table, database)
    with open_vault(folder, now, ask=passphrase) as vault, progress("rows sealed") as see:
        found = take_in_consents(vault, source, see=see)
    if as_json:
        typer.echo(json.dumps(dict(found)))
        return
    print_table("Consents, for your eyes alone", ("purpose", "rows"), list(found.items()))


@partner.command("vault")
def show_vault(folder: Annotated[Path, _FOLDER], as_json: Annotated[bool, _JSON] = False) -> None:
    """Read everything in the vault to its last byte, and say what is there; nothing of it is shown.

    Example: coterie partner vault ./bank
    """
    from coterie.clients.checkup import check_vault
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    with open_vault(folder, now, ask=passphrase) as vault:
        found = check_vault(vault)
    if as_json:
        typer.echo(json.dumps(found))
        return
    names = ("dataset", "version", "columns", "rows", "bytes", "keys", "epoch")
    cells = [tuple(f"{row[name]:,}" if name == "bytes" else row[name] for name in names) for row in found]
    print_table("Vault, for your eyes alone", ("data set", *names[1:]), cells)


@partner.command()
def counts(folder: Annotated[Path, _FOLDER], as_json: Annotated[bool, _JSON] = False) -> None:
    """Show how many rows every charge was made of, and who was left out; the ledger commits to each record.

    Example: coterie partner counts ./bank
    """
    from coterie.clients.keeping import keeping_of
    from coterie.clients.workspace import Workspace

    workspace = Workspace(folder)
    with workspace.lock():
        found = keeping_of(workspace).read_all()
    if as_json:
        typer.echo(json.dumps([record.to_dict() | {"commitment": record.commitment} for record in found]))
        return
    cells = [
        (
            record.about["plan"][7:15],
            record.about.get("step", ""),
            record.about.get("attempt", ""),
            ", ".join(f"{name} {count}" for name, count in record.counts.items()),
            record.commitment[7:23],
        )
        for record in found
    ]
    print_table("Counts, for your eyes alone", ("plan", "step", "attempt", "counts", "commitment"), cells)


def table_called(name: str, database: str | None) -> "Table":
    """Return the table that a command names.

    Args:
        name: A file, or with a database the name of a table there.
        database: The database's SQLAlchemy URL, or None for a file.

    Raises:
        ContractFault: There is none.
    """
    if database is not None:
        from coterie.clients.tables.database import table_in

        return table_in(database, name)
    from coterie.clients.tables.files import table_at

    return table_at(Path(name))


@contextmanager
def progress(words: str) -> Iterator[Callable[[int], None]]:
    """Show how many rows are done, on a terminal, and forget it afterwards.

    Args:
        words: What is counted.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(words, total=None)
        yield lambda rows: bars.update(bar, completed=rows)
