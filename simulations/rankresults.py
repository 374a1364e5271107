"""From trials of a recommender to the report's figures; the form is `docs/formats/report.md`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coterie.privacy.plan import Plan
from coterie.server.rankmetrics import FLOOR, MODEL, rank_releases
from coterie.server.registry import Progress
from coterie.simulations.rankexact import MAIN
from coterie.simulations.ranktrial import RANKED
from coterie.simulations.results import compared, refusals_of, spread

__all__ = ["ranked_release", "ranked_simulation", "ranked_verdict"]


def ranked_release(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Return the report's "release" of a plan that recommends: only what left the partners, charged."""
    releases = rank_releases(plan, progress)
    rounds = []
    for one in releases:
        model, floor = one.estimates(MODEL), one.estimates(FLOOR)
        rounds.append(
            {
                "round": one.round,
                "partners": one.partners,
                **{name: estimate.value for name, estimate in model.items()},
                "floor": {name: estimate.value for name, estimate in floor.items()},
                "ranges": {
                    name: {"low": estimate.low, "high": estimate.high, "error": estimate.error}
                    for name, estimate in model.items()
                },
            }
        )
    last = releases[-1] if releases else None
    return {
        "rounds": rounds,
        "calibration": [],
        "lift": [],
        "hits": {
            key: [list(point) for point in last.hits(row)] if last else []
            for key, row in (("model", MODEL), ("floor", FLOOR))
        },
        "refusals": refusals_of(progress),
    }


def ranked_simulation(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report's "simulation" from the exact figures of each seed."""
    first = trials[0]
    return {
        "models": compared(trials, RANKED),
        "partners": [
            {
                "partner": partner,
                "customers": entry["customers"],
                "held_out": entry["held_out"],
                "asked": entry["asked"],
                "models": {key: spread([t["partners"][partner]["models"][key] for t in trials]) for key in RANKED},
            }
            for partner, entry in first["partners"].items()
        ],
        "rounds": [
            {"round": int(number), **spread([trial["rounds"][number] for trial in trials])}
            for number in first["rounds"]
        ],
        "calibration": {},
        "lift": {},
        "hits": first["hits"],
        "gaps": first["gaps"],
        "review": first["review"],
        "verdict": ranked_verdict(trials),
    }


def ranked_verdict(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in sentences what the comparison shows, and where the federation is not better."""
    means = {key: _mean([trial["models"][key][MAIN] for trial in trials]) for key in RANKED}
    ours = means["federated-private"]
    sentences = [
        f"The private federation puts a customer's next item among the first 10 of 100 for {_share(ours)} of customers "
        f"(HR@10 of 99, exact); pooling all data without privacy does for {_share(means['pooled'])}.",
        _against(ours, means["popularity-private"], "the private list of what is most popular", trials),
        _against(ours, means["popularity"], "an exact list of what is most popular", trials),
    ]
    partners = list(trials[0]["partners"])
    for key, words in (("alone-private", "under the same privacy"), ("alone", "without any privacy")):
        beaten = [name for name in partners if _own(trials, name, "federated-private") > _own(trials, name, key)]
        missed = ", ".join(name for name in partners if name not in beaten)
        who = (
            "every partner" if not missed else f"{len(beaten)} of {len(partners)} partners" if beaten else "no partner"
        )
        except_ = f"; not {missed}" if beaten and missed else ""
        sentences.append(f"It is better than {who} alone {words}, on the partner's own customers{except_}.")
    return sentences


def _against(ours: float, other: float, what: str, trials: Sequence[Mapping[str, Any]]) -> str:
    """Say by how much the federation is better or worse, and whether one seed's customers could have it by chance."""
    word = "better" if ours > other else "worse" if ours < other else "as good"
    key = "popularity-private" if "private" in what else "popularity"
    gap = trials[0]["gaps"][key]
    if word == "as good":
        return f"It is as good as {what}."
    low, high = (None if gap[end] is None else f"{100 * gap[end]:+.1f}".replace("-", "−") for end in ("low", "high"))
    sure = "" if low is None else f" ({low} to {high} over the customers of the first seed)"
    return f"It is {word} than {what}, by {100 * abs(ours - other):.1f} points{sure}."


def _own(trials: Sequence[Mapping[str, Any]], partner: str, key: str) -> float:
    return _mean([trial["partners"][partner]["models"][key] for trial in trials])


def _mean(values: Sequence[float | None]) -> float:
    """Return the mean of what is known; not a number, which nothing is better than, where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
