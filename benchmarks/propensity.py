"""Propensity models under customer-level privacy: every family, every placement of noise, beside boosting.

    make bench
    python benchmarks/propensity.py --only adult --families additive lightgbm
    python benchmarks/propensity.py --page

A cell of the table is a split of the data set into four fifths for training and a fifth held out, by a seed on which
nothing was chosen; a model made of the first, and judged on the second. Add/remove of a customer, delta 1e-5, the
budget whole for training; noise is drawn anew in every cell. Results are lines of JSON, so that whoever stops here goes
on from here; `--again` makes what is asked for anew. `--page` writes propensity.md and .json of what there is.
"""

import argparse
import hashlib
import importlib.metadata
import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import propensity_ours as ours
import torch
from conditions import conditions
from numpy.typing import NDArray
from propensity_data import DATA, SEEDS, Data, Rows, measured, read
from propensity_page import page
from propensity_settings import NO_PRIVACY, OURS, PEERS, TRIED, Cell

from coterie.privacy.durable import write_durably

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, NO_PRIVACY)
NATURAL_EPSILON = 1.0
SLOW = {"logistic": ("adult",), "mlp": ("adult",)}  # families that are measured on these alone unless asked for
SLOW_EPSILONS = (1.0, 4.0)
PARTNERS = ("dealt", "natural")
Floats = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results"
ROWS = Path(__file__).parent.parent / "build" / "propensity.jsonl"


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells that are asked for, those of one split after the other."""
    for data, partners, family in itertools.product(arguments.only, arguments.partners, arguments.families):
        for mode, epsilon, seed in itertools.product(arguments.modes, arguments.epsilons, arguments.seeds):
            if _there(family, mode, epsilon) and (partners == "dealt" or epsilon in {NATURAL_EPSILON, NO_PRIVACY}):
                slow = data not in SLOW.get(family, (data,)) or (family in SLOW and epsilon not in SLOW_EPSILONS)
                if not slow or arguments.slow:
                    yield Cell(data, partners, family, mode, epsilon, seed)


def _there(family: str, mode: str, epsilon: float) -> bool:
    """Whether a family has such a cell: without noise it matters not who adds it, and peers know no federation."""
    if mode not in {"pooled", "alone"} and (family in PEERS or epsilon == NO_PRIVACY):
        return False
    if family == "ebm" and mode == "alone":
        return False  # LightGBM says what a partner alone may have without privacy
    return family in OURS or (family == "dp-ebm") == (epsilon != NO_PRIVACY)


def run(cell: Cell) -> dict[str, Any]:
    """Make the models of a cell and judge them."""
    began, held = time.monotonic(), read(cell.data)
    train, test = (parted(held, rows, cell) for rows in held.split(cell.seed))
    if cell.family in OURS:
        scores = list(ours.models(cell, train, test))
        chances, about = [1 / (1 + np.exp(-one)) for one in scores], {"settings": digest(cell, train)}
    else:
        import propensity_peers as peers

        scores, about = list(peers.chances(held.contract, cell, train, test)), {}
        chances = scores
        peers.confirm(chances[0], test, measured(scores[0], chances[0], test))
    found = {name: round(value, 5) for name, value in judged(scores, chances, test).items()}
    return {**cell._asdict(), **found, "seconds": round(time.monotonic() - began, 2), **about}


def parted(data: Data, rows: Rows, cell: Cell) -> Rows:
    """Return rows of dealt partners, or of natural ones, where a person at two of them is two customers."""
    if cell.partners == "dealt":
        return data.dealt(rows, cell.seed)
    return replace(rows, customer=rows.customer * len(data.partners) + rows.partner)


def judged(scores: Sequence[Floats], chances: Sequence[Floats], test: Rows) -> dict[str, float]:
    """Return the mean of each model's figures on all held-out rows; "own" is the AUC on partners' own held-out rows.

    "own" is averaged over partners by their customers, each judged by its own model where each has one.
    """
    each = [measured(score, chance, test) for score, chance in zip(scores, chances, strict=True)]
    found = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    own, weight = [], []
    for place, number in enumerate(np.unique(test.partner)):
        mine = test.partner == number
        score = scores[place if len(scores) > 1 else 0][mine]
        auc = measured(score, chances[0][mine], test.of(mine))["auc"]
        if not math.isnan(auc):  # as of a partner with one class
            own.append(auc)
            weight.append(test.of(mine).customers)
    return found | {"own": float(np.average(own, weights=weight))}


def digest(cell: Cell, train: Rows) -> str:
    """Return what tells settings apart, so that results of others are not taken for them."""
    plan = ours.plan_of(cell, [part.customers for part in train.parts()][: 1 if cell.mode == "alone" else None])
    said = {name: asdict(getattr(plan, name)) for name in ("model", "bins", "training", "secure", "privacy")}
    columns = [asdict(column) for column in plan.contract.columns]
    return hashlib.sha256(json.dumps([said, columns], sort_keys=True).encode()).hexdigest()[:12]


def kept(place: Path) -> dict[Cell, dict[str, Any]]:
    """Return the results that are there; of what was measured twice the last stands."""
    lines = place.read_text(encoding="utf-8").splitlines() if place.exists() else []
    rows = [json.loads(line) for line in lines]
    if not rows and (RESULTS / "propensity.json").exists():
        rows = json.loads((RESULTS / "propensity.json").read_text(encoding="utf-8"))["rows"]
    return {Cell(*(row[name] for name in Cell._fields)): row for row in rows}


def written(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the results and their page."""
    names = ("numpy", "torch", "opacus", "dp-accounting", "lightgbm", "interpret-core", "scikit-learn")
    installed = [name for name in names if any(True for _ in importlib.metadata.distributions(name=name))]
    about = {"seeds": list(SEEDS), "settings tried": TRIED, **conditions(*installed)}
    lines = ",\n".join(json.dumps(row) for row in rows)
    whole = json.dumps(about, indent=1).rstrip("\n}") + ',\n "rows": [\n' + lines + "\n]}\n"
    write_durably(folder / "propensity.json", whole.encode())
    write_durably(folder / "propensity.md", page(about, rows).encode())


def main() -> None:
    """Run what is asked for that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--partners", nargs="+", default=list(PARTNERS), choices=PARTNERS)
    parser.add_argument("--families", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--modes", nargs="+", default=list(ours.MODES), choices=ours.MODES)
    parser.add_argument("--epsilons", nargs="+", type=float, default=list(EPSILONS), choices=EPSILONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--rows", type=Path, default=ROWS, help="where results are added, line by line")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the page")
    parser.add_argument("--slow", action="store_true", help="also what is slow and left out by default")
    parser.add_argument("--again", action="store_true", help="also what is there already")
    parser.add_argument("--page", action="store_true", help="write the page of what is there, and run nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found, wanted = kept(arguments.rows), [] if arguments.page else list(cells(arguments))
    todo = [cell for cell in wanted if arguments.again or cell not in found]
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(todo, 1):
        row = run(cell)
        with arguments.rows.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(
            f"{number}/{len(todo)}", *cell, f"auc {row['auc']:.4f} own {row['own']:.4f} {row['seconds']} s", flush=True
        )
    found = kept(arguments.rows)
    written(arguments.output, [found[cell] for cell in sorted(found)])


if __name__ == "__main__":
    main()
