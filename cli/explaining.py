"""`coterie partner explain`: what a published model says, whole."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.partner import app as partner
from coterie.cli.show import print_table
from coterie.privacy.errors import Fault, FileFault

if TYPE_CHECKING:
    from coterie.models.shapes import Explanation, Point

__all__: list[str] = []


@partner.command("explain")
def explain(
    model: Annotated[Path, typer.Argument(help="A published model on bins, additive or logistic.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what a model says: what every bin and word adds to the log-odds, and how much of that may be noise.

    Example: coterie partner explain model.safetensors
    """
    from coterie.clients.explaining import explained
    from coterie.clients.scoring import published_model

    held, plan = published_model(model)
    found = explained(plan, held.weights)
    if found is None:
        rule, fix = "is of a kind that its weights alone do not explain", "see the reasons: coterie partner score"
        raise FileFault(Fault(str(model), rule, fix))
    if as_json:
        typer.echo(json.dumps(_plain(found)))
        return
    typer.echo(f"log-odds: {found.intercept:+.2f} and what each column adds")
    for shape in found.shapes:
        trend = {1: ", may only rise", -1: ", may only fall"}.get(shape.trend, "")
        rows = [_row(point) for point in shape.points]
        columns = ("holds", "noisy share", "adds", "± by noise, from", "to about", "± by sampling")
        print_table(f"{shape.name}: {shape.importance:.2f} on average{trend}", columns, rows)
    for pair in found.pairs:
        groups = (pair.names[0], *(text for text in pair.groups[1] if text))
        lines = [
            (text, *(f"{value:+.2f}" for value, held_ in zip(line, pair.groups[1], strict=True) if held_))
            for text, line in zip(pair.groups[0], pair.contribution.tolist(), strict=True)
            if text
        ]
        print_table(f"{' * '.join(pair.names)}: {pair.importance:.2f} on average", groups, lines)


def _row(point: "Point") -> tuple[str, ...]:
    noise, most = ("-" if value is None else f"{value:.2f}" for value in (point.noise, point.noise_most))
    return point.label, f"{100 * point.share:.1f} %", f"{point.contribution:+.2f}", noise, most, f"{point.sampling:.2f}"


def _plain(found: "Explanation") -> dict[str, Any]:
    """Return an explanation as JSON has it."""
    told = dataclasses.asdict(found)
    for pair in told["pairs"]:
        pair.update({name: value.tolist() for name, value in pair.items() if hasattr(value, "tolist")})
    return told
