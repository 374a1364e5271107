"""A study of the books on the terminal: rounds as they are published, and how it ends."""

import threading
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from coterie.cli.show import console

if TYPE_CHECKING:
    from coterie.server.books import Books

__all__ = ["follow"]

_LOOK = 0.5


def follow(books: "Books", digest: str, *, coordinator: str) -> None:
    """Show a study's rounds until it ends.

    Args:
        books: Open.
        digest: Of the plan.
        coordinator: The public key that signed it.

    Raises:
        Exit: It ended without a model, or nobody wants to wait any longer.
    """
    from coterie.privacy.signed import SignedPlan
    from coterie.server.bookrows import ENDED, FINISHED

    study = books.study(digest)
    plan = SignedPlan.from_bytes(study.signed, coordinator=coordinator).plan
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[note]}", style="dim"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(study.name, total=plan.training.rounds, note=study.status)
        try:
            while (study := books.study(digest)).status not in ENDED:
                rounds = books.rounds(digest)
                note = f"{len(rounds[-1].cohort)} partners, {rounds[-1].seconds:.1f} s" if rounds else study.status
                bars.update(bar, completed=len(rounds), note=note)
                threading.Event().wait(_LOOK)
        except KeyboardInterrupt:
            typer.echo(f"{study.name}: goes on without you; see: coterie coordinator studies FOLDER", err=True)
            raise typer.Exit(130) from None
        bars.update(bar, completed=len(books.rounds(digest)), note=study.status)
    typer.echo(f"{study.name}: {study.status}" + (f": {study.reason}" if study.reason else ""))
    missing = {(one.partner, one.code) for one in books.refusals(digest)}
    for name, code in sorted(missing):
        typer.echo(f"  {name}: {code}")
    if study.status != FINISHED:
        raise typer.Exit(1)
