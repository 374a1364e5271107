"""How long `coterie partner recommend` takes: 100,000 customers, 20,000 items, the best 20 of each, in one run.

Each kind has a process of its own, so that the greatest memory is its own too, and all are taken in turns. Seconds are
of the wall; `processor_seconds` are of all cores together, and show how much other work on the machine counted.

    pip install implicit==0.7.3
    python benchmarks/recommend_speed.py --output benchmarks/results/recommend_speed.json

- `command`: all of it, from the files of model, catalogue and purchases to the file of lists: reading and checking,
  scoring by item-gram (2,000 items kept, rank 64), owned items left out, the best 20, one reason for each, writing.
- `strict`: the same with all rules: a stock, a red line, variety, and every item to at most 2,000 customers.
- `ours`: scoring and the best 20 alone, from histories in memory to arrays.
- `numpy`: what one writes in ten lines: customers as sums of their items' vectors, times the vectors of all items, in
  pieces of 1,000; owned items left out; `argpartition`, and a sort.
- `implicit`: its `recommend` from ready customer vectors of the same rank, owned items left out, in pieces of 1,000,
  with as many threads as it likes.

What is not comparable: `numpy` and `implicit` score by a plain product of two vectors. Ours turns what it models into a
lift over popularity, and takes logarithms; the other items it ranks by popularity. `implicit` is given the customers'
vectors, ours and `numpy` make them from histories.
"""

import datetime
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from conditions import arguments_for, conditions, publish

TOP, RANK, KEEP, PIECE = 20, 64, 2000, 1000
ROWS = 40  # of a customer, in the mean
DAY = datetime.date(2026, 6, 1)


def made(folder: Path, customers: int, items: int) -> None:
    """Write catalogue, purchases and a model, all drawn; skewed as sales are, many of them bought again."""
    from coterie.clients.catalogues import write_catalogue
    from coterie.models.catalogue import Catalogue, encoded
    from coterie.models.modelfile import ModelFile, model_bytes

    rng = np.random.default_rng(1)
    codes = tuple(f"I{number:07d}" for number in range(items))
    category = tuple(f"category {number}" for number in rng.integers(0, 60, items))
    catalogue = Catalogue(codes, {"category": category, "name": tuple(f"PRODUCT {code}" for code in codes)})
    write_catalogue(catalogue, folder / "items.parquet")
    share = 1 / (np.arange(items) + 20.0)
    who = rng.permutation(np.repeat(np.arange(customers), 1 + rng.gamma(1.0, ROWS, customers).astype(np.int64)))
    rows = len(who)
    table = pa.table(
        {
            "customer": pa.array([f"C{number:08d}" for number in range(customers)]).take(pa.array(who)),
            "item": pa.array(codes).take(pa.array(rng.choice(items, rows, p=share / share.sum()))),
            "day": pa.array(rng.integers(20_000, 20_600, rows).astype(np.int32), pa.date32()),
        }
    )
    pa.parquet.write_table(table, folder / "purchases.parquet", compression="zstd")
    kept = min(KEEP, items)
    factors = np.linalg.qr(rng.standard_normal((kept, RANK)))[0].astype(np.float32)
    weights = ((share / share.sum()).astype(np.float32), factors, np.linspace(0.9, 0.2, RANK, dtype=np.float32))
    plan = plan_of(catalogue.digest(), items, encoded(catalogue).shape[1])
    (folder / "model.safetensors").write_bytes(
        model_bytes(ModelFile("item-gram", 32, weights, {"plan": plan.to_dict()}))
    )
    stock = [code for code, there in zip(codes, rng.random(items) < 0.9, strict=True) if there]
    (folder / "stock.txt").write_text("\n".join(stock))
    (folder / "rules.toml").write_text(
        'stock = "stock.txt"\nat_most_per_item = 2000\ndiversity = 0.3\n[red_lines]\ncategory = ["category 7"]\n'
    )


