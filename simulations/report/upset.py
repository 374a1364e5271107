"""Bars for the customers of many partners: a column for each set of them, and dots that say which partners it has.

After Lex, Gehlenborg, Strobelt, Vuillemot and Pfister, UpSet: visualization of intersecting sets, IEEE TVCG 2014.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from coterie.privacy.matching.overlap import Estimate, Overlap
from coterie.simulations.report.drawing import HUES, counted, named, room_of, svg, text
from coterie.simulations.report.palette import GRID, INK, QUIET

__all__ = ["MOST", "drawn", "multiplicity_bars", "pairs_matrix", "upset"]

MOST = 24
"""Columns of the picture; further sets are in the table."""

_TOP, _BARS, _ROW, _COLUMN = 84.0, 210.0, 26.0, 33.0
_BLUE = HUES[0]
_HIGHEST = 0.86  # of the shade: black text would not be read on a darker one


def drawn(overlap: Overlap) -> tuple[Estimate, ...]:
    """Return the sets that have a column: those that are not below the least, the largest first."""
    known = (one for one in overlap.cells if one.customers is not None)
    return tuple(sorted(known, key=lambda one: -(one.customers or 0))[:MOST])


def upset(overlap: Overlap) -> Markup:
    """Draw the counts of any number of partners.

    Args:
        overlap: The counts.

    Returns:
        An SVG element.
    """
    columns, names = drawn(overlap), [named(name) for name in overlap.names]
    totals = [counted(one, overlap.least) for one in overlap.totals]
    left = 30 + max(room_of(name, 14) for name in names) + max(room_of(total, 12.5) for total in totals)
    width = max(left + max(len(columns), 6) * _COLUMN + 26, 560)
    base = _TOP + _BARS
    height = base + 24 + len(names) * _ROW + 16
    parts = [text("customers of exactly the partners below", left, 18, size=12.5, anchor="start", colour=QUIET)]
    parts += _axis(columns, left, width)
    parts += _rows(names, totals, left=left, width=width)
    for at, one in enumerate(columns):
        parts += _column(overlap, one, across=left + (at + 0.5) * _COLUMN, top=_highest(columns))
    if not columns:
        parts.append(text("every set is below the least count that is printed", left + 12, base - 40, anchor="start"))
    told = "; ".join(
        f"{' and '.join(named(n) for n in one.partners)}: {counted(one, overlap.least)}" for one in columns
    )
    return svg((width, height), parts, said=f"Customers of exactly these partners, the largest sets. {told}.")


def multiplicity_bars(overlap: Overlap, shares: Sequence[float | None]) -> Markup:
    """Draw how many customers belong to exactly 1, 2, ... partners.

    Args:
        overlap: The counts.
        shares: As `overlaps.shares` gives them.
    """
    left, room, row = 96.0, 320.0, 34.0
    top = max((one.customers or 0 for one in overlap.multiplicity), default=0) or 1
    parts = []
    for at, (one, share) in enumerate(zip(overlap.multiplicity, shares, strict=True)):
        y = 14 + at * row
        parts.append(text(f"{at + 1} partner{'s' if at else ''}", left - 12, y + 17, anchor="end"))
        length = room * (one.customers or 0) / top
        parts += [_bar(left, y + 3, (max(length, 1.0), 20.0))] if one.customers is not None else []
        told = counted(one, overlap.least)
        told += f" ± {one.deviation:,.0f}" if one.customers is not None else ""
        told += f"  ({100 * share:.1f} %)" if share is not None else ""
        parts.append(text(told, left + length + 10, y + 18, size=13, anchor="start"))
    said = "; ".join(f"{k}: {counted(one, overlap.least)}" for k, one in enumerate(overlap.multiplicity, start=1))
    size = (left + room + 230, 28 + row * len(overlap.multiplicity))
    return svg(size, parts, said=f"Customers by how many partners they have. {said}.")


def pairs_matrix(overlap: Overlap) -> Markup:
    """Draw how many customers each two partners share; a darker field is a larger count.

    Args:
        overlap: The counts.
    """
    names = [named(name, 18) for name in overlap.names]
    pairs = {one.partners: one for one in overlap.pairs}
    left, side, rise = 18 + max(room_of(name, 14) for name in names), 84.0, 40.0
    top = 18 + max(room_of(name, 14) for name in names) * math.sin(math.radians(32))
    most = max((one.customers or 0 for one in overlap.pairs), default=0) or 1
    parts = []
    for at, name in enumerate(names):
        parts.append(text(name, left - 10, top + (at + 0.5) * rise + 5, anchor="end"))
        turned = Markup('<text transform="translate({:.1f} {:.1f}) rotate(-32)" font-size="14" fill="{}">{}</text>')
        parts.append(turned.format(left + (at + 0.42) * side, top - 8, INK, name))
        for other in range(len(names)):
            first, second = sorted((at, other))
            one = overlap.totals[at] if at == other else pairs[overlap.names[first], overlap.names[second]]
            where = (left + other * side, top + at * rise)
            shade = 0.0 if at == other else _HIGHEST * 0.6 * (one.customers or 0) / most
            parts += _field(one, overlap.least, where=where, size=(side, rise), shade=shade)
    size = (left + side * len(names) + 18 + room_of(names[-1], 14) * 0.7, top + rise * len(names) + 14)
    said = "; ".join(f"{' and '.join(named(n) for n in p)}: {counted(one, overlap.least)}" for p, one in pairs.items())
    return svg(size, parts, said=f"Customers of both partners. {said}.")


def _field(
    one: Estimate, least: int, *, where: tuple[float, float], size: tuple[float, float], shade: float
) -> list[Markup]:
    (x, y), (width, height) = where, size
    box = Markup('<rect x="{:.1f}" y="{:.1f}" width="{}" height="{}" fill="{}" fill-opacity="{:.2f}" stroke="{}"/>')
    told = text(counted(one, least), x + width / 2, y + height / 2 + 5, size=13, colour=INK if shade else QUIET)
    return [box.format(x, y, width, height, _BLUE, shade, GRID), told]


def _highest(columns: Sequence[Estimate]) -> float:
    """Return what the axis ends with: a round number above all bars."""
    most = max((one.customers or 0 for one in columns), default=0) or 1
    power = 10 ** math.floor(math.log10(most))
    return next(float(power * step) for step in (1, 2, 3, 4, 5, 6, 8, 10) if power * step >= most)


def _axis(columns: Sequence[Estimate], left: float, width: float) -> list[Markup]:
    """Return lines across the bars, with what they stand for."""
    parts, top = [], _highest(columns)
    line = Markup('<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" stroke="{}"/>')
    for share in (0.0, 0.5, 1.0) if columns else (0.0,):
        y = _TOP + _BARS * (1 - share)
        parts.append(line.format(left, width - 14, y, y, QUIET if share == 0 else GRID))
        parts.append(text(f"{top * share:,.0f}", left - 8, y + 4, size=12, anchor="end", colour=QUIET))
    return parts


def _rows(names: Sequence[str], totals: Sequence[str], *, left: float, width: float) -> list[Markup]:
    """Return the partners, each with all its customers, on bands that lead the eye."""
    parts, base = [], _TOP + _BARS + 24
    for at, (name, total) in enumerate(zip(names, totals, strict=True)):
        y = base + at * _ROW
        band = Markup('<rect x="8" y="{:.1f}" width="{:.1f}" height="{}" fill="{}" fill-opacity="{}"/>')
        parts.append(band.format(y, width - 16, _ROW, GRID, 0.45 if at % 2 == 0 else 0))
        parts.append(text(name, 14, y + 18, anchor="start"))
        parts.append(text(total, left - 8, y + 18, size=12.5, anchor="end", colour=QUIET))
    return parts


def _column(overlap: Overlap, one: Estimate, *, across: float, top: float) -> list[Markup]:
    """Return one set's bar with its noise, its count, and its dots."""
    base, customers = _TOP + _BARS, one.customers or 0
    height, noise = _BARS * customers / top, _BARS * one.deviation / top
    parts = [_bar(across - 10, base - height, (20.0, max(height, 0.5)))]
    low, high = min(base, base - height + noise), base - height - noise
    whisker = Markup(
        '<path d="M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}h6M{3:.1f} {2:.1f}h6" stroke="{4}" fill="none"/>'
    )
    parts.append(whisker.format(across, low, high, across - 3, INK))
    turned = Markup('<text transform="translate({:.1f} {:.1f}) rotate(-90)" font-size="12.5" fill="{}">{}</text>')
    parts.append(turned.format(across + 4.5, high - 6, INK, f"{customers:,}"))
    places = [at for at, name in enumerate(overlap.names) if name in one.partners]
    rows = [base + 24 + (at + 0.5) * _ROW for at in range(len(overlap.names))]
    stem = Markup('<line x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}" stroke="{3}" stroke-width="2.5"/>')
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}"/>')
    parts += [dot.format(across, y, 3.5, GRID) for y in rows]
    parts.append(stem.format(across, rows[places[0]], rows[places[-1]], INK))
    return [*parts, *(dot.format(across, rows[at], 6, INK) for at in places)]


def _bar(x: float, y: float, size: tuple[float, float]) -> Markup:
    bar = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>')
    return bar.format(x, y, *size, _BLUE)
