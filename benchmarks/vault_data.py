"""Made-up customers for the benchmark of the vault: twenty columns, made piece by piece."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.tables.table import PIECE, Table
from coterie.privacy.contract import Column, Contract

__all__ = ["CONTRACT", "NUMBERS", "SCHEMA", "SENSITIVE", "STUDY", "MadeUp", "customer_at"]

SENSITIVE = ("customer", "email", "phone", "name", "address")
_WHOLE = {"age": (18, 95), "orders": (0, 200), "returns": (0, 40), "visits": (0, 5000), "tenure": (0, 7300)}
_FLOATS = {"spend": (0.0, 20000.0), "basket": (0.0, 500.0), "discount": (0.0, 0.8), "score": (-4.0, 4.0)}
_WORDS = {
    "region": ("north", "south", "east", "west", "islands", "abroad"),
    "tier": ("none", "silver", "gold"),
    "channel": ("shop", "site", "app", "telephone"),
    "device": ("phone", "tablet", "desktop", "unknown"),
    "payment": ("card", "transfer", "invoice", "wallet"),
}
_STREETS = ("Mill Lane", "Station Road", "Church Street", "High Street", "Orchard Close", "Harbour View", "Long Acre")
_FIRST = ("Ada", "Bela", "Chidi", "Dora", "Emeka", "Farah", "Goran", "Hana", "Ivo", "Jomo", "Kaja", "Lena", "Mirko")
_LAST = ("Abara", "Bodnar", "Castellano", "Dietrich", "Eriksen", "Fontaine", "Grabowski", "Horvath", "Ibrahimovic")

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in SENSITIVE),
        *((name, pa.int64()) for name in _WHOLE),
        *((name, pa.float64()) for name in _FLOATS),
        *((name, pa.string()) for name in _WORDS),
        ("bought", pa.int64()),
    ]
)
_FEATURES = ("age", "orders", "spend", "basket", "region", "tier")
STUDY = ("customer", *_FEATURES, "bought")
NUMBERS = ("age", "orders", "spend", "basket")


def _column(name: str) -> Column:
    if name in _WORDS:
        return Column(name=name, kind="categorical", values=_WORDS[name])
    low, high = (_WHOLE | _FLOATS)[name]
    return Column(name=name, kind="numeric", low=float(low), high=float(high))


CONTRACT = Contract(customer="customer", label="bought", columns=tuple(_column(name) for name in _FEATURES))


def customer_at(row: int) -> str:
    """Return the identifier of a row's customer."""
    return f"C-{row:09d}"


@dataclass(frozen=True)
class MadeUp(Table):
    """A table that is made as it is read: the memory that it takes does not grow with its rows.

    Args:
        rows: How many.
        seed: Of everything but the customers' identifiers.
    """

    rows: int
    seed: int = 0

    @property
    def place(self) -> str:
        return "made-up customers"

    @property
    def schema(self) -> pa.Schema:
        return SCHEMA

    def pieces(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order."""
        for start in range(0, self.rows, PIECE):
            yield _piece(np.arange(start, min(start + PIECE, self.rows)), self.seed).select(list(names))

    def whole(self) -> pa.Table:
        """Return it in memory, in pieces."""
        return pa.Table.from_batches(self.pieces(SCHEMA.names), SCHEMA)


def _piece(rows: NDArray[np.int64], seed: int) -> pa.RecordBatch:
    rng, many = np.random.default_rng((seed, int(rows[0]))), len(rows)
    first, last, street = (rng.integers(len(words), size=many) for words in (_FIRST, _LAST, _STREETS))
    people = [(_FIRST[f], _LAST[n]) for f, n in zip(first, last, strict=True)]
    named = list(zip(people, rows, strict=True))
    texts: dict[str, list[str]] = {
        "customer": [customer_at(row) for row in rows],
        "email": [f"{f}.{n}{row}@example.org".lower() for (f, n), row in named],
        "phone": [f"+44 {number // 10**6:04d} {number % 10**6:06d}" for number in rng.integers(10**10, size=many)],
        "name": [f"{f} {n}" for f, n in people],
        "address": [
            f"{number} {_STREETS[s]}, {code:05d}"
            for number, s, code in zip(rng.integers(1, 300, many), street, rng.integers(10**5, size=many), strict=True)
        ],
    }
    columns = [pa.array(texts[name], pa.string()) for name in SENSITIVE]
    columns += [pa.array(rng.integers(low, high + 1, many)) for low, high in _WHOLE.values()]
    columns += [pa.array(np.round(rng.uniform(low, high, many), 4)) for low, high in _FLOATS.values()]
    columns += [
        pa.array(words, pa.string()).take(pa.array(rng.integers(len(words), size=many))) for words in _WORDS.values()
    ]
    columns.append(pa.array(rng.integers(2, size=many)))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
