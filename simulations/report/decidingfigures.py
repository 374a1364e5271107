"""The figures that say what to do with a model, and whom it serves how, each an inline SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from coterie.simulations.report.canvas import Sheet, draw, short
from coterie.simulations.report.palette import INK, OURS, QUIET, WHITE, look
from coterie.simulations.report.wording import percent

__all__ = ["group_figure", "profit_figure", "reach_figure"]

_SHARES = ("calibration", "selected", "reached")


def reach_figure(reach: Sequence[Sequence[float | None]], budgets: Sequence[Mapping[str, Any]], sheet: Sheet) -> Markup:
    """Draw the share of conversions that is reached against the share of customers contacted, in its interval.

    Args:
        reach: Share contacted, share of conversions, and its interval's ends.
        budgets: Rows of the table, which are marked.
        sheet: What to draw on.

    Returns:
        The figure.
    """

    def paint(axes: Axes) -> None:
        known = [(0.0, 0.0, 0.0, 0.0), *(point for point in reach if None not in point)]
        colour = look(OURS).colour
        axes.plot([0, 1], [0, 1], color=QUIET, lw=0.9, ls=":")
        axes.text(0.72, 0.66, "at random", color=QUIET, va="top", fontsize=11.5)
        _band(axes, known, colour)
        for one in budgets:
            part = (one["conversions"] or {}).get("value")
            if part is not None:
                axes.plot(one["share"], part, "o", color=colour, ms=5, zorder=3)
                if one["share"] == 0.1:
                    axes.annotate(f"{percent(part)} of conversions", (0.1, part), (9, -5), textcoords="offset points")
        axes.set(xlim=(0, 1.0), ylim=(0, 1.03), xlabel="share of customers contacted, best scores first")
        axes.set_ylabel("share of conversions reached")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))

    return draw(sheet, paint)


def profit_figure(profit: Mapping[str, Any], sheet: Sheet) -> Markup:
    """Draw the expected profit against the share of customers contacted, with the best share marked.

    Args:
        profit: Curve, best share and its profit.
        sheet: What to draw on.

    Returns:
        The figure.
    """

    def paint(axes: Axes) -> None:
        known = sorted(point for point in profit["curve"] if None not in point)
        colour = look(OURS).colour
        axes.axhline(0.0, color=QUIET, lw=0.9)
        _band(axes, known, colour)
        share, best = (profit["share"] or {}).get("value"), (profit["profit"] or {}).get("value")
        if share is not None and best is not None:
            axes.plot([share, share], [0, best], color=colour, lw=0.9, ls=":")
            axes.plot(share, best, "o", color=colour, ms=6.5, zorder=3)
            right = share > 0.55
            axes.annotate(
                f"best at {percent(share)}",
                (share, best),
                (-2 if right else 2, 9),
                textcoords="offset points",
                ha="right" if right else "left",
                color=INK,
            )
        axes.set(xlim=(0, 1.0), xlabel="share of customers contacted", ylabel="profit, in contacts")
        axes.margins(y=0.16)
        if best:  # what is lost by contacting far too many need not be seen whole
            axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.8 * axes.get_ylim()[1]))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))

    return draw(sheet, paint)


def group_figure(groups: Sequence[Mapping[str, Any]], figure: str, sheet: Sheet) -> Markup:
    """Draw one figure of every group as a row of dots with their intervals.

    Args:
        groups: Group, and its figures; one that is unknown is told of in words.
        figure: Which of them.
        sheet: What to draw on.

    Returns:
        The figure.
    """

    def paint(axes: Axes) -> None:
        colour, told = look(OURS).colour, [one for one in groups if (one.get(figure) or {}).get("value") is not None]
        if figure == "calibration":
            axes.axvline(0.0, color=QUIET, lw=0.9, ls=":")
        for at, one in enumerate(groups):
            height, found = len(groups) - at, one.get(figure) or {}
            if found.get("value") is None:
                axes.annotate(
                    "too few to say",
                    (0.02, height),
                    xycoords=axes.get_yaxis_transform(),
                    color=QUIET,
                    va="center",
                    bbox={"fc": WHITE, "ec": "none", "pad": 1.5},
                )
                continue
            if found.get("low") is not None and found.get("high") is not None:
                axes.plot([found["low"], found["high"]], [height, height], color=colour, lw=2.2)
            axes.plot(found["value"], height, "o", color=colour, ms=7.5)
        axes.set(ylim=(0.4, len(groups) + 0.6))
        axes.margins(x=0.12)
        axes.yaxis.set_major_locator(FixedLocator([len(groups) - at for at in range(len(groups))]))
        axes.set_yticklabels([short(one["group"], 24) for one in groups], color=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5) if told else FixedLocator([]))
        if figure in _SHARES:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(round(value, 6))))

    return draw(sheet, paint)


def _band(axes: Axes, points: Sequence[Sequence[float | None]], colour: str) -> None:
    """Draw a curve in its interval: across, up, and the interval's ends."""
    across, up, low, high = zip(*points, strict=True) if points else ((), (), (), ())
    axes.fill_between(across, low, high, color=colour, alpha=0.16, lw=0)
    axes.plot(across, up, color=colour, lw=1.7, zorder=3)
