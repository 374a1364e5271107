"""The page and the picture of a match that counted, deployed and simulated alike: noisy counts, and nothing exact.

What exists in simulation alone, the exact counts, is marked as that and stands apart.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from coterie.privacy.matching.overlap import Estimate, Overlap
from coterie.privacy.overlaps import shares
from coterie.simulations.report.drawing import counted, named
from coterie.simulations.report.layout import Table, fill
from coterie.simulations.report.upset import MOST, drawn, multiplicity_bars, pairs_matrix, upset
from coterie.simulations.report.venndiagram import venn_diagram
from coterie.simulations.report.wording import MISSING

__all__ = ["overlap_page", "overlap_svg"]

_CIRCLES = 3  # partners that circles can show


def overlap_svg(overlap: Overlap) -> str:
    """Draw noisy counts: circles for two or three partners, bars and dots for more.

    Args:
        overlap: The counts.

    Returns:
        A whole SVG document that loads nothing; the same for the same counts.
    """
    return str(_picture(overlap))


def overlap_page(
    overlap: Overlap,
    title: str,
    *,
    words: Sequence[str] = (),
    exact: Mapping[frozenset[str], int] | None = None,
) -> str:
    """Draw noisy counts as one self-contained page: picture, numbers of partners, pairs, and all cells as a table.

    Args:
        overlap: The counts.
        title: What the page is called; the match's name.
        words: Sentences on what protects the customers, as the statement of the match has them.
        exact: Exact customers of exactly these partners; exists in simulation alone, and is marked so.

    Returns:
        HTML that needs no other file, no script and no network.
    """
    share = shares(overlap)
    known = [one for one in share[1:] if one is not None]
    several = f"{100 * sum(known):.1f} %" if known else MISSING
    context = {
        "title": title,
        "headline": _headline(overlap, several if known else ""),
        "keys": _keys(overlap, several),
        "words": list(words),
        "least": overlap.least,
        "circles": len(overlap.names) <= _CIRCLES,
        "hidden": sum(one.customers is None for one in overlap.cells),
        "beyond": sum(one.customers is not None for one in overlap.cells) - len(drawn(overlap)),
        "most": MOST,
        "picture": _picture(overlap),
        "multiplicity": multiplicity_bars(overlap, share),
        "pairs": pairs_matrix(overlap),
        "cells": _cells(overlap),
        "simulation": _compared(overlap, exact) if exact is not None else None,
    }
    return fill("overlap.html", context)


def _picture(overlap: Overlap) -> Markup:
    return venn_diagram(overlap) if len(overlap.names) <= _CIRCLES else upset(overlap)


def _headline(overlap: Overlap, several: str) -> str:
    count = len(overlap.names)
    if not several:
        return f"How many customers {count} partners share: every count of several is below {overlap.least:,}."
    return f"An estimated {several} of the people who are customers of {count} partners have two of them or more."


def _keys(overlap: Overlap, several: str) -> list[tuple[str, str, str]]:
    printed = sum(one.customers is not None for one in overlap.cells)
    return [
        ("Of two partners or more", several, "estimated share of all persons"),
        ("Partners", str(len(overlap.names)), "each with its own list and its own noise"),
        ("Noise", f"σ = {overlap.sigma:,.4g}", "scale, in customers, of one partner’s part of a cell"),
        ("Sets printed", f"{printed} of {len(overlap.cells)}", f"none that is below {overlap.least:,} with its noise"),
    ]


def _cells(overlap: Overlap) -> Table:
    """Return every set of partners, the largest first, and those below the least last."""
    ordered = sorted(overlap.cells, key=lambda one: -(one.customers if one.customers is not None else -1))
    rows = [
        [_joined(one), str(len(one.partners)), counted(one, overlap.least), f"{one.deviation:,.1f}"] for one in ordered
    ]
    head = ["Customers of exactly", "Partners", "Noisy count", "Standard deviation"]
    return Table("Every set of partners, with its noisy count", head, rows)


def _compared(overlap: Overlap, exact: Mapping[frozenset[str], int]) -> Table:
    rows = []
    for one in overlap.cells:
        truth = exact.get(frozenset(one.partners), 0)
        off = MISSING if one.customers is None else f"{one.customers - truth:+,}".replace("-", "−")
        rows.append([_joined(one), f"{truth:,}", counted(one, overlap.least), off, f"{one.deviation:,.1f}"])
    head = ["Customers of exactly", "Exact", "Noisy", "Off by", "Standard deviation"]
    return Table("Exact and noisy counts", head, rows)


def _joined(one: Estimate) -> str:
    return ", ".join(named(name, 40) for name in one.partners)