def plan_of(digest: str, items: int, attributes: int) -> Any:  # noqa: ANN401
    """Return a plan that a model of this catalogue may have come from."""
    from coterie.privacy import plan
    from coterie.privacy.contract import Contract, Interactions

    return plan.Plan(
        name="speed",
        purpose="benchmark",
        task="recommendation",
        expires=datetime.date(2030, 1, 1),
        contract=Contract(
            customer="customer",
            interactions=Interactions(item="item", time="day", most=256, earliest="2020-01-01", latest="2026-05-31"),
        ),
        model=plan.Model(family="item-gram"),
        training=plan.Training(rounds=1, local_steps=1, sample_rate=1.0, learning_rate=0.1, clip=1.0),
        privacy=plan.Privacy(
            unit="customer of one partner", epsilon=2.0, delta=1e-5, trust="local", threshold=2, colluders=1
        ),
        metrics=plan.Metrics(rounds=(1,), bins=8),
        cohort=plan.Cohort(minimum_customers=10),
        partners=tuple(plan.Partner(name=name, customers=100_000) for name in ("amber", "birch", "cedar")),
        catalogue=plan.Catalogued(items=items, digest=digest, attributes=attributes),
        recommendation=plan.Recommendation(keep=KEEP, rank=RANK),
    )


def command(folder: Path, rules: str | None = None) -> Callable[[], int]:
    from coterie.clients.recommending import Terms, recommend

    def work() -> int:
        output = folder / f"lists-{os.getpid()}.parquet"
        terms = Terms(top=TOP, reasons=1, rules=folder / rules if rules else None, today=DAY)
        model, table = folder / "model.safetensors", folder / "purchases.parquet"
        done = recommend(model, table, output, catalogue=folder / "items.parquet", terms=terms)
        output.unlink()
        return done.rows

    return work


class Nowhere:
    """Where lists go that are only counted."""

    def __init__(self) -> None:
        self.rows = 0

    def add(self, _chosen: Any, lists: Any, _reasons: Any) -> None:  # noqa: ANN401
        self.rows += int((lists.items >= 0).sum())


def read(folder: Path) -> tuple[Any, Any]:
    """Return catalogue and purchases."""
    from coterie.clients.catalogues import match_items, read_catalogue
    from coterie.clients.purchases import Wanted, read_purchases
    from coterie.clients.tables.files import table_at

    catalogue = read_catalogue(folder / "items.parquet", "taxonomy")
    wanted = Wanted(customer="customer", item="item", time="day", today=DAY)
    table = table_at(folder / "purchases.parquet")
    return catalogue, read_purchases(table, wanted, lambda codes: match_items(codes, catalogue))


def ours(folder: Path) -> Callable[[], int]:
    from coterie.clients.because import Because
    from coterie.clients.listmaking import Engine, write_lists
    from coterie.clients.rules import OwnRules
    from coterie.models.modelfile import load_model
    from coterie.models.recommenders import family
    from coterie.models.recommenders.settings import Recommender
    from coterie.models.reranking import Reranker

    catalogue, purchases = read(folder)
    weights = load_model(folder / "model.safetensors").weights
    settings = Recommender(family="item-gram", items=len(catalogue), keep=KEEP, rank=RANK)
    engine = Engine(
        settings=settings,
        weights=weights,
        score=family.scorer(settings, weights),
        reranker=Reranker(OwnRules().of_lists(TOP), np.ones(len(catalogue), dtype=np.bool_)),
        because=Because.of(catalogue, None, None, 0),
        in_turn=False,
        seed=b"",
    )

    def work() -> int:
        nowhere = Nowhere()
        write_lists(engine, purchases, nowhere)  # type: ignore[arg-type] - all that is asked of it is `add`
        return nowhere.rows

    return work


def pieces(purchases: Any) -> list[Any]:  # noqa: ANN401
    starts = range(0, len(purchases), PIECE)
    return [purchases.histories(np.arange(s, min(s + PIECE, len(purchases))), longest=256)[0] for s in starts]


