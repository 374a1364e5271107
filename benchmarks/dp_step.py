"""What a DP-SGD step of a recommender costs in time and memory, against Opacus and no privacy.

    python benchmarks/dp_step.py --output benchmarks/results/dp_step.json

Three models (B = 1024 customers, 32 columns): matrix factorisation (2 tables), NeuMF (4 tables and layers), two towers
(a table of histories of 10, a table of items, 2 x 2 layers), with 1,700 to 1,000,000 rows a table. A step is zero_grad,
forward, loss, backward, clip, noise (multiplier 1) and plain SGD, data in tensors. Each case runs in a fresh process on
one thread; the fastest of its steps counts, in time of the processor (which other work on the machine disturbs least)
and in wall time; peak memory is that of the process above what it had before its first
step. Lazy noise pays a hundredth of a flush in every step. What cannot run says why.
"""

import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from conditions import arguments_for, conditions, publish
from torch import nn
from torch.nn import functional

from coterie.privacy.training.adafest import AdaFestSGD, Selection
from coterie.privacy.training.bookkeeping import BookkeepingModule, BookkeepingOptimizer, BookkeepingSGD
from coterie.privacy.training.lazynoise import LazySGD

BATCH, WIDTH, HISTORY, FLUSH = 1024, 32, 10, 100
ROWS = (1_700, 20_000, 200_000, 1_000_000)
MOST_BYTES = 6 * 2**30  # of hooks' dense per-customer gradients; a machine needs half as much again
SECONDS = 2.0  # of timed steps of one case
CASES = ("sparse", "dense", "hooks", "ghost", "ours, any optimiser", "ours, exact", "ours, lazy", "ours, adafest")

Step = Callable[[tuple[torch.Tensor, ...], torch.Tensor], None]


class MatrixFactorisation(nn.Module):
    """The product of a customer's row and an item's."""

    tables = 2

    def __init__(self, rows: int, *, sparse: bool) -> None:
        super().__init__()
        self.customers = nn.Embedding(rows, WIDTH, sparse=sparse)
        self.items = nn.Embedding(rows, WIDTH, sparse=sparse)

    def forward(self, customer: torch.Tensor, _: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return (self.customers(customer) * self.items(item)).sum(dim=-1)


class NeuMF(nn.Module):
    """Matrix factorisation and layers over tables of their own (He et al. 2017, arXiv 1708.05031)."""

    tables = 4

    def __init__(self, rows: int, *, sparse: bool) -> None:
        super().__init__()
        self.tables_ = nn.ModuleList(nn.Embedding(rows, WIDTH, sparse=sparse) for _ in range(4))
        sizes = (2 * WIDTH, 64, 32, 16)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        self.last = nn.Linear(WIDTH + sizes[-1], 1)

    def forward(self, customer: torch.Tensor, _: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        one, two, three, four = self.tables_
        x = torch.cat([three(customer), four(item)], dim=-1)
        for layer in self.layers:
            x = layer(x).relu()
        return self.last(torch.cat([one(customer) * two(item), x], dim=-1)).squeeze(-1)


class TwoTowers(nn.Module):
    """A tower over the mean of a history, a tower over an item, and their product."""

    tables = 2

    def __init__(self, rows: int, *, sparse: bool) -> None:
        super().__init__()
        self.bought = nn.Embedding(rows, WIDTH, sparse=sparse)
        self.items = nn.Embedding(rows, WIDTH, sparse=sparse)
        self.left = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, WIDTH))
        self.right = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, WIDTH))

    def forward(self, _: torch.Tensor, history: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        # Ghost clipping views gradients: they must be contiguous.
        return (self.left(self.bought(history).mean(dim=1)) * self.right(self.items(item))).sum(dim=-1)


MODELS = {"mf": MatrixFactorisation, "neumf": NeuMF, "two towers": TwoTowers}
SETTINGS: dict[str, Any] = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": BATCH}


def plain(model: nn.Module) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(model(*inputs), labels).backward()
        optimizer.step()

    return step


def hooks(model: nn.Module) -> Step:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    wrapped = GradSampleModule(model)
    return private(wrapped, DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), **SETTINGS))


