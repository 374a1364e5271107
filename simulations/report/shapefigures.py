"""The figures of a model that is told whole: what each column adds to the log-odds, each an inline SVG.

A darker band is two standard deviations of the noise of learning to either side if columns had nothing to do with each
other, a lighter one those of about the most noise that there may be, and sampling. What is not clear of it is pale.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from coterie.simulations.report.canvas import Sheet, draw, short
from coterie.simulations.report.palette import INK, OURS, QUIET, WHITE, look
from coterie.simulations.report.shapemarks import band, clear, ordinal, sizes, slot_bars, step, steps_of, upper, within
from coterie.simulations.report.wording import decimals, percent

__all__ = ["importance_figure", "numbers_figure", "pair_figure", "words_figure"]

Points = Sequence[Mapping[str, Any]]
_LESS = "#b3470b"


def importance_figure(columns: Sequence[tuple[str, float]], sheet: Sheet) -> Markup:
    """Draw how much columns and pairs move the log-odds on average, as bars.

    Args:
        columns: Name and importance, the most important first.
        sheet: What to draw on.

    Returns:
        The figure.
    """

    def paint(axes: Axes) -> None:
        places = [len(columns) - at for at in range(len(columns))]
        axes.barh(places, [value for _, value in columns], height=0.62, color=look(OURS).colour, alpha=0.85, lw=0)
        for place, (_, value) in zip(places, columns, strict=True):
            text = decimals(value, 2)
            axes.annotate(text, (value, place), (5, 0), textcoords="offset points", va="center", color=QUIET)
        _rows(axes, places, [name for name, _ in columns])
        axes.set(ylim=(0.4, len(columns) + 0.6), xlabel="mean size of what it adds to the log-odds")
        axes.set_xlim(0, 1.12 * max((value for _, value in columns), default=1.0) or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return draw(sheet, paint)


def numbers_figure(column: Mapping[str, Any], sheet: Sheet) -> Markup:
    """Draw what a numeric column adds, as steps over its bins and dots for its atoms, and the customers in each below.

    Args:
        column: Of a report's shapes.
        sheet: What to draw on.

    Returns:
        The figure.
    """
    points = [point for point in column["points"] if point["kind"] != "absent"]
    places = ordinal(points) if steps_of(column) else [(point["low"], point["high"]) for point in points]
    absent = [point for point in column["points"] if point["kind"] == "absent" and point["share"] >= 0.005]

    def paint(axes: Axes) -> None:
        low, high = min(begin for begin, _ in places), max(end for _, end in places)
        spots = [*places, *[(high + 0.045 * (high - low), high + 0.085 * (high - low)) for _ in absent]]
        shown = [*points, *absent]
        bottom, top = within(shown)
        axes.axhline(0.0, color=QUIET, lw=0.9, ls=":")
        for point, (begin, end) in zip(shown, spots, strict=True):
            band(axes, point, begin, end=end, least=0.012 * (high - low))
        step(axes, points, places, least=0.008 * (high - low))
        for point, (begin, end) in zip(shown, spots, strict=True):
            if point["kind"] != "bin":
                fill = look(OURS).colour if clear(point) else WHITE
                axes.plot((begin + end) / 2, point["contribution"], "o", ms=6, color=look(OURS).colour, mfc=fill)
        above = Rectangle((0, 0.22), 1, 0.78, transform=axes.transAxes)
        for drawn in (*axes.patches, *axes.lines):
            drawn.set_clip_path(above)
        slot_bars(axes, shown, spots, least=0.012 * (high - low))
        # What has a quarter of the height to itself below is how many customers there are.
        axes.set_ylim(bottom - 0.34 * (top - bottom), top)
        axes.yaxis.set_major_locator(FixedLocator(upper(bottom, top)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decimals(value, 1 if top - bottom > 0.4 else 2)))
        axes.set(ylabel="added to the log-odds")
        axes.margins(x=0.02)
        _ticks(axes, column, points, places)
        for begin, end in spots[len(points) :]:
            axes.text((begin + end) / 2, bottom, "absent", ha="right", va="bottom", rotation=90, color=QUIET)

    return draw(sheet, paint)


def words_figure(points: Points, sheet: Sheet) -> Markup:
    """Draw what words add, as a row of a dot with its bands each, and their shares of customers beside.

    Args:
        points: The words to show, from the one that adds most.
        sheet: What to draw on.

    Returns:
        The figure.
    """

    def paint(axes: Axes) -> None:
        colour = look(OURS).colour
        low, high = within(points)
        most = max([point["share"] for point in points] + [1e-9])
        axes.axvline(0.0, color=QUIET, lw=0.9, ls=":")
        axes.set_xlim(low, high)
        for at, point in enumerate(points):
            place, told = len(points) - at, point["contribution"]
            pale = 1.0 if clear(point) else 0.5
            for size, look_, width in zip(sizes(point), (0.18 * pale, 0.42 * pale), (9.0, 4.5), strict=True):
                ends = (max(told - size, low), min(told + size, high))
                axes.plot(ends, [place, place], color=colour, alpha=look_, lw=width, solid_capstyle="butt")
            if low <= told <= high:
                axes.plot(told, place, "o", ms=7, color=colour, mfc=colour if clear(point) else WHITE, zorder=3)
            width = 0.15 * max(point["share"], 0.0) / most
            across = axes.get_yaxis_transform()
            bar = Rectangle((1.03, place - 0.2), width, 0.4, transform=across, color=QUIET, alpha=0.4, lw=0)
            bar.set_clip_on(False)
            axes.add_patch(bar)
            share = "0 %" if point["share"] < 0.0005 else percent(point["share"])
            axes.text(1.045 + width, place, share, transform=across, va="center", color=QUIET, fontsize=11)
        _rows(axes, [len(points) - at for at in range(len(points))], [point["label"] for point in points])
        axes.set(ylim=(0.4, len(points) + 0.6), xlabel="added to the log-odds")
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return draw(sheet, paint)


def pair_figure(pair: Mapping[str, Any], sheet: Sheet) -> Markup:
    """Draw what two columns add together as a field of their groups; bluer adds more, browner takes more.

    Args:
        pair: Of a report's shapes.
        sheet: What to draw on.

    Returns:
        The figure.
    """
    downs, acrosses = ([at for at, text in enumerate(texts) if text] for texts in pair["groups"])
    # What is absent has hardly a customer in most columns, and is then left out here.
    told, noise, share = pair["contribution"], pair["noise_most"], pair["share"]
    downs = [at for at in downs if sum(share[at]) > 0.002] or downs
    acrosses = [at for at in acrosses if sum(row[at] for row in share) > 0.002] or acrosses

    def paint(axes: Axes) -> None:
        most = max([abs(told[down][across]) for down in downs for across in acrosses] + [1e-9])
        for row, down in enumerate(downs):
            for place, across in enumerate(acrosses):
                value, sure = told[down][across], noise is None or abs(told[down][across]) > 2 * noise[down][across]
                colour = look(OURS).colour if value > 0 else _LESS
                part = (0.75 if sure else 0.35) * abs(value) / most
                box = (place + 0.02, len(downs) - row - 0.98)
                axes.add_patch(Rectangle(box, 0.96, 0.96, color=colour, alpha=part, lw=0))
                written = ("+" if value > 0 else "") + decimals(value, 2)
                dark = WHITE if part > 0.5 and sure else INK if sure else QUIET
                spot = (place + 0.5, len(downs) - row - 0.5)
                axes.text(*spot, written if sure else f"({written})", ha="center", va="center", color=dark, fontsize=11)
        axes.set(xlim=(0, len(acrosses)), ylim=(0, len(downs)), xlabel=short(pair["names"][1], 40))
        axes.set_ylabel(short(pair["names"][0], 30))
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_major_locator(FixedLocator([place + 0.5 for place in range(len(acrosses))]))
        axes.set_xticklabels([_wrapped(pair["groups"][1][at]) for at in acrosses], fontsize=10.5)
        axes.yaxis.set_major_locator(FixedLocator([len(downs) - row - 0.5 for row in range(len(downs))]))
        axes.set_yticklabels([short(pair["groups"][0][at], 16) for at in downs], fontsize=10.5)

    return draw(sheet, paint)


def _rows(axes: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    axes.yaxis.set_major_locator(FixedLocator(list(places)))
    axes.set_yticklabels([short(name, 24) for name in names], color=INK)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _ticks(axes: Axes, column: Mapping[str, Any], points: Points, places: Sequence[tuple[float, float]]) -> None:
    """Write numbers along a column: a scale where bins are as wide as they are, else where every few of them begin."""
    axes.grid(visible=False, axis="x")
    if not steps_of(column):
        low, high = min(point["low"] for point in points), max(point["high"] for point in points)
        ticks = [tick for tick in MaxNLocator(7).tick_values(low, high) if low <= tick <= high]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        return
    every = max(2, round(len(points) / 5))
    atoms = [at for at, point in enumerate(points) if point["kind"] == "atom"]
    begins = [at for at in range(every - 1, len(points), every) if not {at - 1, at, at + 1} & set(atoms)]
    # An atom is named below its middle, a bin where it begins.
    spots = [(sum(places[at]) / 2, at) for at in atoms] + [(places[at][0], at) for at in begins]
    axes.xaxis.set_major_locator(FixedLocator([place for place, _ in spots]))
    axes.set_xticklabels([points[at]["label"].split(" to ")[0] for _, at in spots])
    axes.set_xlabel("not to scale: every bin is drawn as wide as the others")


def _wrapped(text: str) -> str:
    """Cut a group's text to two short lines."""
    words, lines = text.split(" "), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 7 and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join([short(line, 10) for line in lines[:2]]) + ("…" if len(lines) > 2 else "")
