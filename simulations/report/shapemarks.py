"""The marks of a numeric column's shape: its bands, its steps, and how many customers each step has."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from coterie.simulations.report.palette import OURS, QUIET, look
from coterie.simulations.report.wording import percent

__all__ = ["band", "clear", "ordinal", "sizes", "slot_bars", "step", "steps_of", "upper", "within"]

Point = Mapping[str, Any]
Places = Sequence[tuple[float, float]]

_STRIP = 0.15  # of the height, for how many customers there are
_UNEVEN = 40  # times the narrowest bin: too narrow to be seen beside the widest


def clear(point: Point) -> bool:
    """Return whether a contribution is more than two standard deviations of the most noise from 0."""
    return point["noise_most"] is None or abs(point["contribution"]) > 2 * point["noise_most"]


def sizes(point: Point) -> tuple[float, float]:
    """Return half the widths of a slot's two bands: of the most noise with sampling, and of noise alone."""
    return 2 * math.hypot(point["noise_most"] or 0.0, point["sampling"]), 2 * (point["noise"] or 0.0)


def steps_of(column: Mapping[str, Any]) -> bool:
    """Return whether a numeric column's bins are too uneven to be drawn as wide as they are."""
    widths = [point["high"] - point["low"] for point in column["points"] if point["kind"] == "bin"]
    uneven = bool(widths) and max(widths) > _UNEVEN * min(widths)
    return column.get("spacing") == "log" or (column.get("spacing") == "edges" and uneven)


def ordinal(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return places of one width for every slot, one after the other."""
    return [(float(at), at + 1.0) for at in range(len(points))]


def within(points: Sequence[Point]) -> tuple[float, float]:
    """Return limits of contributions: those of slots with customers are seen whole, of others hardly more.

    A slot with hardly any customers may have any weight, and would leave the others flat.
    """
    ends = [0.0]
    for point in points:
        told, size = point["contribution"], 2 * (point["noise_most"] or 0.0)
        if point["share"] >= 0.01:
            ends += [told - size, told + size]
        elif point["share"] >= 0.004:
            ends.append(told)
    if len(ends) == 1:
        ends += [point["contribution"] for point in points]
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low) or 0.5
    return low - room, high + room


def upper(low: float, high: float) -> list[float]:
    """Return round numbers between limits, for the ticks."""
    return [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]


def band(axes: Axes, point: Point, begin: float, *, end: float, least: float) -> None:
    """Draw a slot's two bands, from where it begins to its end; an atom's about its value.

    Args:
        axes: Where to draw.
        point: The slot.
        begin: On the horizontal axis.
        end: Likewise.
        least: Least width.
    """
    begin, end = _wide(begin, end, least)
    told, pale = point["contribution"], 1.0 if clear(point) else 0.4
    for size, alpha in zip(sizes(point), (0.14 * pale, 0.26 * pale), strict=True):
        box = Rectangle((begin, told - size), end - begin, 2 * size, color=look(OURS).colour, alpha=alpha, lw=0)
        axes.add_patch(box)


def step(axes: Axes, points: Sequence[Point], places: Places, *, least: float) -> None:
    """Draw bins as steps, pale where they are not clear of the noise.

    Args:
        axes: Where to draw.
        points: The slots.
        places: Where each begins and ends.
        least: Least width of a step.
    """
    colour, bins = look(OURS).colour, [at for at, point in enumerate(points) if point["kind"] == "bin"]
    for one, two in itertools.pairwise(bins):
        if places[one][1] == places[two][0]:
            heights = [points[one]["contribution"], points[two]["contribution"]]
            axes.plot([places[two][0]] * 2, heights, color=colour, lw=0.9, alpha=0.4)
    for at in bins:
        height, sure = points[at]["contribution"], clear(points[at])
        axes.plot(
            _wide(*places[at], least),
            [height, height],
            color=colour,
            lw=2.2 if sure else 1.6,
            alpha=1.0 if sure else 0.45,
        )


def slot_bars(axes: Axes, points: Sequence[Point], places: Places, *, least: float) -> None:
    """Draw shares of customers as bars along the bottom; the highest share is written above.

    Args:
        axes: Where to draw.
        points: The slots.
        places: Where each begins and ends.
        least: Least width of a bar.
    """
    across, most = axes.get_xaxis_transform(), max([point["share"] for point in points] + [1e-9])
    for point, (begin, end) in zip(points, places, strict=True):
        begin_, end_ = _wide(begin, end, least)
        height = _STRIP * max(point["share"], 0.0) / most
        gap = 0.06 * (end_ - begin_)
        box = Rectangle((begin_ + gap, 0.0), end_ - begin_ - 2 * gap, height, color=QUIET, alpha=0.38, lw=0)
        box.set_transform(across)
        axes.add_patch(box)
    axes.text(
        0.004, _STRIP + 0.035, f"customers, up to {percent(most)}", transform=axes.transAxes, color=QUIET, fontsize=11
    )


def _wide(begin: float, end: float, least: float) -> tuple[float, float]:
    middle, half = (begin + end) / 2, max(end - begin, least) / 2
    return middle - half, middle + half