def ghost(model: nn.Module) -> Step:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0, use_ghost_clipping=True)
    optimizer = DPOptimizerFastGradientClipping(torch.optim.SGD(model.parameters(), lr=0.1), **SETTINGS)
    loss = DPLossFastGradientClipping(wrapped, optimizer, nn.BCEWithLogitsLoss())

    def step(inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss(wrapped(*inputs), labels).backward()
        optimizer.step()

    return step


def private(wrapped: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    def step(inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(wrapped(*inputs), labels).backward()
        optimizer.step()

    return step


def ours(kind: type[BookkeepingOptimizer], model: nn.Module, **more: Selection) -> tuple[Step, BookkeepingOptimizer]:
    wrapped = BookkeepingModule(model)
    optimizer = kind(torch.optim.SGD(model.parameters(), lr=0.1), **SETTINGS, **more)
    return private(wrapped, optimizer), optimizer


def build(case: str, model: nn.Module) -> tuple[Step, Callable[[], None] | None]:
    """Return a case's step, and its flush if it has one."""
    if case in {"sparse", "dense"}:
        return plain(model), None
    if case in {"hooks", "ghost"}:
        return {"hooks": hooks, "ghost": ghost}[case](model), None
    if case == "ours, lazy":
        step, optimizer = ours(LazySGD, model)
        return step, getattr(optimizer, "flush", None)
    if case == "ours, adafest":
        return ours(AdaFestSGD, model, selection=Selection(clip=1.0, ratio=1.0, threshold=5.0))[0], None
    return ours(BookkeepingSGD if case == "ours, exact" else BookkeepingOptimizer, model)[0], None


def batches(rows: int) -> Iterator[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    torch.manual_seed(0)
    made = [
        (
            (
                torch.randint(0, rows, (BATCH,)),
                torch.randint(0, rows, (BATCH, HISTORY)),
                torch.randint(0, rows, (BATCH,)),
            ),
            torch.randint(0, 2, (BATCH,)).float(),
        )
        for _ in range(16)
    ]
    return itertools.cycle(made)


def peak() -> float:
    """Return the most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fastest(action: Callable[[], object], seconds: float = SECONDS) -> tuple[float, float]:
    """Return the fewest milliseconds that an action took: of the processor, and on the wall."""
    processor, wall, began = [], [], time.perf_counter()
    while (len(wall) < 3 and not sum(wall) > 2 * seconds) or time.perf_counter() - began < seconds:
        start = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return 1000 * min(processor), 1000 * min(wall)


def measured(name: str, rows: int, case: str) -> dict[str, Any]:
    """Run one case in this process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kind = MODELS[name]
    if case == "hooks" and (needed := kind.tables * BATCH * rows * WIDTH * 4) > MOST_BYTES:
        return {"skipped": f"{needed / 2**30:.1f} GiB of per-customer gradients"}
    model, data = kind(rows, sparse=case == "sparse"), batches(rows)
    before = peak()
    step, flush = build(case, model)
    try:
        step(*next(data))
    except (NotImplementedError, RuntimeError) as error:
        return {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"}
    gc.disable()
    cpu, wall = fastest(lambda: step(*next(data)))
    found = {"ms": cpu, "wall_ms": wall}
    if flush is not None:
        both = fastest(lambda: (step(*next(data)), flush()))
        found["flush_ms"], found["flush_wall_ms"] = both[0] - cpu, both[1] - wall
        found["ms"] += max(0.0, found["flush_ms"]) / FLUSH
        found["wall_ms"] += max(0.0, found["flush_wall_ms"]) / FLUSH
    return {**found, "mb_above_start": peak() - before, "mb_whole": peak()}


def in_a_process(name: str, rows: int, case: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", json.dumps([name, rows, case])]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        return {"skipped": f"the process ended with {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cell(found: dict[str, Any], dense: dict[str, Any]) -> str:
    if "skipped" in found:
        return "not run"
    ratio = found["ms"] / dense["ms"]
    return f"{found['ms']:.2f} ({ratio:.3g}x) +{found['mb_above_start']:.0f} MB"


def table(results: dict[str, dict[str, dict[str, dict[str, Any]]]]) -> str:
    """Return the results as a Markdown table: ms a step, its ratio to the dense step without privacy, memory."""
    lines = ["| model | rows | " + " | ".join(CASES) + " |", "|" + "---|" * (len(CASES) + 2)]
    notes = []
    for name, sizes in results.items():
        for rows, cases in sizes.items():
            cells = [cell(cases[case], cases["dense"]) for case in CASES]
            lines.append(f"| {name} | {int(rows):,} | " + " | ".join(cells) + " |")
            notes += [
                f"- {name}, {int(rows):,} rows, {case}: {cases[case]['skipped']}"
                for case in CASES
                if "skipped" in cases[case]
            ]
    return "\n".join([*lines, "", "Not run:", *notes])


def main() -> None:
    parser = arguments_for(__doc__)
    parser.add_argument("--case", help="one case, as JSON: model, rows, case")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measured(*json.loads(arguments.case))))
        return
    results: dict[str, Any] = {}
    for name, rows, case in itertools.product(MODELS, arguments.rows, CASES):
        found = results.setdefault(name, {}).setdefault(str(rows), {})[case] = in_a_process(name, rows, case)
        print(name, rows, case, found, file=sys.stderr, flush=True)
    said = conditions("torch", "opacus", "numpy", "cryptography")
    heading = (
        "ms of the processor a step (ratio to the dense step without privacy), peak memory above the start; "
        f"B = {BATCH}, {WIDTH} columns, one thread.\n\n{said['date']}, {said['machine']}, Python {said['python']}, "
        + ", ".join(f"{package} {version}" for package, version in said["versions"].items())
    )
    text = f"{heading}\n\n{table(results)}\n"
    print(text, file=sys.stderr)
    if arguments.output is not None:
        Path(arguments.output).with_suffix(".md").write_text(text, encoding="utf-8")
    publish(
        {"what": heading.split("\n")[0], **said, "batch": BATCH, "columns": WIDTH, "results": results}, arguments.output
    )


if __name__ == "__main__":
    main()
