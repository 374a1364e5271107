"""`coterie partner identifiers` and `matches`: what may be matched, and what matches told of own customers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.asking import passphrase
from coterie.cli.partner import app as partner
from coterie.cli.sealing import DATABASE, TABLE, progress, table_called
from coterie.cli.show import print_table
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.plain import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coterie.clients.vault import Vault

__all__: list[str] = []

_FOLDER = typer.Argument(help="The partner's workspace.")
_PLAN = typer.Argument(help="First digits of the plan's digest, at least 6; not needed where one match is kept.")
_JSON = typer.Option("--json", help="Print the result as JSON.")


@partner.command()
def identifiers(
    folder: Annotated[Path, _FOLDER],
    table: Annotated[str, TABLE],
    customer: Annotated[str, typer.Option(help="Column that names customers, as in the other tables.")],
    email: Annotated[str | None, typer.Option(help="Column of e-mail addresses.")] = None,
    phone: Annotated[str | None, typer.Option(help="Column of phone numbers.")] = None,
    loyalty: Annotated[str | None, typer.Option(help="Column of loyalty numbers.")] = None,
    region: Annotated[str | None, typer.Option(help="Country of numbers without +, such as GB.")] = None,
    region_column: Annotated[str | None, typer.Option(help="Column that says each number's country.")] = None,
    database: Annotated[str | None, DATABASE] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Seal customers' identifiers for matching, in one spelling each; matches that you approve may read them.

    Example: coterie partner identifiers ./bank crm.csv --customer id --email mail --phone mobile --region GB
    """
    from coterie.clients.identifiers import Identified
    from coterie.clients.identifying import take_in_identifiers
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    named = {"email": email, "phone": phone, "loyalty": loyalty}
    columns = {kind: column for kind, column in named.items() if column is not None}
    where = Identified(customer, columns, region, region_column)
    source = table_called(table, database)
    with open_vault(folder, now, ask=passphrase) as vault, progress("identifiers sealed") as see:
        done = take_in_identifiers(vault, source, where, see=see)
    rejected: list[dict[str, str | int]] = [
        {"kind": kind, "reason": why, "rows": count} for (kind, why), count in done.rejected.items()
    ]
    if as_json:
        typer.echo(json.dumps({"taken": dict(done.taken), "rejected": rejected, "report": str(done.report)}))
        return
    _print(rejected, dict(done.taken))
    typer.echo(f"rows and reasons, but for empty cells, are in {done.report}")
    typer.echo(f"{source.place} is as it was: remove it where it is no longer needed")


def _print(rejected: list[dict[str, str | int]], taken: dict[str, int]) -> None:
    from coterie.privacy.matching.identifiers import REASONS

    print_table("Identifiers, for your eyes alone", ("kind", "customers"), sorted(taken.items()))
    if rejected:
        cells = [(row["kind"], REASONS[str(row["reason"])], row["rows"]) for row in rejected]
        print_table("Rejected", ("kind", "because", "rows"), cells)


@partner.command()
def matches(
    folder: Annotated[Path, _FOLDER],
    plan: Annotated[str, _PLAN] = "",
    rows: Annotated[
        Path | None, typer.Option(help="CSV or Parquet file: your customers, and who else has them.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(help="CSV or Parquet file: your customers, and their tokens.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List the matches that left something about your own customers, or write what one of them left.

    Example: coterie partner matches ./bank 3f9a1c --rows matched.csv
    """
    from coterie.clients.matched import kept_matches
    from coterie.clients.matchfiles import match_called
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    if rows is not None and tokens is not None:
        raise FileFault(Fault("--rows", "and --tokens are of different matches", "give one of them"))
    with open_vault(folder, now, ask=passphrase) as vault:
        if rows is not None or tokens is not None:
            _write(vault, plan, rows, tokens)
            return
        found = [match_called(vault, plan)] if plan else kept_matches(vault)
    told = [{"plan": m.plan, "outcome": m.outcome, "day": m.day, "customers": dict(m.customers)} for m in found]
    if as_json:
        typer.echo(json.dumps(told))
        return
    cells = [(m.plan.removeprefix("sha256:")[:12], m.outcome, m.day, _counted(m.customers)) for m in found]
    print_table("Matches, for your eyes alone", ("plan", "outcome", "day", "your customers"), cells)


def _write(vault: "Vault", plan: str, rows: Path | None, tokens: Path | None) -> None:
    from coterie.clients.matchfiles import match_called, write_rows, write_tokens

    found = match_called(vault, plan)
    output = rows or tokens or Path()
    count = (write_tokens if rows is None else write_rows)(vault, found.plan, output)
    typer.echo(f"{count} rows are in {output}, in plain, readable by you alone: remove it where it is no longer needed")


def _counted(customers: "Mapping[str, int]") -> str:
    told = sorted(customers.items())
    return plain(", ".join(f"{count} at {name}" if name else f"{count} with tokens" for name, count in told))
