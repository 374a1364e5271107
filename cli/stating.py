"""`coterie audit statement`: what studies guarantee, with the estimated shares of people at several partners."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.privacy.plain import plain

if TYPE_CHECKING:
    from coterie.privacy.overlaps import Counted
    from coterie.privacy.review.verdict import Verdict

__all__ = ["overlaps_of", "show_overlaps", "statement"]

_BUNDLES = typer.Argument(help="Bundles of one partner, or of all partners of a study.")
_OVERLAP = typer.Option(help="Noisy counts of shared customers, as a match wrote them; may be given several times.")
_CODES = {"holds": 0, "fails": 1, "open": 3}
_LARGEST = 1 << 20  # of a file of counts


def statement(
    bundles: Annotated[list[Path], _BUNDLES],
    overlap: Annotated[list[Path] | None, _OVERLAP] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Print what each study in bundles guarantees, to whom, and what no epsilon covers.

    With --overlap, the table by number of partners has the estimated share of the people that each line is about.

    Exit codes: 0 all checks hold, 1 at least one fails, 2 not a bundle or no counts, 3 something could not be decided.

    Example: coterie audit statement bank.bundle --overlap overlap.json
    """
    from coterie.privacy.review.traced import statements
    from coterie.privacy.review.verify import verify_bundle

    verdicts = [verify_bundle(path) for path in bundles]
    counted, statuses = overlaps_of(overlap or [], verdicts)
    told = statements(verdicts, counted)
    if as_json:
        shown = [{"partner": v.partner, "status": v.status, "verdict": v.line} for v in verdicts]
        typer.echo(json.dumps({"bundles": shown, "statements": told, "overlaps": statuses}))
    else:
        for verdict in verdicts:
            typer.echo(plain(f"{verdict.partner}: {verdict.line}"))
        show_overlaps(overlap or [], counted)
        for one in told:
            _show(one)
    raise typer.Exit(_code([*(verdict.status for verdict in verdicts), *statuses]))


def overlaps_of(paths: Sequence[Path], verdicts: "Sequence[Verdict]") -> "tuple[list[Counted], list[str]]":
    """Read files of counts and say where each comes from.

    Args:
        paths: The files.
        verdicts: Reviews of the bundles beside them.

    Returns:
        The counts; and "holds", "fails" or "open" for each.

    Raises:
        FileFault: A file is not readable, or holds something else.
    """
    from coterie.privacy.errors import Fault, FileFault
    from coterie.privacy.overlaps import read_overlap
    from coterie.privacy.review.traced import traced

    found = []
    for path in paths:
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        except OSError as error:
            raise FileFault(Fault(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
        found.append(traced(read_overlap(data[:_LARGEST], place=str(path)), verdicts))
    return [counted for counted, _ in found], [status for _, status in found]


def show_overlaps(paths: Sequence[Path], counted: "Sequence[Counted]") -> None:
    """Print where each file of counts comes from."""
    for path, one in zip(paths, counted, strict=True):
        typer.echo(plain(f"counts in {path}, counted by {one.partner}: {one.checked}"))


def _show(one: dict[str, Any]) -> None:
    """Print one study's statement."""
    from coterie.cli.show import print_table

    typer.echo()
    typer.echo(plain(f"{one['name']}, for {one['purpose']}"))
    for text in one["words"]:
        typer.echo(plain(f"  {text}"))
    titles = ["partners that have the person", "epsilon at most"]
    counted = "overlap" in one
    titles += ["persons, estimated", "standard deviation", "share, estimated"] if counted else []
    print_table("By number of partners", titles, [_cells(row) for row in one["multiplicity"]])
    for text in one["overlap"]["words"] if counted else ():
        typer.echo(plain(f"  {text}"))
    typer.echo("  Not covered:")
    for text in one["not_covered"]:
        typer.echo(plain(f"  - {text}"))


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    first = (row["partners"], "none" if row["epsilon"] is None else f"{row['epsilon']:.3g}")
    if "customers" not in row:
        return first
    people = "below the least" if row["customers"] is None else f"{row['customers']:,}"
    share = "-" if row["share"] is None else f"{100 * row['share']:.1f} %"
    return (*first, people, f"{row['deviation']:,.0f}", share)


def _code(statuses: Sequence[str]) -> int:
    decided = max((_CODES[status] for status in statuses if status != "open"), default=0)
    return decided or (_CODES["open"] if "open" in statuses else 0)
