"""Circles for the customers of two or three partners, with a noisy count in every cell."""

from collections.abc import Sequence

from markupsafe import Markup

from coterie.privacy.matching.overlap import Estimate, Overlap
from coterie.simulations.report.drawing import HUES, counted, estimate, label, named, svg, text
from coterie.simulations.report.palette import QUIET

__all__ = ["venn_diagram"]

_DASHES = ("none", "9 5", "2 4")  # the outline says again whose circle it is
_RADIUS = 150.0
_CENTRES = {2: ((260.0, 240.0), (420.0, 240.0)), 3: ((250.0, 240.0), (430.0, 240.0), (340.0, 396.0))}
_TITLES = {2: ((215.0, 46.0), (465.0, 46.0)), 3: ((195.0, 46.0), (485.0, 46.0), (340.0, 576.0))}
_SIZES = {2: (680.0, 420.0), 3: (680.0, 616.0)}
# Where the count of a cell stands, by the places of its partners in the roster.
_PLACES = {
    2: {(0,): (188.0, 240.0), (1,): (492.0, 240.0), (0, 1): (340.0, 240.0)},
    3: {
        (0,): (182.0, 208.0),
        (1,): (498.0, 208.0),
        (2,): (340.0, 478.0),
        (0, 1): (340.0, 182.0),
        (0, 2): (250.0, 340.0),
        (1, 2): (430.0, 340.0),
        (0, 1, 2): (340.0, 286.0),
    },
}


def venn_diagram(overlap: Overlap) -> Markup:
    """Draw the counts of two or three partners.

    Args:
        overlap: The counts.

    Returns:
        An SVG element; circles are all of one size, whatever the counts are.

    Raises:
        KeyError: There are more partners.
    """
    count = len(overlap.names)
    places = {tuple(overlap.names[at] for at in cell): place for cell, place in _PLACES[count].items()}
    parts = [_circle(at, centre) for at, centre in enumerate(_CENTRES[count])]
    for at, (name, (x, y)) in enumerate(zip(overlap.names, _TITLES[count], strict=True)):
        parts.append(label(named(name), x, y, size=16, colour=HUES[at]))
        parts.append(text(f"{counted(overlap.totals[at], overlap.least)} customers", x, y + 19, size=13, colour=QUIET))
    for one in overlap.cells:
        x, y = places[one.partners]
        parts.append(estimate(one, x, y, least=overlap.least))
    return svg(_SIZES[count], parts, said=_said(overlap.cells, overlap.least))


def _circle(at: int, centre: tuple[float, float]) -> Markup:
    circle = Markup(
        '<circle cx="{:.0f}" cy="{:.0f}" r="{:.0f}" fill="{}" fill-opacity="0.13" stroke="{}" stroke-width="2.2" '
        'stroke-dasharray="{}"/>'
    )
    return circle.format(*centre, _RADIUS, HUES[at], HUES[at], _DASHES[at])


def _said(cells: Sequence[Estimate], least: int) -> str:
    told = (f"{' and '.join(named(name) for name in one.partners)}: {counted(one, least)}" for one in cells)
    return f"Customers of exactly these partners. {'; '.join(told)}."
