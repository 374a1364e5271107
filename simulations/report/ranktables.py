"""The tables of a study that recommends."""

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.simulations.report.layout import Table
from coterie.simulations.report.tables import named
from coterie.simulations.report.wording import (
    MISSING,
    RELEASED_RANKS,
    count,
    decimals,
    difference,
    interval,
    label,
)

__all__ = ["exposure_table", "final_table", "gaps_table", "partners_table", "quality_table"]

_MAIN = RELEASED_RANKS[0]


def final_table(last: Mapping[str, Any]) -> Table:
    """Return the final round's charged metrics, how far noise and bins leave them open, and the floor's.

    Args:
        last: The last entry of the released rounds; empty where there is none.

    Returns:
        The table.
    """
    ranges, floor = last.get("ranges") or {}, last.get("floor") or {}
    rows = []
    for name in RELEASED_RANKS if last else ():
        held = ranges.get(name) or {}
        bounds = f"{decimals(held.get('low'))} to {decimals(held.get('high'))}" if held else MISSING
        figures = (last.get(name), held.get("error"), floor.get(name))
        value, error, least = (decimals(figure) for figure in figures)
        rows.append([label(name), value, error, bounds, least, difference(floor.get(name), last.get(name))])
    head = ["Metric", "Model", "Noise, one deviation", "By the bins’ ends", "Most popular", "Model less popular"]
    return Table("The final round, from noisy counts of places", head, rows, empty="No metric was released.")


def partners_table(partners: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]) -> Table:
    """Return every model's main metric on each partner's own customers.

    Args:
        partners: Partner, customers, how many were asked about, and models' figures.
        models: Key and title of each model.

    Returns:
        The table.
    """
    rows = [
        [partner["partner"], count(partner.get("customers")), count(partner.get("asked"))]
        + [interval(_MAIN, partner["models"].get(model["key"])) for model in models]
        for partner in partners
    ]
    caption = f"{label(_MAIN)} on each partner’s own customers, with its 95 % confidence interval"
    return Table(caption, ["Partner", "Customers", "Asked about", *(named(model) for model in models)], rows)


def gaps_table(gaps: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> Table:
    """Return by how much the private federation is better than each other model, customer by customer."""
    rows = []
    for model in models:
        gap = gaps.get(model["key"])
        if gap is not None:
            signed = [difference(0.0, gap.get(end)) for end in ("mean", "low", "high")]
            rows.append([named(model), signed[0], f"{signed[1]} to {signed[2]}"])
    caption = f"By how much the private federation is better: {label(_MAIN)} on the same customers, first seed"
    return Table(caption, ["Held against", "Difference", "95 % interval (paired bootstrap)"], rows)


def exposure_table(attribute: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    """Return what each group of items has of everything.

    Args:
        attribute: By which public attribute items are divided.
        groups: Group, and its share of the catalogue, of what customers have, and of the lists.

    Returns:
        The table.
    """
    rows = [
        [
            group["group"],
            *(_percent(group[name]) for name in ("catalogue", "popularity", "exposure")),
            difference(_points(group["popularity"]), _points(group["exposure"]), write=lambda gap: decimals(gap, 1)),
        ]
        for group in groups
    ]
    head = [label(attribute), "Of the catalogue", "Of what customers have", "Of the lists", "Lists less customers"]
    return Table("What is shown, by group of items", head, rows, empty="The catalogue has no groups.")


def quality_table(by: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    """Return the main metric by group of customers, with its interval over the group's customers."""
    rows = [[group["group"], count(group.get("customers")), interval(_MAIN, group)] for group in groups]
    caption = f"{label(_MAIN)} by {by}, first seed, with its 95 % interval over customers"
    return Table(caption, [label(by), "Customers", label(_MAIN)], rows, empty="There are no groups.")


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{decimals(100 * share, 1)} %"


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share
