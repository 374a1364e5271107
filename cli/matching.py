"""`coterie partner match`: where matches of customers stand, and what they counted."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.partner import app as partner
from coterie.privacy.plain import plain

__all__ = ["match"]


@partner.command()
def match(
    folder: Annotated[Path, typer.Argument(help="Your workspace.")],
    plan: Annotated[str, typer.Argument(help="Name or digest of one plan; every match when left out.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show where matches with other partners stand, what is left of the year's limits, and what was counted.

    A match runs by itself, once its plan is approved: see `coterie partner inbox`. Before that, your customers'
    identifiers are sealed with `coterie partner identifiers`; what it found of your own customers is written by
    `coterie partner matches`.

    Example: coterie partner match ./bank overlap
    """
    from coterie.clients.matching.status import matches_here
    from coterie.privacy.clock import now

    rows = [row for row in matches_here(folder, clock=now) if plan in {"", row["name"], row["plan"]}]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("no such match was proposed here" if plan else "no match was proposed here")
    for row in rows:
        _print(row)


def _print(row: dict[str, Any]) -> None:
    typer.echo(plain(f"{row['name']}  {row['plan']}  {row['state']}"))
    noisy = "noisy and charged" if row["gives"] == "counts" else "a disclosure, which no epsilon covers"
    typer.echo(plain(f"  matches      customers by {row['by']}, with {', '.join(row['partners'])}"))
    typer.echo(plain(f"  gives        {row['gives']}: {noisy}"))
    if row["parcels"]:
        typer.echo(f"  parcels      {row['done']} of {row['parcels']}")
    left = f"{row['evaluations_left']:,} evaluations and {row['disclosures_left']} disclosures"
    typer.echo(f"  evaluations  {row['evaluations']:,} for this match; left this year: {left}")
    for whose, customers in row["counts"].items():
        typer.echo(plain(f"  {whose}: {customers:g}"))
