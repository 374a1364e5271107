"""Recommenders under customer-level privacy: every family, every placement of noise, beside what needs no privacy.

    python benchmarks/recommend.py --data movies --output benchmarks/results/recommend-movies.json

Leave-one-out in time: the last item of every customer is the test, everything before it is for training, and the
held-out item is ranked among all items that the customer does not have; "of 99" is the expectation over 99 negatives,
computed and not sampled, ties at half. The sums are those of the product (whole numbers, discrete Gaussian noise at the
calibrated scale), added up here without the masks, which cancel to the last bit. Every seed draws its own noise.

    secure      secure aggregation at the plan's threshold and colluders; nobody drops out
    pooled      one curator with everybody's data and no margin for colluders
    local       every partner adds all its noise itself
    alone       a partner by itself, with the same privacy; judged on its own customers, averaged over all of them
    none        no privacy at all, everything pooled; and each partner alone

Add/remove of a customer, delta 1e-5, the budget whole for training. Settings were chosen on validation items (each
customer's last but one), which are no part of the test; how many were tried is in the result.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime
import functools
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from conditions import arguments_for, conditions
from numpy.typing import NDArray
from recommend_settings import CONTENT, FAMILIES, KINDS, TRIED, settings_of

from coterie.clients.recommendersums import Asked, recommender_total
from coterie.clients.task import initial_weights, recommender_of
from coterie.models import ranking
from coterie.models.catalogue import Catalogue, encoded
from coterie.models.histories import Histories
from coterie.models.recommenders import family
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.durable import write_durably
from coterie.privacy.plan import (
    SECURE,
    Catalogued,
    Cohort,
    Metrics,
    Model,
    Partner,
    Plan,
    Privacy,
    Recommendation,
    Secure,
    Training,
)
from coterie.privacy.randomness import OsSource
from coterie.privacy.schedule import trained
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.secagg.numbers import Numbers
from coterie.privacy.sums import numbers_of
from coterie.server.optimizers import OptimizerState, optimizer_settings, published
from coterie.server.steps import Total, stepped
from coterie.simulations import sources
from coterie.simulations.sources import baskets

DELTA, EPSILONS = 1e-5, (1.0, 2.0, 4.0, 8.0)
MODES = ("secure", "pooled", "local", "alone")
LONGEST = {"movies": 512, "baskets": 256}
PIECE = 512


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set under the protocol.

    Args:
        partners: Histories without the test item, by partner.
        tests: The test items, likewise.
        items: Items of the catalogue.
        attributes: Encoded public attributes, (items, attributes).
    """

    partners: Mapping[str, Histories]
    tests: Mapping[str, NDArray[np.int64]]
    items: int
    attributes: NDArray[np.float32]


