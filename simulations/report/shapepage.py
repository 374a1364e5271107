"""What the page of a propensity study says of a model that can be told whole: the explanation is the model."""

from collections.abc import Mapping
from typing import Any

from coterie.simulations.report.canvas import Sheet
from coterie.simulations.report.layout import Table
from coterie.simulations.report.shapefigures import importance_figure, numbers_figure, pair_figure, words_figure
from coterie.simulations.report.wording import MISSING, count, decimals, percent

__all__ = ["shapes"]

_MOST = 24  # pictures of columns, and as many of pairs
_BARS = 20
_WORDS = 18
_LEAST = 0.002  # of customers: what fewer have is in the table alone
_TRENDS = {1: " It may only rise.", -1: " It may only fall."}


def shapes(release: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the section "What the model says" shows; None in a report without shapes.

    Args:
        release: A report's charged figures.
    """
    held = release.get("shapes")
    if held is None:
        return None
    columns, pairs = held["columns"], held["pairs"]
    ranked = [(one["name"], one["importance"]) for one in columns]
    ranked += [(" × ".join(one["names"]), one["importance"]) for one in pairs]
    ranked = sorted(ranked, key=lambda one: -one[1])[:_BARS]
    alt = "How much each column moves the log-odds on average: " + ", ".join(name for name, _ in ranked[:5]) + "."
    return {
        "intercept": decimals(held["intercept"], 2),
        "customers": count(held["customers"]),
        "importance": importance_figure(ranked, Sheet("importance", alt, height=84 + 26 * len(ranked))),
        "pictures": [_picture(at, one) for at, one in enumerate(columns[:_MOST], start=1)],
        "pairs": [_field(at, one) for at, one in enumerate(pairs[:_MOST], start=1)],
        "hidden": len(columns[_MOST:]) + len(pairs[_MOST:]),
        "slots": _slots(columns),
    }


def _picture(at: int, column: Mapping[str, Any]) -> dict[str, Any]:
    name, size = column["name"], decimals(column["importance"], 2)
    about = f"{size} on average." + _TRENDS.get(column["trend"], "")
    alt = f"What {name} adds to the log-odds, {about}"
    if column["kind"] == "numeric":
        return {"title": f"{name}:", "about": about, "drawing": numbers_figure(column, Sheet(f"shape-{at}", alt))}
    words = [point for point in column["points"] if point["share"] >= _LEAST] or column["points"]
    shown = sorted(words, key=lambda point: -point["share"])[:_WORDS]
    if len(words) > len(shown):
        about += f" The {len(shown)} most frequent of {len(words)}."
    shown.sort(key=lambda point: -point["contribution"])
    sheet = Sheet(f"shape-{at}", alt, height=84 + 25 * len(shown))
    return {"title": f"{name}:", "about": about, "drawing": words_figure(shown, sheet)}


def _field(at: int, pair: Mapping[str, Any]) -> dict[str, Any]:
    name = " × ".join(pair["names"])
    about = f"{decimals(pair['importance'], 2)} on average, beyond what each adds alone; "
    about += "in brackets where not clear of the noise."
    sheet = Sheet(f"pair-{at}", f"What {name} adds to the log-odds, {about}", height=350)
    return {"title": f"{name}:", "about": about, "drawing": pair_figure(pair, sheet)}


def _slots(columns: list[Mapping[str, Any]]) -> Table:
    rows = [
        [
            column["name"],
            point["label"],
            percent(point["share"]),
            ("+" if point["contribution"] > 0 else "") + decimals(point["contribution"], 2),
            _noise(point),
            decimals(point["sampling"], 2),
        ]
        for column in columns
        for point in column["points"]
    ]
    about = "The whole model: what every bin and word adds, and about how far noise may have moved it"
    head = ["Column", "Holds", "Noisy share", "Adds", "± by noise", "± by sampling"]
    return Table(about, head, rows, words=2)


def _noise(point: Mapping[str, Any]) -> str:
    if point["noise"] is None or point["noise_most"] is None:
        return MISSING
    return f"{decimals(point['noise'], 2)} to {decimals(point['noise_most'], 2)}"
