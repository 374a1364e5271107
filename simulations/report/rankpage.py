"""What the page of a study that recommends shows where that of a propensity study shows calibration and lift."""

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.simulations.report import figures, rankfigures, ranktables, tables
from coterie.simulations.report.canvas import Sheet
from coterie.simulations.report.layout import final_round
from coterie.simulations.report.palette import OURS
from coterie.simulations.report.wording import (
    METRICS,
    RELEASED_RANKS,
    counted,
    decimals,
    delta,
    epsilon,
    percent,
    plain,
)

__all__ = ["headline", "keys", "released", "simulated"]

_MAIN = RELEASED_RANKS[0]
_FLOOR = "popularity-private"
_HITS = ("k", "share")
_UTILITY = tuple(name for name in METRICS if name.startswith(("hr@", "ndcg@", "mrr")))
_LISTS = ("coverage", "novelty", "gini")


def headline(report: Mapping[str, Any]) -> str:
    """Say in one sentence what was released and under which guarantee; it draws on nothing exact.

    Args:
        report: The report.

    Returns:
        The sentence.
    """
    study, held, last = report["guarantee"]["study"], report["study"], final_round(report)
    who = counted(len(held["partners"]), "partner", many="partners")
    return (
        f"{who} made one recommender. By what it releases, a customer’s next item is among the first 10 of 100 for "
        f"{percent(last.get(_MAIN))} of customers, and for {percent((last.get('floor') or {}).get(_MAIN))} by what is "
        f"most popular, under a guarantee of ε\u00a0=\u00a0{epsilon(study.get('epsilon'))} "
        f"and δ\u00a0=\u00a0{delta(study.get('delta'))}."
    )


def keys(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and remark of each key figure."""
    study, held, last = report["guarantee"]["study"], report["study"], final_round(report)
    error = ((last.get("ranges") or {}).get(_MAIN) or {}).get("error")
    return [
        ("HR@10 of 99 released", decimals(last.get(_MAIN)), f"noisy, ± {decimals(error)}"),
        ("Most popular, released", decimals((last.get("floor") or {}).get(_MAIN)), "the floor, from the same counts"),
        ("ε of the study", epsilon(study.get("epsilon")), f"δ = {delta(study.get('delta'))}"),
        ("Unit protected", plain(study.get("unit")), plain(study.get("relation"))),
        ("Partners", str(len(held["partners"])), f"threshold {plain(held.get('threshold'))}"),
    ]


def released(release: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the charged figures are shown by."""
    hits = release.get("hits") or {}
    pair = [
        figures.curve(OURS, "Released model", rows=hits.get("model", []), names=_HITS),
        figures.curve(_FLOOR, "Most popular", rows=hits.get("floor", []), names=_HITS),
    ]
    last = release["rounds"][-1] if release["rounds"] else {}
    about = "Share of customers whose next item is in a list, by the length of the list, from noisy counts."
    return {
        "rounds": tables.released_table(release["rounds"], RELEASED_RANKS),
        "final": ranktables.final_table(last),
        "hits": rankfigures.hits_figure(pair, Sheet("released-hits", about, width=900)),
        "refusals": tables.refusals_table(release["refusals"]),
    }


def simulated(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the exact figures are shown by; None where there are none."""
    held = report.get("simulation")
    if held is None:
        return None
    models: Sequence[Mapping[str, Any]] = held["models"]
    ends = [{**model, "mean": model["metrics"][_MAIN]["mean"]} for model in models]
    alt = "Mean HR@10 of 99 of each model with its 95 % interval; the table below gives every figure."
    curves = [
        figures.curve(model["key"], model["title"], rows=held["hits"].get(model["key"], []), names=_HITS)
        for model in models
    ]
    rounds = Sheet("rounds", "Exact HR@10 of 99 of the private federation by round.")
    several = len(held["rounds"]) > 1
    return {
        "verdict": held["verdict"],
        "legend": models,
        "models": tables.models_table(models, _UTILITY),
        "lists": tables.models_table(models, _LISTS, "What the lists of ten show: mean over the seeds"),
        "seeds": tables.seeds_table(report["made"]["seeds"], models, name=_MAIN),
        "partners": ranktables.partners_table(held["partners"], models),
        "gaps": ranktables.gaps_table(held["gaps"], models),
        "comparison": figures.models_figure([("", models)], Sheet("models", alt), metric=_MAIN),
        "hits": rankfigures.hits_figure(
            curves, Sheet("hits", "Exact share of customers whose next item is in a list, by length and model.")
        ),
        "rounds": figures.rounds_figure(held["rounds"], ends, sheet=rounds, metric=_MAIN) if several else None,
        "review": _review(held["review"]),
    }


def _review(review: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bias review's picture and tables."""
    alt = "Share of each group of items in the catalogue, in what customers have, and in the lists."
    groups = review["items"]
    height = 90 + 30 * len(groups)
    return {
        "attribute": review["attribute"],
        "picture": rankfigures.exposure_figure(groups, Sheet("exposure", alt, 900, height)) if groups else None,
        "shown": ranktables.exposure_table(review["attribute"] or "items", groups),
        "customers": [ranktables.quality_table(by, found) for by, found in review["customers"].items()],
    }