@functools.lru_cache(maxsize=1)
def read(name: str) -> Data:
    """Read a data set, each partner's customers in the order of the file."""
    tables = sources.load(name)
    catalogue = sources.catalogue(name)
    if name == "baskets":
        tables = baskets.core(tables)
        codes = {code for table in tables.values() for code in table["item"].unique().to_pylist()}
        catalogue = subset(catalogue, codes)
    position = {code: place for place, code in enumerate(catalogue.codes)}
    partners, tests = {}, {}
    for partner, table in tables.items():
        who = table["customer"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        days = np.array([day.toordinal() for day in table["day"].to_pylist()], dtype=np.int64)
        items = np.array([position[code] for code in table["item"].to_pylist()], dtype=np.int64)
        order = np.lexsort((np.arange(len(who)), days, who))
        starts = np.concatenate([[0], np.cumsum(np.bincount(who))]).astype(np.int64)
        partners[partner], tests[partner] = Histories(starts, items[order], days[order]).without_last()
    return Data(partners, tests, len(catalogue), encoded(catalogue))


def subset(catalogue: Catalogue, codes: set[str]) -> Catalogue:
    """Return the catalogue of some codes."""
    kept = [place for place, code in enumerate(catalogue.codes) if code in codes]
    attributes = {
        name: cells[kept] if isinstance(cells, np.ndarray) else tuple(cells[place] for place in kept)
        for name, cells in catalogue.attributes.items()
    }
    return Catalogue(tuple(catalogue.codes[place] for place in kept), attributes, catalogue.kind)


def plan_of(name: str, data: Data, kind: str, epsilon: float, *, mode: str, partners: tuple[str, ...]) -> Plan:
    """Return the plan of a run; sizes are the numbers of customers, which the benchmark's protocol makes public."""
    how = settings_of(name, kind, epsilon)
    sizes = {partner: len(data.partners[partner]) for partner in partners}
    roster = {"everybody": sum(sizes.values())} if mode == "pooled" else sizes
    least = 2 * len(roster) // 3 + 1
    return Plan(
        name=f"{name}-{kind}",
        purpose="benchmark",
        task="recommendation",
        expires=datetime.date(2100, 1, 1),
        contract=Contract(
            customer="customer",
            interactions=Interactions(
                item="item", time="day", most=LONGEST[name], least=1, earliest="1990-01-01", latest="2100-01-01"
            ),
        ),
        model=Model(family=kind.removesuffix(CONTENT)),
        training=Training(
            **{"rounds": 1, "local_steps": 1, "sample_rate": 1.0, "learning_rate": 1.0, "clip": 1.0}
            | how.get("training", {})
        ),
        privacy=Privacy(
            unit="customer of one partner",
            epsilon=epsilon,
            delta=DELTA,
            trust=SECURE if mode == "secure" else "local",
            threshold=max(least, 3) if mode == "secure" else 1,
            colluders=1,
        ),
        metrics=Metrics(rounds=(how.get("training", {}).get("rounds", 1),)),
        cohort=Cohort(minimum_customers=10),
        partners=tuple(Partner(name=partner, customers=size) for partner, size in roster.items()),
        catalogue=Catalogued(items=data.items, digest="sha256:" + "0" * 64, attributes=data.attributes.shape[1]),
        recommendation=Recommendation(**how.get("recommendation", {})),
        secure=Secure(**how["secure"]) if "secure" in how else None,
    )


def made(plan: Plan, data: Data, parts: list[Histories], *, private: bool) -> family.Weights:
    """Take a plan's steps over plain sums of the parts, each with its share of the noise, or with none."""
    state = OptimizerState.start(initial_weights(plan))
    settings = optimizer_settings(plan, plan.secure or Secure())
    random, names = OsSource(), tuple(partner.name for partner in plan.partners)
    for step in trained(plan):
        numbers = numbers_of(plan, step)
        asked = Asked(plan, state.weights, data.attributes)
        total = sum(part_of(asked, step, part, numbers, random, private=private) for part in parts)
        state = stepped(plan, state, step, Total(np.asarray(total), names), **({} if private else {"noise": 0.0}))
    return published(settings, state)


def part_of(
    asked: Asked, step: str, part: Histories, numbers: Numbers, random: OsSource, *, private: bool
) -> NDArray[np.int64]:
    """Return a partner's part in a sum."""
    wide = dataclasses.replace(numbers, bound=2**61)
    total = recommender_total(asked, step, part, numbers=numbers if private else wide, stream=random.stream("sample"))
    return total + discrete_gaussians(numbers.share, len(total), random.stream("noise")) if private else total


def everybody(parts: list[Histories]) -> Histories:
    """Put histories together."""
    starts = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))])
    return Histories(
        starts, np.concatenate([part.items for part in parts]), np.concatenate([part.days for part in parts])
    )


def places(plan: Plan, weights: family.Weights, data: Data, partners: tuple[str, ...]) -> ranking.Ranks:
    """Rank the test items of some partners' customers."""
    score = family.scorer(recommender_of(plan), weights, data.attributes)
    return ranking.joined(ranked(score, data.partners[name], data.tests[name]) for name in partners)


