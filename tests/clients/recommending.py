"""A small federation that recommends: real workspaces, ledgers and messages, histories from a seed, and plain oracles.

Imported as `coterie.tests.clients.recommending`.
"""

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from coterie.clients.groups import is_held_out
from coterie.clients.sealing import stage
from coterie.clients.task import SumTask, initial_weights
from coterie.clients.vault import INTERACTIONS, open_vault
from coterie.models.catalogue import Catalogue, encoded
from coterie.models.histories import Histories
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.plan import TRAINED, Catalogued, Model, Partner, Plan, Recommendation, Training
from coterie.simulations.partners import provision
from coterie.tests.clients.federation import changed, study
from coterie.tests.clients.summing import FOUR, Summing

ITEMS = 24
CODES = tuple(f"i{number:03d}" for number in range(ITEMS))
CATALOGUE = Catalogue(CODES, {"category": tuple(f"c{number % 4}" for number in range(ITEMS))})
ATTRIBUTES = encoded(CATALOGUE)
FIRST_DAY = datetime.date(2031, 1, 1)

CONTRACT = Contract(
    customer="customer",
    interactions=Interactions(item="item", time="day", most=8, earliest="2030-01-01", latest="2031-05-04"),
)
FAMILIES = ("popularity", "item-gram", "ials", "mf-bpr")
TRUSTS = ("local", "secure-aggregation")


def recommends(family: str = "item-gram", trust: str = "local", **changes: object) -> Plan:
    """A plan among four partners; every family with as few sums as it can have, and two sweeps of ials."""
    trained, rounds = family in TRAINED, 2 if family == "ials" else 1
    plan = study(
        task="recommendation",
        contract=CONTRACT,
        model=Model(family=family),
        training=Training(
            rounds=rounds,
            local_steps=2 if trained else 1,
            sample_rate=0.5 if trained else 1.0,
            learning_rate=0.5,
            clip=1.0,
        ),
        privacy__epsilon=8.0,
        privacy__trust=trust,
        privacy__threshold=3,
        metrics__rounds=(rounds,),
        partners=tuple(Partner(name=name, customers=60) for name in FOUR),
        catalogue=Catalogued(items=ITEMS, digest=CATALOGUE.digest(), attributes=ATTRIBUTES.shape[1]),
        recommendation=Recommendation(keep=12, rank=4, dimension=3, negatives=6, ridge=0.05),
    )
    return changed(plan, **changes)


def rows_of(name: str, customers: int = 40) -> list[tuple[str, str, datetime.date]]:
    """Two to ten rows of each customer, some of items that nobody knows, and some of one item again."""
    draw = np.random.default_rng([FOUR.index(name), customers])
    rows = []
    for customer in range(customers):
        chosen = draw.choice(ITEMS, int(draw.integers(2, 11)), replace=False).tolist()
        codes = [CODES[item] for item in chosen] + ["unheard-of"] * int(draw.integers(2)) + [CODES[chosen[0]]]
        days = draw.permutation(len(codes)).tolist()
        rows += [
            (f"{name}-{customer:04d}", code, FIRST_DAY + datetime.timedelta(days=day))
            for code, day in zip(codes, days, strict=True)
        ]
    return [rows[place] for place in draw.permutation(len(rows))]


def table_of(rows: Sequence[tuple[str, str | None, datetime.date | None]]) -> pa.Table:
    customers, items, days = zip(*rows, strict=True)
    return pa.table({"customer": customers, "item": items, "day": pa.array(days, pa.date32())})


def tables(customers: int = 40) -> dict[str, pa.Table]:
    return {name: table_of(rows_of(name, customers)) for name in FOUR}


def told(rows: Iterable[tuple[str, str, datetime.date]], most: int = 8, least: int = 2) -> dict[str, list[int]]:
    """Each customer's known items, oldest first, each from its first day on, the newest `most`: by plain Python."""
    first: dict[str, dict[int, datetime.date]] = {}
    for customer, code, day in rows:
        if code in CODES:
            items = first.setdefault(customer, {})
            items[CODES.index(code)] = min(day, items.get(CODES.index(code), day))
    lists = {c: sorted(items, key=lambda item, days=items: days[item])[-most:] for c, items in first.items()}
    return {customer: items for customer, items in lists.items() if len(items) >= least}


def histories(lists: Iterable[Sequence[int]]) -> Histories:
    """Histories of some customers; an item's day is its place."""
    lists = [list(one) for one in lists]
    starts = np.cumsum([0, *(len(one) for one in lists)]).astype(np.int64)
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    days = np.array([day for one in lists for day in range(len(one))], dtype=np.int64)
    return Histories(starts, items, days)


def silent(_scale: float, count: int, _stream: object) -> np.ndarray:
    """In the place of all noise: none."""
    return np.zeros(count, dtype=np.int64)


NOISY = ("coterie.clients.ownsums", "coterie.clients.sumnode", "coterie.clients.measuring")
"""Where noise is drawn."""


def without_noise(patch) -> None:
    for module in NOISY:
        patch.setattr(f"{module}.discrete_gaussians", silent)


def one_of_each(lists: Iterable[Sequence[int]], size: int = ITEMS) -> np.ndarray:
    """The sum over customers of their items at unit length."""
    total = np.zeros(size)
    for items in lists:
        total[items] += 1 / np.sqrt(len(items))
    return total


class Recommending(Summing):
    """A federation that recommends, asked one question at a time or run as a whole."""

    def __init__(self, root: Path, plan: Plan | None = None, tables_: dict[str, pa.Table] | None = None) -> None:
        plan, tables_ = plan or recommends(), tables_ or tables()
        provision(root, plan, tables_, seed=7, catalogue=CATALOGUE)
        super().__init__(root, plan, tables_)
        self.steps = ("count/1",)

    def copied(self, folder: Path) -> "Recommending":
        copy = super().copied(folder)
        copy.__class__ = Recommending
        return copy

    def weights(self, shift: float = 0.0):
        return tuple((array + np.float32(shift)).astype(np.float32) for array in initial_weights(self.plan))

    def put(self, table: pa.Table, name: str = "amber") -> None:
        with open_vault(self.folders[name], self.clock) as vault:
            stage(vault, INTERACTIONS, table.to_batches(), schema=table.schema, customer="customer").commit("sealed")

    def asked(self, step: str = "count/1", attempt: int = 1, *, name: str = "amber", weights=None) -> SumTask:
        """The question for a partner's own sum."""
        weights = self.weights() if weights is None else weights
        return SumTask(self.digest, step, attempt, weights, 1, (name,), ())

    def answer(self, step: str = "count/1", attempt: int = 1, *, name: str = "amber", weights=None):
        with self.node(name) as node:
            return node.add(self.asked(step, attempt, name=name, weights=weights))

    def lists(self, name: str = "amber", customers: int = 40) -> tuple[list[list[int]], list[list[int]]]:
        """The histories of a partner's training customers, and of its held-out ones, by plain Python."""
        key = self.workspace(name).group_key
        of_each = told(rows_of(name, customers))
        training = [items for customer, items in of_each.items() if not is_held_out(key, customer)]
        return training, [items for customer, items in of_each.items() if is_held_out(key, customer)]
