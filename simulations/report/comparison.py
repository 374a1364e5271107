"""The page of two studies side by side."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from coterie.simulations.report import figures
from coterie.simulations.report.canvas import Sheet
from coterie.simulations.report.layout import (
    Table,
    exact_of,
    fill,
    final_round,
    main_metric,
    ranks,
    released_metrics,
    report_of,
)
from coterie.simulations.report.tables import named
from coterie.simulations.report.wording import (
    METRICS,
    MISSING,
    article,
    decimals,
    delta,
    difference,
    epsilon,
    interval,
    label,
    metric,
    plain,
)

__all__ = ["render_comparison"]

_SIDES = ("A", "B")


def render_comparison(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Draw two reports side by side.

    Args:
        a: A report.
        b: The report to hold against it; differences are b less a.

    Returns:
        One self-contained HTML page; it has the simulation band where both reports are simulated.

    Raises:
        FileFault: One of them is of another format.
    """
    pair = [report_of(a), report_of(b)]
    names = [f"{side}: {report['study']['name']}" for side, report in zip(_SIDES, pair, strict=True)]
    context = {
        "names": names,
        "headline": _headline(pair),
        "settings": _settings(pair),
        "guarantees": _guarantees(pair),
        "terms": _terms(pair),
        "multiplicity": _multiplicity(pair),
        "released": _released(pair),
        "simulation": _simulation(pair),
    }
    return fill("comparison.html", context)


def _headline(pair: Sequence[Mapping[str, Any]]) -> str:
    said = [
        f"{side} releases {article(main_metric(report))} of {decimals(final_round(report).get(main_metric(report)))} "
        f"at ε\u00a0=\u00a0{epsilon(report['guarantee']['study'].get('epsilon'))}"
        for side, report in zip(_SIDES, pair, strict=True)
    ]
    return f"{said[0]}; {said[1]}."


def _settings(pair: Sequence[Mapping[str, Any]]) -> Table:
    sides = [_flat(report) for report in pair]
    keys = list(dict.fromkeys(key for side in sides for key in side))
    written = [[label(key), *(plain(side.get(key)) for side in sides)] for key in keys]
    rows = [row for row in written if row[1] != row[2]]
    return Table("The plan, and how it was run", ["Setting", *_SIDES], rows, words=3, empty="None differs.")


def _flat(report: Mapping[str, Any]) -> dict[str, Any]:
    study, made = report["study"], report["made"]
    partners = [[entry["name"], entry.get("declared_customers")] for entry in study["partners"]]
    run = {key: made.get(key) for key in ("engine", "machine", "seeds")}
    return {**study, "partners": partners, **run, **(made.get("versions") or {})}


def _guarantees(pair: Sequence[Mapping[str, Any]]) -> Table:
    studies = [report["guarantee"]["study"] for report in pair]
    rows = [_against("ε of the study", [study.get("epsilon") for study in studies], write=epsilon)]
    rows.append(["δ of the study", *(delta(study.get("delta")) for study in studies), MISSING])
    replaced = [report["guarantee"].get("replace_one") for report in pair]
    rows.append(_against("ε where a record is replaced", replaced, write=epsilon))
    groups = [{group["group"]: group.get("epsilon") for group in report["guarantee"]["groups"]} for report in pair]
    rows += [
        _against(f"ε of group {group}", [held.get(group) for held in groups], write=epsilon)
        for group in dict.fromkeys(name for held in groups for name in held)
    ]
    return Table("ε and δ of the study", ["Figure", *_SIDES, "B less A"], rows)


def _terms(pair: Sequence[Mapping[str, Any]]) -> Table:
    studies = [report["guarantee"]["study"] for report in pair]
    keys = dict.fromkeys(key for study in studies for key in study if key not in ("epsilon", "delta"))
    rows = [[label(key), *(plain(study.get(key)) for study in studies)] for key in keys]
    return Table("Terms of the guarantee", ["Term", *_SIDES], rows, words=3, empty="Not recorded.")


def _multiplicity(pair: Sequence[Mapping[str, Any]]) -> Table:
    sides = [
        {entry["partners"]: entry.get("epsilon") for entry in report["guarantee"]["multiplicity"]} for report in pair
    ]
    known = sorted({partners for side in sides for partners in side})
    rows = [_against(plain(partners), [side.get(partners) for side in sides], write=epsilon) for partners in known]
    head = ["Partners that know the person", *(f"ε of {side}" for side in _SIDES), "B less A"]
    return Table("A person who is a customer of several partners", head, rows, empty="Not computed.")


def _released(pair: Sequence[Mapping[str, Any]]) -> Table:
    last = [final_round(report) for report in pair]
    names = dict.fromkeys(name for report in pair for name in released_metrics(report))
    rows = [_against(label(name), [held.get(name) for held in last], write=partial(metric, name)) for name in names]
    return Table("Metrics of the final round", ["Metric", *_SIDES, "B less A"], rows)


def _against(name: str, values: Sequence[Any], *, write: Callable[[Any], str]) -> list[str]:
    return [name, write(values[0]), write(values[1]), difference(values[0], values[1], write=write)]


def _simulation(pair: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if any(report.get("simulation") is None for report in pair) or ranks(pair[0]) != ranks(pair[1]):
        return None
    sides = [{model["key"]: model for model in report["simulation"]["models"]} for report in pair]
    models = list({**sides[1], **sides[0]}.values())
    models.sort(key=lambda model: list({**sides[0], **sides[1]}).index(model["key"]))
    groups = [(side, list(held.values())) for side, held in zip(_SIDES, sides, strict=True)]
    main = main_metric(pair[0])
    sheet = Sheet("models", f"Mean {label(main)} of each model in A and in B; the tables give every figure.", 900, 480)
    names = [name for name in METRICS if any(name in model["metrics"] for model in models)]
    return {
        "legend": models,
        "comparison": figures.models_figure(groups, sheet, metric=main),
        "metric": label(main),
        "exact_of": exact_of(pair[0]),
        "tables": [_metric_table(name, models, sides=sides) for name in names],
    }


def _metric_table(
    name: str,
    models: Sequence[Mapping[str, Any]],
    *,
    sides: Sequence[Mapping[str, Mapping[str, Any]]],
) -> Table:
    rows = []
    for model in models:
        pair = [side.get(model["key"], {}).get("metrics", {}).get(name) or {} for side in sides]
        gap = difference(pair[0].get("mean"), pair[1].get("mean"), write=partial(metric, name))
        rows.append([named(model), *(interval(name, held) for held in pair), gap, _overlap(pair)])
    head = ["Model", *_SIDES, "B less A", "Intervals overlap"]
    return Table(f"{METRICS[name]}: mean with its 95 % confidence interval", head, rows)


def _overlap(pair: Sequence[Mapping[str, Any]]) -> str:
    if any(held.get(end) is None for held in pair for end in ("low", "high")):
        return MISSING
    return "yes" if pair[0]["low"] <= pair[1]["high"] and pair[1]["low"] <= pair[0]["high"] else "no"
