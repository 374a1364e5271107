"""`coterie partner inbox`, `approve` and `decline`: the operator's word on what is asked of the partner."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.partner import app as partner
from coterie.privacy.plain import plain

__all__: list[str] = []

_FOLDER = typer.Argument(help="The partner's workspace.")
_PLAN = typer.Argument(help="First digits of the plan's digest, at least 6, or the study's name.")
_BY = typer.Option("--by", help="Your role; it is written into the ledger, and leaves with every audit export.")
_GROUPS = {"training": "training", "holdout": "held-out"}


@partner.command()
def inbox(
    folder: Annotated[Path, _FOLDER],
    every: Annotated[bool, typer.Option("--all", help="Plans that were decided on, or expired, as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List the plans that wait for your word: what each costs, reads and would release.

    Example: coterie partner inbox ./bank
    """
    from coterie.clients.inbox import look
    from coterie.privacy.clock import now

    rows = [row for row in look(folder, clock=now) if every or row["state"] == "awaiting"]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("no plan waits for your word" if not every else "no plan was proposed here")
    for row in rows:
        _print(row)


@partner.command()
def approve(
    folder: Annotated[Path, _FOLDER],
    plan: Annotated[str, _PLAN],
    by: Annotated[str, _BY] = "operator",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Approve a plan: it runs when the coordinator asks again, while your policy permits it.

    Example: coterie partner approve ./bank spring --by "data protection officer"
    """
    from coterie.clients.deciding import Decision, decide, find
    from coterie.clients.inbox import look
    from coterie.privacy.clock import now
    from coterie.privacy.compliance import APPROVED

    row = find(look(folder, clock=now), plan)
    _print(row)
    if not yes:
        typer.confirm("Approve it?", abort=True)
    fresh = decide(folder, row["plan"], Decision(APPROVED, by), clock=now)
    typer.echo("approved; it runs when the coordinator asks again" if fresh else "was approved before")


@partner.command()
def decline(
    folder: Annotated[Path, _FOLDER],
    plan: Annotated[str, _PLAN],
    reason: Annotated[str, typer.Option(help="Why; it stays in your ledger and its audit exports.")],
    by: Annotated[str, _BY] = "operator",
) -> None:
    """Decline a plan, or stop one that runs: from now on every task of it is refused.

    Example: coterie partner decline ./bank spring --reason "not agreed with marketing"
    """
    from coterie.clients.deciding import Decision, decide, find
    from coterie.clients.inbox import look
    from coterie.privacy.clock import now
    from coterie.privacy.compliance import DECLINED

    row = find(look(folder, clock=now), plan)
    fresh = decide(folder, row["plan"], Decision(DECLINED, by, reason), clock=now)
    told = "declined; nothing more is done for it, and what was charged stays spent"
    typer.echo(f"{plain(row['name'])}: {told if fresh else 'was declined before'}")


def _print(row: Mapping[str, Any]) -> None:
    typer.echo(plain(f"{row['name']}  {row['plan']}  {row['state']}"))
    for title, text in _lines(row):
        typer.echo(plain(f"  {title:<13}{text}"))


def _lines(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a person weighs, a line each: its title and its text."""
    what = f"with a model of family {row['family']}" if row["family"] != "none" else "with no model"
    yield "for", f"{row['purpose']}, {what}; until {row['expires']}"
    if row["matching"] is not None:
        noisy = "noisy and charged" if row["matching"]["gives"] == "counts" else "a disclosure, which no epsilon covers"
        yield "matches", f"customers by {row['matching']['by']}; gives {row['matching']['gives']}: {noisy}"
    yield "with", f"{', '.join(row['partners'])}; trust {row['trust']}"
    yield "asks for", f"epsilon {row['epsilon']:g} in all at delta {row['delta']:g}, for a {row['unit']}"
    decision = row["decision"]
    if decision is not None:
        because = f": {decision['reason']}" if decision["reason"] else ""
        yield decision["decision"], f"by {decision['by']} at {decision['at']}{because}"
    if "reads" not in row:
        return
    for cost in _binding(row["budgets"]):
        group, _, segment = cost["group"].partition("/")
        among = f" of {segment.replace('/', ', ')}" if segment else ""
        yield (
            "costs",
            f"{_GROUPS[group]} customers{among}: epsilon {cost['asked']:.2g} of your remaining {cost['left']:.3g} "
            f"({cost['budget']}); {cost['runs_left']} more like this",
        )
    yield "reads", _read(row["reads"])
    yield "would leave", "at most " + ", ".join(f"{kind['count']} {kind['what']}" for kind in row["leaves"])
    for reason in row["reasons"]:
        yield "but", reason


def _binding(budgets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each customer group, the budget that carries the fewest studies like this one."""
    least: dict[str, dict[str, Any]] = {}
    for row in budgets:
        best = least.setdefault(row["group"], row)
        if (row["runs_left"], row["left"]) < (best["runs_left"], best["left"]):
            least[row["group"]] = row
    return list(least.values())


def _read(reads: Mapping[str, Any]) -> str:
    """Return what a study would read, in words."""
    special = set(reads["special"])
    columns = ", ".join(name + (" (special)" if name in special else "") for name in reads["columns"])
    if reads["identifier"]:
        columns = ", ".join([f"identifiers of kind {reads['identifier']}", *([columns] if columns else [])])
    label = f"; label {reads['label']}" if reads["label"] else ""
    whom = "segments " + ", ".join(reads["segments"]) if reads["segments"] else "all customers"
    least = f"of at least {reads['minimum_customers']} in training"
    return f"{columns}{label}; {whom}, named by {reads['customer']}, {least}"