def ranked(score: Any, seen: Histories, tests: NDArray[np.int64]) -> ranking.Ranks:  # noqa: ANN401 - from `scorer`
    """Rank test items in pieces."""
    pieces = [np.arange(start, min(start + PIECE, len(seen))) for start in range(0, len(seen), PIECE)]
    return ranking.joined(ranking.ranks(score(seen.of(piece)), seen.of(piece), tests[piece]) for piece in pieces)


def run(name: str, kind: str, mode: str, epsilon: float, seed: int) -> list[dict[str, Any]]:
    """Make a model, or one for each partner, and judge it without and with content; epsilon 0 is no privacy."""
    torch.set_num_threads(1)
    data, began = read(name), time.monotonic()
    everyone, private = tuple(data.partners), epsilon > 0
    groups = [(partner,) for partner in everyone] if mode == "alone" else [everyone]
    found: dict[str, list[ranking.Ranks]] = {kind: [], kind + CONTENT: []}
    for group in groups:
        plan = plan_of(name, data, kind, epsilon or 8.0, mode=mode, partners=group)
        parts = [data.partners[partner] for partner in group]
        if mode == "pooled":
            parts = [everybody(parts)]
        weights = made(plan, data, parts, private=private)
        for shown, judged in found.items():
            judged.append(
                places(plan_of(name, data, shown, epsilon or 8.0, mode=mode, partners=group), weights, data, group)
            )
    seconds = round(time.monotonic() - began, 1)
    rows = []
    for shown, judged in found.items():
        figures = {key: round(float(value), 5) for key, value in ranking.summary(ranking.joined(judged)).items()}
        rows.append({"family": shown, "mode": mode, "epsilon": epsilon, "seed": seed, "seconds": seconds, **figures})
    return rows


def asked_for(arguments: argparse.Namespace) -> Iterator[tuple[str, str, float, int]]:
    """Yield the runs."""
    for kind in arguments.families:
        for mode in ("pooled", "alone"):
            yield kind, mode, 0.0, 0
        for epsilon in EPSILONS:
            for mode in arguments.modes:
                for seed in range(arguments.seeds):
                    yield kind, mode, epsilon, seed


def main() -> None:
    """Run what is asked for that is not there yet, and write all of it down."""
    parser = arguments_for(__doc__)
    parser.add_argument("--data", choices=sorted(LONGEST), default="movies")
    parser.add_argument("--families", nargs="+", default=list(KINDS))
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no run after so many")
    arguments = parser.parse_args()
    began, rows = time.monotonic(), []
    if arguments.output is not None and arguments.output.exists():
        rows = json.loads(arguments.output.read_text(encoding="utf-8"))["rows"]
    there = {(row["family"], row["mode"], row["epsilon"], row["seed"]) for row in rows}
    wanted = [one for one in asked_for(arguments) if one not in there]
    context = multiprocessing.get_context("spawn")
    rest: list[tuple[str, str, float, int]] = []
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        waiting = {pool.submit(run, arguments.data, *one) for one in wanted[: arguments.jobs]}
        rest = wanted[arguments.jobs :]
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            rows += [row for future in done for row in future.result()]
            for _ in done:
                if rest and time.monotonic() - began < 60 * arguments.minutes:
                    waiting.add(pool.submit(run, arguments.data, *rest.pop(0)))
            written(arguments, rows)  # whoever stops here goes on from here
    print(json.dumps(written(arguments, rows), indent=1))


def written(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write down what is there so far."""
    rows.sort(key=lambda row: (FAMILIES.index(row["family"]), row["mode"], row["epsilon"], row["seed"]))
    what = f"{arguments.data}: leave-one-out in time, add/remove of a customer, delta {DELTA:g}"
    about = {"what": what, "settings tried": TRIED[arguments.data]}
    result = {**about, **conditions("opacus", "torch", "dp-accounting", "numpy"), "rows": rows}
    if arguments.output is not None:
        write_durably(arguments.output, json.dumps(result, indent=1).encode() + b"\n")
    return result


if __name__ == "__main__":
    main()
