"""The figures of a study that recommends, each an inline SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, PercentFormatter

from coterie.simulations.report.canvas import Sheet, draw, end_labels, short
from coterie.simulations.report.figures import Curve
from coterie.simulations.report.marks import line
from coterie.simulations.report.palette import INK, OURS, QUIET, look

__all__ = ["exposure_figure", "hits_figure"]

_LONGEST = 50  # of the lists that are drawn
_LENGTHS = (1, 2, 5, 10, 20, 50)


def hits_figure(curves: Sequence[Curve], sheet: Sheet) -> Markup:
    """Draw the share of customers whose next item is in a list, against the list's length, which grows by doubling.

    Args:
        curves: Length and share, by model; two or fewer have their names written beside them.
        sheet: What to draw on.

    Returns:
        The figure.
    """

    def paint(axes: Axes) -> None:
        labels = []
        for one in curves:
            points = [point for point in one.points if point[0] <= _LONGEST]
            line(axes, [point[0] for point in points], up=[point[1] for point in points], key=one.key)
            labels += [(point[1], short(one.title, 26), look(one.key).colour) for point in points[-1:]]
        axes.set_xscale("log", base=2)
        axes.set(xlim=(0.93, 1.06 * _LONGEST), xlabel="length of the list, k", ylabel="customers whose item is in it")
        axes.axvline(10, color=QUIET, lw=0.9, ls=":")
        axes.xaxis.set_major_locator(FixedLocator(list(_LENGTHS)))
        axes.xaxis.set_minor_locator(FixedLocator([]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        if len(curves) <= 2:
            end_labels(axes, labels)

    return draw(sheet, paint)


def exposure_figure(groups: Sequence[Mapping[str, Any]], sheet: Sheet) -> Markup:
    """Draw what each group of items has of the catalogue, of what customers have, and of the places in lists.

    Args:
        groups: Group, and its share of each.
        sheet: What to draw on.

    Returns:
        The figure.
    """
    rows = {group["group"]: len(groups) - at for at, group in enumerate(groups)}
    colour = look(OURS).colour

    def paint(axes: Axes) -> None:
        for group in groups:
            height, has, shown = rows[group["group"]], group["popularity"], group["exposure"]
            if has is None or shown is None:
                continue
            axes.plot([has, shown], [height, height], color=colour, lw=1.4, alpha=0.5)
            axes.plot(group["catalogue"], height, "|", color=QUIET, ms=13, mew=1.6)
            axes.plot(has, height, "o", color=INK, mfc="none", ms=7, mew=1.4)
            axes.plot(shown, height, "o", color=colour, ms=7)
        axes.set(
            ylim=(0.3, len(groups) + 0.7), xlabel="share of the catalogue, of what customers have, and of the lists"
        )
        axes.set_xlim(left=-0.004)  # so that a dot at nothing is whole
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.yaxis.set_major_locator(FixedLocator(list(rows.values())))
        axes.set_yticklabels([short(name, 24) for name in rows], color=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)

    return draw(sheet, paint)