def with_numpy(folder: Path) -> Callable[[], int]:
    catalogue, purchases = read(folder)
    vectors = np.random.default_rng(2).standard_normal((len(catalogue), RANK)).astype(np.float32)
    histories = pieces(purchases)

    def work() -> int:
        rows = 0
        for some in histories:
            customers = np.add.reduceat(vectors[some.items], some.starts[:-1])
            scores = customers @ vectors.T
            scores[np.repeat(np.arange(len(some)), some.lengths), some.items] = -np.inf
            best = np.argpartition(scores, -TOP, axis=1)[:, -TOP:]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
            rows += np.take_along_axis(best, order, 1).size
        return rows

    return work


def with_implicit(folder: Path) -> Callable[[], int]:
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    catalogue, purchases = read(folder)
    rng, count = np.random.default_rng(2), len(purchases)
    model = AlternatingLeastSquares(factors=RANK, use_gpu=False)
    model.user_factors = rng.standard_normal((count, RANK)).astype(np.float32)
    model.item_factors = rng.standard_normal((len(catalogue), RANK)).astype(np.float32)
    owned = [
        csr_matrix((np.ones(len(some.items), np.float32), some.items, some.starts), shape=(len(some), len(catalogue)))
        for some in pieces(purchases)
    ]

    def work() -> int:
        rows = 0
        for start, bought in zip(range(0, count, PIECE), owned, strict=True):
            ids = np.arange(start, min(start + PIECE, count))
            rows += model.recommend(ids, bought, N=TOP, filter_already_liked_items=True)[0].size
        return rows

    return work


KINDS: dict[str, Callable[[Path], Callable[[], int]]] = {
    "command": command,
    "strict": lambda folder: command(folder, "rules.toml"),
    "ours": ours,
    "numpy": with_numpy,
    "implicit": with_implicit,
}


def alone(kind: str, folder: Path) -> None:
    """Measure one kind in this process, and print what it took."""
    work = KINDS[kind](folder)
    began = time.perf_counter(), time.process_time()
    rows = work()
    seconds, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "processor_seconds": processor, "peak_mib": peak, "rows": rows}))


def measured(kind: str, folder: Path) -> dict[str, float]:
    """Measure one kind in a process of its own; numpy's own threads are for `numpy` alone."""
    threads = {} if kind == "numpy" else {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--kind", kind, "--folder", str(folder)]
    done = subprocess.run(command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def middle(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(f"{statistics.median(run[name] for run in runs):.4g}") for name in runs[0] if name != "rows"}


def main() -> None:
    parser = arguments_for(__doc__)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kind", choices=list(KINDS), help="measure this one alone, on files that are there")
    parser.add_argument("--folder", type=Path, help="where they are")
    arguments = parser.parse_args()
    if arguments.kind:
        alone(arguments.kind, arguments.folder)
        return
    kinds = [kind for kind in KINDS if kind != "implicit" or importlib.util.find_spec("implicit")]
    with tempfile.TemporaryDirectory() as name:
        made(Path(name), arguments.customers, arguments.items)
        turns = [{kind: measured(kind, Path(name)) for kind in kinds} for _ in range(arguments.repeat)]
    figures = {kind: middle([turn[kind] for turn in turns]) for kind in kinds}
    wrong = {
        kind: turn[kind]["rows"] for turn in turns for kind in kinds if turn[kind]["rows"] != arguments.customers * TOP
    }
    if wrong:
        sys.exit(f"not everybody got {TOP} items: {wrong}")
    ratios = {
        f"{kind}_over_ours_{what}": round(figures[kind][what] / figures["ours"][what], 2)
        for kind in kinds
        if kind in {"numpy", "implicit"}
        for what in ("seconds", "processor_seconds")
    }
    result = {
        "what": f"the best {TOP} of {arguments.items} items for each of {arguments.customers} customers",
        **conditions("numpy", "pyarrow", *(["implicit"] if "implicit" in kinds else [])),
        "cores_used": len(os.sched_getaffinity(0)),
        "load_at_the_end": os.getloadavg()[0],
        "repetitions": arguments.repeat,
        "kinds": figures,
        "ratios": ratios,
    }
    publish(result, arguments.output)


if __name__ == "__main__":
    main()
