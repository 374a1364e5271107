"""One seed of a study that recommends: a federation, its baselines, and their exact metrics, as plain JSON values."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.task import recommender_of
from coterie.models.catalogue import Catalogue, encoded
from coterie.models.histories import Histories
from coterie.models.recommenders import family
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import RandomSource
from coterie.server.coordinator import Seen, unless_stopped
from coterie.simulations import oneparty, rankbaselines
from coterie.simulations.federation import Outcome, run_federation
from coterie.simulations.histories import Kept, hold_back, together
from coterie.simulations.partners import group_key_of
from coterie.simulations.rankexact import MAIN, Scorer, Served, curve, figures, gap, joined, serve
from coterie.simulations.rankreview import review
from coterie.simulations.shared import sharing
from coterie.simulations.trial import Trial

__all__ = ["RANKED", "run_rank_trial"]

OURS = "federated-private"

RANKED: dict[str, str] = {
    OURS: "Federated, private",
    "alone-private": "Partner alone, same privacy",
    "popularity-private": "Most popular, private",
    "alone": "Partner alone, no privacy",
    "pooled": "Pooled, no privacy",
    "popularity": "Most popular, no privacy",
}


@dataclass(frozen=True)
class _Shop:
    """What all models of a trial share.

    Args:
        plan: The signed one.
        catalogue: The items.
        attributes: Encoded, (items, attributes).
        kept: By partner, what its table is and what was taken out.
        whole: All partners' training histories.
    """

    plan: Plan
    catalogue: Catalogue
    attributes: NDArray[np.float32]
    kept: Mapping[str, Kept]
    whole: Histories

    def scorer(self, weights: family.Weights) -> Scorer:
        """Return what a model of the plan's family scores with."""
        return family.scorer(recommender_of(self.plan), weights, self.attributes)

    def popular(self, counts: family.Weights) -> Scorer:
        """Return what ranks all customers' items by these counts alone."""
        return family.scorer(dataclasses.replace(recommender_of(self.plan), family="popularity", content=0.0), counts)

    def served(self, scorers: Mapping[str, Scorer]) -> dict[str, Served]:
        """Return what each partner's customers get from its own scorer."""
        items = len(self.catalogue)
        return {name: serve(scorers[name], one.seen, one.held, items=items) for name, one in self.kept.items()}


def run_rank_trial(  # noqa: PLR0913 - all of it is the edge of the program
    root: Path,
    plan: Plan,
    tables: Mapping[str, pa.Table],
    *,
    catalogue: Catalogue,
    seed: int,
    engine: str,
    random: RandomSource,
    show: Callable[[Seen], None],
    stop: Callable[[], bool],
    identifiers: Mapping[str, pa.Table] | None = None,
) -> Trial:
    """Run a federation on what is left of the tables, and its baselines; arguments as `run_federation`.

    Where the plan is about shared customers, the baselines know them and nobody else.
    """
    kept = _held_back(plan, tables, catalogue, group_key_of(seed), identifiers)
    outcome = run_federation(
        root,
        plan,
        {name: one.table for name, one in kept.items()},
        seed=seed,
        engine=engine,
        random=random,
        show=show,
        stop=stop,
        catalogue=catalogue,
        identifiers=identifiers,
    )
    unless_stopped(stop)
    show(Seen("baselines", plan.training.rounds))
    ordered = {partner.name: kept[partner.name] for partner in plan.partners}
    whole = together({name: one.seen for name, one in ordered.items()})
    shop = _Shop(outcome.signed.plan, catalogue, encoded(catalogue), ordered, whole)
    served = {key: shop.served(scorers) for key, scorers in _models(shop, outcome, random).items()}
    return Trial(outcome, _exact(shop, outcome, served))


def _held_back(
    plan: Plan,
    tables: Mapping[str, pa.Table],
    catalogue: Catalogue,
    key: bytes,
    identifiers: Mapping[str, pa.Table] | None,
) -> dict[str, Kept]:
    """Take the last items of those out of the tables who take part."""
    among = sharing(plan, identifiers) if identifiers is not None and plan.matching is not None else {}
    return {
        name: hold_back(table, plan.contract, catalogue, group_key=key, among=among.get(name))
        for name, table in tables.items()
    }


def _models(shop: _Shop, outcome: Outcome, random: RandomSource) -> dict[str, dict[str, Scorer]]:
    """Return what each partner would score with, for every model that is compared."""
    plan, weights, names = shop.plan, outcome.progress.weights, list(shop.kept)
    declared = {partner.name: partner.customers for partner in plan.partners}
    everybody = oneparty.alone(plan, sum(declared.values()))
    counts = rankbaselines.counted(shop.whole, len(shop.catalogue))
    streams = {key: random.stream(f"baseline/{key}") for key in ("alone-private", "alone", "pooled")}

    def own(name: str, *, private: bool) -> Scorer:
        make = rankbaselines.private if private else rankbaselines.without_noise
        stream = streams["alone-private" if private else "alone"]
        party = oneparty.alone(plan, declared[name])
        return shop.scorer(make(party, shop.kept[name].seen, attributes=shop.attributes, stream=stream))

    pooled = rankbaselines.without_noise(everybody, shop.whole, attributes=shop.attributes, stream=streams["pooled"])
    return {
        OURS: dict.fromkeys(names, shop.scorer(weights)),
        "alone-private": {name: own(name, private=True) for name in names},
        "popularity-private": dict.fromkeys(names, shop.popular(weights[:1])),
        "alone": {name: own(name, private=False) for name in names},
        "pooled": dict.fromkeys(names, shop.scorer(pooled)),
        "popularity": dict.fromkeys(names, shop.popular(counts)),
    }


def _exact(shop: _Shop, outcome: Outcome, served: Mapping[str, Mapping[str, Served]]) -> dict[str, Any]:
    """Return the exact figures of every model, in the form that `rankresults.py` reads."""
    popularity = np.bincount(shop.whole.items, minlength=len(shop.catalogue)).astype(np.float64)
    customers = len(shop.whole)
    shares = popularity / max(customers, 1)
    whole = {key: joined(list(parts.values())) for key, parts in served.items()}
    asked = {name: np.flatnonzero(one.held >= 0) for name, one in shop.kept.items()}
    return {
        "models": {key: figures(one, shares, customers) for key, one in whole.items()},
        "partners": {
            name: {
                "customers": len(one.seen),
                "held_out": one.held_out,
                "asked": len(asked[name]),
                "models": {key: figures(parts[name], shares, customers)[MAIN] for key, parts in served.items()},
            }
            for name, one in shop.kept.items()
        },
        "rounds": _rounds(shop, outcome, whole[OURS]),
        "hits": {key: curve(one) for key, one in whole.items()},
        "gaps": {key: gap(whole[OURS], one) for key, one in whole.items() if key != OURS},
        "review": review(
            served[OURS],
            {name: one.seen.lengths[asked[name]] for name, one in shop.kept.items()},
            np.concatenate([one.held[asked[name]] for name, one in shop.kept.items()]),
            popularity=popularity,
            catalogue=shop.catalogue,
        ),
    }


def _rounds(shop: _Shop, outcome: Outcome, last: Served) -> dict[str, float | None]:
    """Return the main metric of the federation after each measured round."""
    found = {}
    for round_ in shop.plan.metrics.rounds:
        served = last
        if round_ != shop.plan.training.rounds and round_ in outcome.published:
            scorer = shop.scorer(outcome.published[round_])
            served = joined(list(shop.served(dict.fromkeys(shop.kept, scorer)).values()))
        found[str(round_)] = float(served.values.mean()) if len(served.places) else None
    return found
