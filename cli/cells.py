"""`coterie partner cells`: tables for exchange, sealed cell by cell, opened again, and searched."""

import getpass
import json
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.asking import passphrase
from coterie.cli.partner import app as partner
from coterie.cli.sealing import progress

__all__: list[str] = []

app = typer.Typer(no_args_is_help=True)
partner.add_typer(app, name="cells", help="Tables for exchange: seal them cell by cell, open them, find rows in them.")

_FOLDER = typer.Argument(help="The partner's workspace, which keeps the keys.")
_TABLE = typer.Argument(help="Parquet or CSV file.")
_SEALED = typer.Argument(help="Sealed Parquet or CSV file.")
_PLAN = typer.Option("--plan", "--contract", help="Study file or signed plan with the contract.")
_ROW_KEY = typer.Option(help="Column that is the row's own for life; it stays readable. Rows are numbered without it.")
_OUTPUT = typer.Option(help="CSV or Parquet file to write; never overwritten.")
_JSON = typer.Option("--json", help="Print the result as JSON.")
_DATASET = typer.Option(help="What the cells are bound to: customers or interactions.")


@app.command("seal")
def seal_file(
    folder: Annotated[Path, _FOLDER],
    table: Annotated[Path, _TABLE],
    plan: Annotated[Path, _PLAN],
    output: Annotated[Path, _OUTPUT],
    row_key: Annotated[str | None, _ROW_KEY] = None,
    new_keys: Annotated[bool, typer.Option("--new-keys", help="Under new keys; older ones stay.")] = False,
) -> None:
    """Seal a table cell by cell: every column but those that the contract marks ordinary and the row key.

    Example: coterie partner cells seal ./bank customers.csv --plan study.toml --output sealed.csv
    """
    from coterie.clients.cellfiles import Exchange, renew_keys, seal_cells
    from coterie.clients.intake import contract_of
    from coterie.clients.tables.files import table_at
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now
    from coterie.privacy.randomness import OsSource

    exchange, source = Exchange(contract_of(plan), row_key), table_at(table)
    with open_vault(folder, now, ask=passphrase) as vault, progress("rows sealed") as see:
        if new_keys:
            renew_keys(vault, source, exchange)
        rows = seal_cells(vault, source, exchange, output, random=OsSource(), see=see)
    typer.echo(f"{rows} rows are sealed in {output}; this workspace alone has the keys")
    for column, cells in exchange.closed(source).items():
        if cells == "searchable":
            typer.echo(f"  {column} is searchable: who has the file sees which rows are equal in it")


@app.command("open")
def open_file(
    folder: Annotated[Path, _FOLDER],
    table: Annotated[Path, _SEALED],
    plan: Annotated[Path, _PLAN],
    output: Annotated[Path, _OUTPUT],
    row_key: Annotated[str | None, _ROW_KEY] = None,
) -> None:
    """Open a table that was sealed cell by cell, for this user alone, or name the rows that were edited or moved.

    Example: coterie partner cells open ./bank sealed.csv --plan study.toml --output customers.csv
    """
    from coterie.clients.cellfiles import Exchange, open_cells
    from coterie.clients.intake import contract_of
    from coterie.clients.tables.files import table_at
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    exchange, source = Exchange(contract_of(plan), row_key), table_at(table)
    with open_vault(folder, now, ask=passphrase) as vault, progress("rows opened") as see:
        rows = open_cells(vault, source, exchange, output, see=see)
    typer.echo(f"{rows} rows are in {output}, in plain: remove it where it is no longer needed")


@app.command("find")
def find_rows(
    folder: Annotated[Path, _FOLDER],
    table: Annotated[Path, _SEALED],
    column: Annotated[str, typer.Option(help="The column; its cells are searchable.")],
    value: Annotated[str | None, typer.Option(help="The value; asked for without an echo when left out.")] = None,
    row_key: Annotated[str, typer.Option(help="The column with row keys.")] = "row",
    dataset: Annotated[str, _DATASET] = "customers",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Print the row keys of a sealed table whose searchable cell is that of a value; opens nothing.

    Example: coterie partner cells find ./bank sealed.csv --column customer
    """
    from coterie.clients.cellfiles import find_cells
    from coterie.clients.tables.files import table_at
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    source = table_at(table)
    with open_vault(folder, now, ask=passphrase) as vault:
        asked = getpass.getpass(f"value of {column}: ") if value is None else value
        found = find_cells(vault, source, column=column, value=asked, dataset=dataset, row_key=row_key)
    typer.echo(json.dumps(found) if as_json else "\n".join(found) or "no row has it")


@app.command("forget")
def forget_keys(folder: Annotated[Path, _FOLDER], dataset: Annotated[str, _DATASET] = "customers") -> None:
    """Forget all keys of cells but each column's newest: what older ones sealed cannot be opened any more.

    A backup of the workspace has them still, until: coterie partner rotate FOLDER --destroy-older

    Example: coterie partner cells forget ./bank
    """
    from coterie.clients.cellkeys import forget_older
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    with open_vault(folder, now, ask=passphrase) as vault:
        gone = forget_older(vault, dataset)
    typer.echo(f"{gone} older keys of cells are forgotten; copies in backups die with: rotate --destroy-older")
