"""The page of a sweep over epsilon, and its one picture: what each epsilon buys."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from coterie.privacy.errors import Fault, FileFault
from coterie.simulations.report.canvas import Sheet, draw, end_labels, short
from coterie.simulations.report.layout import (
    Table,
    exact_of,
    fill,
    final_round,
    main_metric,
    released_metrics,
    report_of,
)
from coterie.simulations.report.marks import levels, line, whisker
from coterie.simulations.report.palette import OURS, look
from coterie.simulations.report.tables import named
from coterie.simulations.report.wording import counted, delta, epsilon, held_out, interval, label, metric

__all__ = ["render_sweep", "sweep_figure"]

# The private models and how far each stands aside of its epsilon, so that intervals do not hide each other.
_PRIVATE = {OURS: 0.985, "alone-private": 1.015, "pooled-private": 1.0, "popularity-private": 1.0}


_Point = tuple[float, str, Mapping[str, Any]]  # epsilon, the model's title, and its figure


def render_sweep(reports: Sequence[Mapping[str, Any]]) -> str:
    """Draw simulated reports at several epsilons as one picture and its table.

    Args:
        reports: Simulated reports of one study, in any order.

    Returns:
        One self-contained HTML page.

    Raises:
        FileFault: There is no report, one is of another format, or one is not simulated.
    """
    held = [report_of(report) for report in reports]
    if not held or any(report.get("simulation") is None for report in held):
        rule = "a sweep needs at least one report, and each must have a simulation"
        raise FileFault(Fault("reports", rule, "give the report.json of simulated studies"))
    held.sort(key=lambda report: report["guarantee"]["study"]["epsilon"] or float("inf"))
    models, main = held[0]["simulation"]["models"], main_metric(held[0])
    context = {
        "metric": label(main),
        "exact_of": exact_of(held[0]),
        "headline": _headline(held),
        "released": _released(held),
        "legend": models,
        "picture": sweep_figure(held),
        "models": _models(held, models, main),
    }
    return fill("sweep.html", context)


def sweep_figure(reports: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw utility against epsilon: private models with intervals, the others as levels.

    Args:
        reports: Simulated reports of one study at several epsilons, in any order.

    Returns:
        An SVG element; a level is the mean over the reports.
    """
    main = main_metric(reports[0])
    alt = (
        f"Mean {label(main)} against epsilon on a logarithmic axis, with 95 % intervals; the table gives every figure."
    )

    def paint(axes: Axes) -> None:
        points = {key: _points(reports, key, main) for key in _PRIVATE}
        ticks = sorted({at for found in points.values() for at, _, _ in found})
        labels = [written for key, found in points.items() if found for written in _private(axes, found, key=key)]
        axes.set_xscale("log", base=2)
        axes.set(xlabel="ε of the study, logarithmic", ylabel=f"{label(main)} on {held_out(main)}")
        if ticks:
            axes.set_xlim(ticks[0] / 1.4, ticks[-1] * 1.4)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.margins(y=0.08)
        end_labels(axes, labels + levels(axes, _others(reports, main)), room=0.048)

    return draw(Sheet("sweep", alt, width=900, height=440), paint)


def _private(axes: Axes, points: Sequence[_Point], *, key: str) -> list[tuple[float, str, str]]:
    across = [at * _PRIVATE[key] for at, _, _ in points]
    line(axes, across, up=[figure["mean"] for _, _, figure in points], key=key)
    for at, (_, _, figure) in zip(across, points, strict=True):
        whisker(axes, figure, at=at, key=key)
    return [(figure["mean"], short(title, 26), look(key).colour) for _, title, figure in points[-1:]]


def _points(reports: Iterable[Mapping[str, Any]], key: str, main: str) -> list[_Point]:
    found = [
        (report["guarantee"]["study"]["epsilon"], model["title"], model["metrics"][main])
        for report in reports
        for model in report["simulation"]["models"]
        if model["key"] == key and model["metrics"][main]["mean"] is not None
    ]
    return sorted((point for point in found if point[0]), key=lambda point: point[0])


def _others(reports: Iterable[Mapping[str, Any]], main: str) -> list[dict[str, Any]]:
    means: dict[str, list[float]] = {}
    titles: dict[str, str] = {}
    for report in reports:
        for model in report["simulation"]["models"]:
            if model["key"] not in _PRIVATE and model["metrics"][main]["mean"] is not None:
                means.setdefault(model["key"], []).append(model["metrics"][main]["mean"])
                titles.setdefault(model["key"], model["title"])
    return [{"key": key, "title": titles[key], "mean": fmean(held)} for key, held in means.items()]


def _headline(reports: Sequence[Mapping[str, Any]]) -> str:
    ends = [reports[0], reports[-1]]
    low, high = (epsilon(report["guarantee"]["study"].get("epsilon")) for report in ends)
    studies = counted(len(reports), "study", many="studies")
    reach = f"at ε\u00a0=\u00a0{low}" if low == high else f"from ε\u00a0=\u00a0{low} to ε\u00a0=\u00a0{high}"
    return f"{studies} {reach}."


def _at(report: Mapping[str, Any]) -> list[str]:
    study = report["guarantee"]["study"]
    return [epsilon(study.get("epsilon")), delta(study.get("delta"))]


def _released(reports: Sequence[Mapping[str, Any]]) -> Table:
    names = released_metrics(reports[0])
    rows = [
        [report["study"]["name"], *_at(report), *(metric(name, final_round(report).get(name)) for name in names)]
        for report in reports
    ]
    head = ["Study", "ε", "δ", *(label(name) for name in names)]
    return Table("Metrics of the final round", head, rows)


def _models(reports: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]], main: str) -> Table:
    rows = []
    for report in reports:
        held = {model["key"]: model["metrics"].get(main) for model in report["simulation"]["models"]}
        rows.append([*_at(report), *(interval(main, held.get(model["key"])) for model in models)])
    head = ["ε", "δ", *(named(model) for model in models)]
    return Table(f"{label(main)}: mean over the seeds, with its 95 % confidence interval", head, rows, words=0)
