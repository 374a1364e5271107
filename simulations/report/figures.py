"""The figures of the pages, each an inline SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from coterie.simulations.report.canvas import Sheet, draw, end_labels, short
from coterie.simulations.report.marks import dot, levels, limit_line, line
from coterie.simulations.report.palette import INK, OURS, QUIET, WHITE, look
from coterie.simulations.report.wording import decimals, held_out, label

__all__ = [
    "Curve",
    "budget_figure",
    "calibration_figure",
    "curve",
    "lift_figure",
    "models_figure",
    "rounds_figure",
]


@dataclass(frozen=True)
class Curve:
    """A model's points.

    Args:
        key: The model's key, which settles its look.
        title: Its name.
        points: Coordinates, all of them known.
    """

    key: str
    title: str
    points: tuple[tuple[float, ...], ...]


def curve(key: str, title: str, *, rows: Sequence[Any], names: Sequence[str]) -> Curve:
    """Read a curve from a report, leaving out the points of which a figure is unknown.

    Args:
        key: The model's key.
        title: Its name.
        rows: Objects with the names below, or arrays in their order.
        names: Names of the coordinates.

    Returns:
        The curve.
    """
    points: list[tuple[float, ...]] = []
    for row in rows:
        point = [row.get(name) if isinstance(row, Mapping) else row[at] for at, name in enumerate(names)]
        known = tuple(value for value in point if value is not None)
        points += [known] if len(known) == len(point) else []
    return Curve(key, title, tuple(points))


def calibration_figure(curves: Sequence[Curve], sheet: Sheet) -> Markup:
    """Draw the observed against the predicted share; a marker's area is its share of the customers.

    Args:
        curves: Predicted and observed share and weight, by model.
        sheet: What to draw on.

    Returns:
        The figure.
    """

    def paint(axes: Axes) -> None:
        # Only the predictions set the scale across: noise can carry an observed share far away.
        top = min(1.08 * max((point[0] for one in curves for point in one.points), default=1.0), 1.08) or 1.0
        axes.plot([0, top], [0, top], color=QUIET, lw=0.9, ls=":")
        for one in curves:
            style = look(one.key)
            across, up, weights = zip(*one.points, strict=True) if one.points else ((), (), ())
            axes.plot(across, up, color=style.colour, lw=1.2, ls=style.line, alpha=0.75)
            axes.scatter(
                across,
                up,
                s=[12 + 160 * max(weight, 0.0) for weight in weights],
                marker=style.marker,
                facecolor=style.fill,
                edgecolor=style.colour,
                linewidth=1.1,
                zorder=3,
            )
        axes.text(top, top, "as predicted ", color=QUIET, ha="right", va="bottom", fontsize=11.5)
        axes.set(xlim=(0, top), xlabel="predicted share that responds", ylabel="observed share")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6))
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.05 else 1, symbol=" %"))

    return draw(sheet, paint)


def lift_figure(curves: Sequence[Curve], sheet: Sheet) -> Markup:
    """Draw the lift against the share of customers contacted.

    Args:
        curves: Depth and lift, by model; a lone curve has its first lift written beside it.
        sheet: What to draw on.

    Returns:
        The figure.
    """

    def paint(axes: Axes) -> None:
        axes.axhline(1.0, color=QUIET, lw=0.9, ls=":")
        axes.text(0.02, 1.0, "contacted at random", color=QUIET, va="bottom", fontsize=11.5)
        for one in curves:
            style = look(one.key)
            across, up = zip(*one.points, strict=True) if one.points else ((), ())
            line(axes, across, up=up, key=one.key)
            if len(curves) == 1 and one.points:
                first = f"{decimals(up[0], 2)} times as many responses"
                axes.annotate(first, (across[0], up[0]), (9, 3), color=style.colour, textcoords="offset points")
        axes.set(xlim=(0, 1.03), xlabel="share of customers contacted, best scores first", ylabel="lift")
        axes.set_ylim(bottom=min(0.9, axes.get_ylim()[0]))
        axes.margins(y=0.1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))

    return draw(sheet, paint)


def models_figure(
    groups: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], sheet: Sheet, *, metric: str = "auc"
) -> Markup:
    """Draw each model's mean and its interval as a row of dots.

    Args:
        groups: Name of each report and its models: one report, or two whose dots share the rows.
        sheet: What to draw on.
        metric: Which of the models' metrics.

    Returns:
        The figure.
    """
    titles = {model["key"]: model["title"] for _, models in groups for model in models}
    rows = {key: len(titles) - at for at, key in enumerate(titles)}
    nudge = {0: 0.0} if len(groups) == 1 else {0: 0.2, 1: -0.2}

    def paint(axes: Axes) -> None:
        for at, (name, models) in enumerate(groups):
            for model in models:
                dot(axes, model, height=rows[model["key"]] + nudge[at], name=name, metric=metric)
        axes.set(ylim=(0.4, len(titles) + 0.6), xlabel=f"{label(metric)} on {held_out(metric)}")
        axes.margins(x=0.12)
        axes.yaxis.set_major_locator(FixedLocator(list(rows.values())))
        axes.set_yticklabels([short(title, 27) for title in titles.values()], color=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return draw(sheet, paint)


def rounds_figure(
    rounds: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]], *, sheet: Sheet, metric: str = "auc"
) -> Markup:
    """Draw the exact main metric of the private federation by round, against where the other models ended.

    Args:
        rounds: Round, mean, low and high.
        models: Key, title and mean of each model.
        sheet: What to draw on.
        metric: Which metric it is.

    Returns:
        The figure.
    """
    title = next((model["title"] for model in models if model["key"] == OURS), "ours")

    def paint(axes: Axes) -> None:
        known = [entry for entry in rounds if entry.get("mean") is not None]
        banded = [entry for entry in known if entry.get("low") is not None and entry.get("high") is not None]
        axes.fill_between(
            [entry["round"] for entry in banded],
            [entry["low"] for entry in banded],
            [entry["high"] for entry in banded],
            color=look(OURS).colour,
            alpha=0.16,
            lw=0,
        )
        line(axes, [entry["round"] for entry in known], up=[entry["mean"] for entry in known], key=OURS)
        labels = [(entry["mean"], short(title, 26), look(OURS).colour) for entry in known[-1:]]
        labels += levels(axes, [model for model in models if model["key"] != OURS])
        axes.set(xlabel="round", ylabel=label(metric))
        axes.margins(x=0.02, y=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        end_labels(axes, labels)

    return draw(sheet, paint)


def budget_figure(entry: Mapping[str, Any], planned: float | None, *, sheet: Sheet) -> Markup:
    """Draw the epsilon that one partner has spent in the study, step by step, under its limits.

    Args:
        entry: The partner's budget.
        planned: The whole study's epsilon, drawn where it is not the limit itself.
        sheet: What to draw on.

    Returns:
        The figure.
    """
    limit = entry.get("study_epsilon")
    steps = [step for step in entry["steps"] if step.get("study_epsilon") is not None]

    def paint(axes: Axes) -> None:
        spent = [0.0, *(step["study_epsilon"] for step in steps)]
        colour = look(OURS).colour
        axes.fill_between(range(len(spent)), spent, step="post", color=colour, alpha=0.12, lw=0)
        axes.step(range(len(spent)), spent, where="post", color=colour, lw=1.6)
        for at, step in enumerate(steps, start=1):
            fill = colour if step.get("group") == "training" else WHITE
            axes.plot(at, spent[at], "o", color=colour, mfc=fill, ms=3.6, mew=1.0)
        limit_line(axes, limit, name="limit")
        if planned is not None and (limit is None or abs(planned - limit) > 0.005 * limit):
            limit_line(axes, planned, name="plan")
        top = max([*spent, limit or 0.0, planned or 0.0]) or 1.0
        axes.set(xlim=(0, max(len(steps), 1) + 0.25), ylim=(0, 1.22 * top), ylabel="ε spent in the study")
        shown = sorted({1, len(steps)}) if steps else []
        axes.xaxis.set_major_locator(FixedLocator(shown))
        axes.set_xticklabels([short(steps[at - 1]["step"], 20) for at in shown])
        for text in axes.get_xticklabels()[:1]:
            text.set_horizontalalignment("left")
        for text in axes.get_xticklabels()[1:]:
            text.set_horizontalalignment("right")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(visible=False, axis="x")

    return draw(sheet, paint)
