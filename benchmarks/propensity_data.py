"""What the table of propensity models is measured on: rows under a study's contract, split and dealt by a seed.

A customer's rows are in training or held out together. Four fifths of the customers are for training, stratified by
whether any of their rows has label 1. "dealt" partners are five equal parts of the customers at random; "natural" ones
are those of the source. A customer counts once in every figure: its rows share its weight.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.findings import Findings
from coterie.models.metrics import exact_counts, summary
from coterie.privacy.contract import Contract
from coterie.privacy.plan import Plan
from coterie.privacy.study import read_study
from coterie.simulations import sources

__all__ = ["DATA", "DEALT", "DELTA", "SEEDS", "Data", "Rows", "measured", "read", "study_of"]

DATA = {
    "adult": "income-additive",
    "census": "census",
    "tafeng": "repurchase",
    "completejourney": "coupon",
    "bank": "bank",
}
"""Source -> the study whose contract says what its columns are."""

SEEDS = (10, 11, 12, 13, 14)
"""Of the splits in the table; nothing was ever chosen on them."""

DEALT = 5
DELTA = 1e-5
_HELD_OUT = 0.2
_STUDIES = Path(__file__).parent.parent / "simulations" / "studies"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Some rows.

    Args:
        columns: Numbers within the contract's bounds (NaN where missing), or places in the vocabulary (-1 where there
            is none), by column.
        labels: 0 or 1.
        customer: Number of the customer of each row, over all partners.
        partner: Number of the partner of each row.
    """

    columns: Mapping[str, Floats]
    labels: NDArray[np.float32]
    customer: NDArray[np.int64]
    partner: NDArray[np.int64]

    def of(self, keep: NDArray[np.bool_]) -> "Rows":
        """Return the rows that `keep` marks."""
        columns = {name: values[keep] for name, values in self.columns.items()}
        return Rows(columns, self.labels[keep], self.customer[keep], self.partner[keep])

    def parts(self) -> list["Rows"]:
        """Return the rows of each partner that has any."""
        return [self.of(self.partner == number) for number in np.unique(self.partner)]

    @property
    def weights(self) -> Floats:
        """What each row counts for, so that every customer counts once."""
        _, index, counts = np.unique(self.customer, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / counts[index], dtype=np.float64)

    @property
    def customers(self) -> int:
        """How many customers there are."""
        return len(np.unique(self.customer))


@dataclass(frozen=True)
class Data:
    """A data set.

    Args:
        contract: Of its study.
        rows: All of them.
        partners: Names of the natural partners, by number.
    """

    contract: Contract
    rows: Rows
    partners: tuple[str, ...]

    def split(self, seed: int) -> tuple[Rows, Rows]:
        """Return training rows and held-out rows, of the natural partners."""
        rows = self.rows
        positive = np.zeros(int(rows.customer.max()) + 1, dtype=np.bool_)
        np.logical_or.at(positive, rows.customer, rows.labels > 0)
        random, held_out = np.random.default_rng([seed, 1]), np.zeros(len(positive), dtype=np.bool_)
        for label in (False, True):
            shuffled = random.permutation(np.flatnonzero(positive == label))
            held_out[shuffled[: round(_HELD_OUT * len(shuffled))]] = True
        train = rows.of(_few(rows.customer, self.contract.rows_per_customer, random) & ~held_out[rows.customer])
        return train, rows.of(held_out[rows.customer])

    def dealt(self, rows: Rows, seed: int) -> Rows:
        """Return rows whose customers are dealt to equal partners at random."""
        everyone = int(self.rows.customer.max()) + 1
        order = np.random.default_rng([seed, 2]).permutation(everyone)
        # The customers that are there are dealt, so that parts are equal to within one customer.
        there = order[np.isin(order, rows.customer)]
        place = np.zeros(everyone, dtype=np.int64)
        place[there] = np.arange(len(there)) % DEALT
        return replace(rows, partner=place[rows.customer])


def study_of(data: str) -> Plan:
    """Return the plan of a data set's study, with secure aggregation."""
    study = read_study(_STUDIES / f"{DATA[data]}.toml")
    return study.trusting("secure-aggregation")


@functools.lru_cache(maxsize=1)
def read(data: str) -> Data:
    """Read a data set under the contract of its study.

    Raises:
        ValueError: A table breaks the contract.
    """
    contract, tables = study_of(data).contract, sources.load(data)
    whole, findings = pa.concat_tables(tables.values()), Findings(study_of(data).contract)
    columns = {column.name: findings.feature(column, whole[column.name]) for column in contract.columns}
    labels = findings.labels(whole[contract.label])
    if faults := findings.faults(data):
        raise ValueError("; ".join(str(fault) for fault in faults))
    named = whole[contract.customer].combine_chunks()
    customer = named.dictionary_encode().indices.to_numpy().astype(np.int64)
    partner = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables.values()])
    return Data(contract, Rows(columns, labels, customer, partner), tuple(tables))


def measured(scores: Floats, probabilities: Floats, rows: Rows) -> dict[str, float]:
    """Return AUC, average precision and Brier score on held-out rows.

    Args:
        scores: What customers are ranked by, shape (rows,).
        probabilities: In [0, 1], shape (rows,).
        rows: The held-out rows.
    """
    found = summary(exact_counts(scores, rows.labels.astype(np.float64), rows.weights))
    brier = float(np.average((probabilities - rows.labels) ** 2, weights=rows.weights))
    return {"auc": float(found["auc"] or np.nan), "ap": float(found["average_precision"] or np.nan), "brier": brier}


def _few(customer: NDArray[np.int64], most: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Mark the rows that the contract lets a customer have: a random few where there are more."""
    shuffled = random.permutation(len(customer))
    shuffled = shuffled[np.argsort(customer[shuffled], kind="stable")]
    counts = np.bincount(customer)
    place = np.arange(len(customer)) - np.repeat(np.cumsum(counts) - counts, counts)
    keep = np.zeros(len(customer), dtype=np.bool_)
    keep[shuffled[place < most]] = True
    return keep
