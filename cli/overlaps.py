"""How many customers partners share, on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from coterie.cli.show import print_table
from coterie.privacy.plain import plain

__all__ = ["show_overlap"]

_TITLES = {
    "multiplicity": "Customers of exactly so many partners",
    "totals": "Customers of each partner",
    "pairs": "Customers of both partners, whoever else has them",
    "cells": "Customers of exactly these partners, and of no other",
}


def show_overlap(report: Mapping[str, Any]) -> None:
    """Print the counts of a report of a match: the noisy ones with their noise, and in a simulation the exact ones.

    Args:
        report: Of the format coterie/report/v1.
    """
    bound, overlap, held = report["guarantee"]["study"], report["release"]["overlap"], report["simulation"]
    epsilon = "unknown" if bound["epsilon"] is None else f"{bound['epsilon']:.3g}"
    typer.echo(
        f"\n{plain(report['study']['name'])}: charged and released: how many customers partners share; epsilon "
        f"{epsilon} at delta {bound['delta']:g} per {bound['unit']}\n"
    )
    for name, title in _TITLES.items():
        _print(title, overlap[name], None if held is None else held["exact"][name], least=overlap["least"])
    if held is not None:
        typer.echo("simulation only, from everybody's identifiers at once:")
        for sentence in held["verdict"]:
            typer.echo(f"- {sentence}")
    for refusal in report["release"]["refusals"]:
        typer.echo(plain(f"  {refusal['partner']}: {refusal['code']} ({refusal['step']})"))


def _print(
    title: str, noisy: Sequence[Mapping[str, Any]], exact: Sequence[Mapping[str, Any]] | None, *, least: int
) -> None:
    """Print the counts that are told, and how many are not."""
    head, rows = ["partners", "released", "noise, one deviation"], []
    if exact is not None:
        head.append("exact (simulation only)")
    for place, one in enumerate(noisy):
        if one["customers"] is not None:
            truth = [] if exact is None else [f"{exact[place]['customers']:,}"]
            rows.append([" + ".join(one["partners"]), f"{one['customers']:,}", f"{one['deviation']:.1f}", *truth])
    untold = len(noisy) - len(rows)
    print_table(f"{title}; {untold} of {len(noisy)} are below {least} and not told" if untold else title, head, rows)
