"""A small federation that learns on private bins: plans, tables with all that bins are about, and a plain oracle.

Imported as `coterie.tests.clients.binnedkit`.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pyarrow as pa

from coterie.clients.groups import is_held_out
from coterie.clients.task import SumTask, binning_of, initial_weights
from coterie.privacy.contract import Column, Contract
from coterie.privacy.plan import Bins, Model, Partner, Plan, Secure, Training
from coterie.tests.clients.federation import MORE, changed, study
from coterie.tests.clients.summing import FOUR, Summing

REGIONS, SEXES = ("north", "south", "east"), ("female", "male")
FAMILIES, TRUSTS = ("additive", "logistic", "mlp"), ("local", "secure-aggregation")
BINS = Bins(most=5, cells=16, counts=0.2, ridge=1.0, damping=1.0)

CONTRACT = Contract(
    customer="customer",
    label="bought",
    columns=(
        Column(name="age", kind="numeric", low=18, high=90, missing="centre"),
        Column(
            name="spend",
            kind="numeric",
            low=0,
            high=5000,
            atoms=(0.0,),
            spacing="log",
            outside="clip",
            missing="centre",
        ),
        Column(name="region", kind="categorical", values=REGIONS, outside="clip", missing="centre"),
    ),
)
AUDITED = dataclasses.replace(
    CONTRACT,
    columns=(
        *CONTRACT.columns,
        Column(name="sex", kind="categorical", values=SEXES, use="audit", outside="clip", missing="centre"),
    ),
)


def binned(family: str = "additive", trust: str = "local", **changes: object) -> Plan:
    """A plan on bins among four partners: one round of three steps."""
    plan = study(
        contract=CONTRACT,
        model=Model(family=family, hidden=3),
        bins=BINS,
        training=Training(rounds=1, local_steps=3, sample_rate=1.0, learning_rate=0.5, clip=2.0),
        secure=Secure(optimizer="adam" if family == "mlp" else "newton", momentum=0.5, averaging=0.5),
        privacy__epsilon=8.0,
        privacy__trust=trust,
        privacy__threshold=3,
        metrics__rounds=(1,),
        partners=tuple(Partner(name=name, customers=100) for name in FOUR),
    )
    return changed(plan, **changes)


def table_of(name: str = "amber", customers: int = 80, rows: int = 1) -> pa.Table:
    """Rows of a partner's customers, one to `rows` each: zeros, long tails, unknown words and gaps among them."""
    draw = np.random.default_rng([MORE.index(name), customers, rows])
    each = draw.integers(1, rows + 1, customers)
    count = int(each.sum())
    age = [None if draw.uniform() < 0.1 else int(draw.integers(18, 91)) for _ in range(count)]
    spend = np.where(draw.uniform(size=count) < 0.4, 0.0, np.exp(draw.normal(4, 2, count)).round(2))
    regions = draw.choice([*REGIONS, "elsewhere"], count).tolist()
    sexes = draw.choice([*SEXES, "unsaid"], count).tolist()
    chance = 1 / (1 + np.exp(2 - spend / 100))
    return pa.table(
        {
            "customer": [f"{name}-{number:05d}" for number in np.repeat(np.arange(customers), each)],
            "age": pa.array(age, pa.int64()),
            "spend": [None if draw.uniform() < 0.05 else value for value in spend.tolist()],
            "region": [None if region == "east" and draw.uniform() < 0.3 else region for region in regions],
            "sex": sexes,
            "bought": (draw.uniform(size=count) < chance).astype(np.int64),
        }
    )


def tables(customers: int = 80, rows: int = 1) -> dict[str, pa.Table]:
    return {name: table_of(name, customers, rows) for name in FOUR}


def own_cells(plan: Plan, row: dict[str, object]) -> list[int]:
    """The cells that a row of a table is in, counted through all columns, by plain comparisons."""
    found, start = [], 0
    for column, binned_ in zip(plan.contract.features, binning_of(plan).columns, strict=True):
        value = row[column.name]
        if column.kind == "categorical":
            cell = column.values.index(value) if value in column.values else len(column.values)
        elif value is None:
            cell = len(column.atoms) + len(binned_.edges) + 1
        else:
            number = min(max(float(value), float(column.low)), float(column.high))
            below = sum(edge <= number for edge in binned_.edges)
            cell = column.atoms.index(number) if number in column.atoms else len(column.atoms) + below
        found.append(start + cell)
        start += binned_.cells
    return found


def shares_of(rows: list[list[int]], width: int) -> np.ndarray:
    """The share of customers in every cell, of customers with one row each."""
    return np.bincount(np.ravel(rows), minlength=width) / len(rows)


def silent(_scale: float, count: int, _stream: object) -> np.ndarray:
    """In the place of all noise: none."""
    return np.zeros(count, dtype=np.int64)


NOISY = ("coterie.clients.ownsums", "coterie.clients.sumnode", "coterie.clients.measuring")
"""Where noise is drawn."""


def without_noise(patch) -> None:
    for module in NOISY:
        patch.setattr(f"{module}.discrete_gaussians", silent)


class Binned(Summing):
    """A federation that learns on bins, asked one question at a time or run as a whole."""

    def __init__(self, root: Path, plan: Plan | None = None, tables_: dict[str, pa.Table] | None = None) -> None:
        super().__init__(root, plan or binned(), tables_ or tables())
        self.steps = ("count/1",)

    def copied(self, folder: Path) -> "Binned":
        copy = super().copied(folder)
        copy.__class__ = Binned
        return copy

    def weights(self, shift: float = 0.0):
        return tuple((array + np.float32(shift)).astype(np.float32) for array in initial_weights(self.plan))

    def asked(self, step: str = "count/1", attempt: int = 1, *, name: str = "amber", weights=None) -> SumTask:
        """The question for a partner's own sum."""
        weights = self.weights() if weights is None else weights
        return SumTask(self.digest, step, attempt, weights, 1, (name,), ())

    def answer(self, step: str = "count/1", attempt: int = 1, *, name: str = "amber", weights=None):
        with self.node(name) as node:
            return node.add(self.asked(step, attempt, name=name, weights=weights))

    def divided(self, table: pa.Table, name: str = "amber") -> tuple[list[dict], list[dict]]:
        """The rows of a partner's training customers, and of its held-out ones."""
        key, rows = self.workspace(name).group_key, table.to_pylist()
        held = [is_held_out(key, row["customer"]) for row in rows]
        parts = [[row for row, out in zip(rows, held, strict=True) if out is wanted] for wanted in (False, True)]
        return parts[0], parts[1]


def log_edge(low: float, high: float, cells: int, number: int) -> float:
    """Where the fine cell of a number begins, in cells that grow with their distance from `low`."""
    return low + (1 + high - low) ** (number / cells) - 1 if number else -math.inf
