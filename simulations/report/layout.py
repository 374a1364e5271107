"""The templates of the pages, and what they are filled with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from coterie.privacy.errors import Fault, FileFault
from coterie.simulations.report import wording
from coterie.simulations.report.palette import swatch

__all__ = [
    "FORMAT",
    "Table",
    "exact_of",
    "fill",
    "final_round",
    "main_metric",
    "matches",
    "ranks",
    "released_metrics",
    "report_of",
]

FORMAT = "coterie/report/v1"

_FILTERS = {
    "count": wording.count,
    "decimals": wording.decimals,
    "delta": wording.delta,
    "epsilon": wording.epsilon,
    "label": wording.label,
    "plain": wording.plain,
    "swatch": swatch,
}


@dataclass(frozen=True)
class Table:
    """A table whose cells are already written.

    Args:
        caption: What it shows.
        head: Names of the columns.
        rows: Cells by row; the first of each row names it.
        words: How many columns, from the left, hold words rather than figures.
        empty: Sentence that stands in for a table without rows.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    empty: str = ""


def report_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document that is a report of the format that the pages are drawn from.

    Args:
        document: What a report file holds.

    Returns:
        The document itself.

    Raises:
        FileFault: It is of another format.
    """
    if document.get("format") != FORMAT:
        rule = f"must be {FORMAT}"
        raise FileFault(Fault("report.json: format", rule, "draw it with the version of coterie that made it"))
    return document


def final_round(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metrics that the last round released; nothing where no round did."""
    rounds = report["release"]["rounds"]
    return rounds[-1] if rounds else {}


def ranks(report: Mapping[str, Any]) -> bool:
    """Return whether a report is of a study that recommends."""
    return bool(report["study"].get("task") == "recommendation")


def matches(report: Mapping[str, Any]) -> bool:
    """Return whether a report is of a study that matches customers and trains nothing."""
    return bool(report["study"].get("task") == "matching")


def main_metric(report: Mapping[str, Any]) -> str:
    """Return the name of the metric by which a report's models are compared."""
    return wording.RELEASED_RANKS[0] if ranks(report) else wording.RELEASED[0]


def released_metrics(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the metrics that a report's study releases."""
    return wording.RELEASED_RANKS if ranks(report) else wording.RELEASED


def exact_of(report: Mapping[str, Any]) -> str:
    """Return what a report's exact figures are computed from, in a word."""
    return "items" if ranks(report) else "labels"


def fill(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of this package.

    Args:
        template: File name of the template.
        context: Its variables.

    Returns:
        One self-contained HTML page.
    """
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(_FILTERS)
    style = Markup(_read("page.css"))  # noqa: S704 - the package's own file
    return environment.get_template(template).render(context, style=style, format=FORMAT)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
