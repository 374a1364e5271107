"""One step over everybody, of models on private bins: our clipped whole-number sums beside plain full-batch gradients.

    python benchmarks/propensity_step.py

The peer is what one would write without privacy: the same model in torch on indicators, and on slots by embeddings.
Processor time of one thread, the least of several steps; ratios are to the faster peer. Rows are made up: what a step
takes does not depend on them.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conditions import conditions
from torch.nn import functional

from coterie.models.additive import margins
from coterie.models.binning import one_hot
from coterie.privacy.durable import write_durably
from coterie.privacy.randomness import OsSource
from coterie.privacy.training.binnedsums import Judged, ResidualSettings, residual_total
from coterie.privacy.training.slotsums import SlotSummer
from coterie.privacy.training.sums import SumSettings

RESULT = Path(__file__).parent / "results" / "propensity_step.json"
ROWS, COLUMNS, WORDS = 40_000, 10, 20
SETTINGS = {"clip": 2.3, "sensitivity": 2**16, "bound": 2**40, "sample_rate": 1.0, "positive_weight": 1.0}
REPEATS = 7


def least(step: Callable[[], object]) -> float:
    """Return the least processor time of a step, in milliseconds."""
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        step()
        found.append(time.process_time() - began)
    return 1000 * min(found)


def peers(slots: np.ndarray, labels: np.ndarray, hidden: int) -> tuple[float, float]:
    """Return the time of a plain step on indicators, and on slots."""
    width, target = COLUMNS * WORDS, torch.from_numpy(labels)
    dense = torch.from_numpy(one_hot(slots, width))
    table, sparse = torch.zeros(width, max(hidden, 1), requires_grad=True), torch.from_numpy(slots)
    last = torch.ones(max(hidden, 1), 1, requires_grad=True)

    def step(first: Callable[[], torch.Tensor]) -> None:
        z = first()
        logits = (torch.tanh(z) @ last)[:, 0] if hidden else z[:, 0]
        functional.binary_cross_entropy_with_logits(logits, target).backward()
        for weight in (table, last):
            weight.grad = None

    return (
        least(lambda: step(lambda: dense @ table)),
        least(lambda: step(lambda: torch.stack([functional.embedding(s, table) for s in sparse.T]).sum(dim=0))),
    )


def main() -> None:
    """Measure every family, print ratios, and write them down."""
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    slots = draw.integers(0, WORDS, (ROWS, COLUMNS)) + WORDS * np.arange(COLUMNS)
    labels, customer = (draw.random(ROWS) < 0.2).astype(np.float32), np.arange(ROWS)
    width, stream, rows = COLUMNS * WORDS, OsSource().stream("benchmark"), []
    for family, hidden in (("additive", 0), ("logistic", 0), ("mlp", 16), ("mlp", 32), ("mlp", 128)):
        shapes = [(hidden, width), (hidden,), (1, hidden), (1,)] if hidden else [(1, width), (1,)]
        weights = tuple(draw.normal(0, 0.1, shape).astype(np.float32) for shape in shapes)
        if family == "additive":
            how = ResidualSettings(**SETTINGS)
            ours = least(
                lambda w=weights, h=how: residual_total(
                    slots, Judged(margins(w, slots), labels, customer), width=width, settings=h, stream=stream
                )
            )
        else:
            summer, how = SlotSummer(width, hidden), SumSettings(**SETTINGS)
            ours = least(
                lambda s=summer, w=weights, h=how: s.total(w, (slots, labels, customer), settings=h, stream=stream)
            )
        dense, sparse = peers(slots, labels, hidden)
        ratio = ours / min(dense, sparse)
        print(f"{family} {hidden}: ours {ours:.1f} ms, indicators {dense:.1f} ms, slots {sparse:.1f} ms: {ratio:.2f}x")
        rows.append({"family": family, "hidden": hidden, "ours": ours, "indicators": dense, "slots": sparse})
    told = {"rows": ROWS, "columns": COLUMNS, "slots": width, "milliseconds": rows, "conditions": conditions()}
    write_durably(RESULT, (json.dumps(told, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
