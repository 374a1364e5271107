"""The marks that the figures share: a model's line, its dot and interval, a level, a limit."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from coterie.simulations.report.canvas import short
from coterie.simulations.report.palette import QUIET, look
from coterie.simulations.report.wording import decimals, epsilon

__all__ = ["dot", "levels", "limit_line", "line", "whisker"]


def line(axes: Axes, across: Sequence[float], *, up: Sequence[float], key: str) -> None:
    """Draw a model's line with its markers.

    Args:
        axes: Where to draw.
        across: Coordinates of its points.
        up: Likewise.
        key: The model's key, which settles its look.
    """
    style = look(key)
    axes.plot(
        across,
        up,
        color=style.colour,
        ls=style.line,
        lw=1.7,
        marker=style.marker,
        ms=5,
        mfc=style.fill,
        mew=1.3,
        zorder=3,
    )


def whisker(axes: Axes, figure: Mapping[str, Any], *, at: float, key: str) -> None:
    """Draw a figure's interval upright, where it has one.

    Args:
        axes: Where to draw.
        figure: The figure's low and high.
        at: Where on the horizontal axis.
        key: The model's key, which settles its look.
    """
    if figure.get("low") is not None and figure.get("high") is not None:
        axes.plot([at, at], [figure["low"], figure["high"]], color=look(key).colour, lw=1.5, zorder=2)


def dot(axes: Axes, model: Mapping[str, Any], *, height: float, name: str, metric: str = "auc") -> None:
    """Draw a model's mean as a dot on its row, with its interval and its value above it.

    Args:
        axes: Where to draw.
        model: The model with its metrics.
        height: Where on the vertical axis.
        name: Name of its report, written before the value; empty where there is one report.
        metric: Of which metric.
    """
    figure, style = model["metrics"][metric], look(model["key"])
    if figure["mean"] is None:
        return
    if figure.get("low") is not None and figure.get("high") is not None:
        axes.plot([figure["low"], figure["high"]], [height, height], color=style.colour, lw=2.2)
    axes.plot(figure["mean"], height, style.marker, color=style.colour, mfc=style.fill, ms=7.5, mew=1.6)
    axes.annotate(
        f"{name} {decimals(figure['mean'])}".strip(),
        (figure["mean"], height),
        (0, 6),
        textcoords="offset points",
        color=style.colour,
        ha="center",
        va="bottom",
        fontsize=11.5,
    )


def levels(axes: Axes, models: Sequence[Mapping[str, Any]]) -> list[tuple[float, str, str]]:
    """Draw models as levels across the axes.

    Args:
        axes: Where to draw.
        models: Key, title and mean of each model.

    Returns:
        The labels that belong at the levels' ends.
    """
    labels = []
    for model in models:
        if model["mean"] is None:
            continue
        style = look(model["key"])
        axes.axhline(model["mean"], color=style.colour, ls=style.line, lw=1.1)
        labels.append((model["mean"], short(model["title"], 26), style.colour))
    return labels


def limit_line(axes: Axes, limit: float | None, *, name: str) -> None:
    """Draw a limit on epsilon with its name above it, where there is one.

    Args:
        axes: Where to draw.
        limit: The epsilon.
        name: What to call it.
    """
    if limit is None:
        return
    axes.axhline(limit, color=QUIET, lw=1.1, ls="--")
    axes.annotate(
        f"{name} ε {epsilon(limit)}",
        (0, limit),
        (4, 3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        color=QUIET,
        fontsize=11.5,
    )
