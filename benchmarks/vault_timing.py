"""How long the vault and its peers take: every operation by each of them in turn, again and again."""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from vault_data import NUMBERS, SCHEMA, STUDY, customer_at
from vault_ours import Ours, opened
from vault_peers import Encrypted, Plain

from coterie.clients.tables.held import HeldTable

__all__ = ["OURS", "PEER", "PLAIN", "WHO", "Figures", "Place", "measure", "rotations"]

OURS, PLAIN, PEER = "vault", "plain Parquet", "Parquet, modular encryption"
WHO = (OURS, PLAIN, PEER)
Work = Callable[[], object]


Figures = dict[str, dict[str, list[tuple[float, float]]]]
"""By what was done and by whom: each time's seconds by the clock, and seconds of processor time, of all threads."""


@dataclass
class Place:
    """A vault and its peers with the same table, in one folder.

    Args:
        folder: An empty one.
    """

    folder: Path
    ours: Ours = field(init=False)
    plain: Plain = field(init=False)
    peer: Encrypted = field(init=False)
    sizes: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.ours = Ours(self.folder / "workspace")
        self.ours.create()
        for name in ("plain", "encrypted"):
            (self.folder / name).mkdir()
        self.plain, self.peer = Plain(self.folder / "plain"), Encrypted(self.folder / "encrypted")

    def write_sources(self, table: pa.Table) -> None:
        """Write the files that tables are taken in from."""
        pq.write_table(table, self._source("parquet"))
        pyarrow.csv.write_csv(table, self._source("csv"))

    def writing(self, table: pa.Table) -> dict[str, dict[str, Work]]:
        """Return what writes, by what it is and whose."""
        pieces = list(table.to_batches())
        return {
            # First, as the columns that the contract does not name stay the texts that they are in this file.
            "take in a CSV file": self._taking_in(self._source("csv")),
            "take in a Parquet file": self._taking_in(self._source("parquet")),
            "seal from memory": {
                OURS: lambda: self.ours.seal(pieces),
                PLAIN: lambda: self.plain.write(table),
                PEER: lambda: self.peer.write(table),
            },
        }

    def reading(self) -> dict[str, dict[str, Work]]:
        """Return what reads."""
        works = {
            f"read the {len(STUDY)} columns of a study": self._reads(STUDY),
            f"read {len(NUMBERS)} numeric columns": self._reads(NUMBERS),
            f"read all {len(SCHEMA)} columns": self._reads(SCHEMA.names),
        }
        works["open for a study, with the contract's checks"] = {
            OURS: self.ours.open,
            PLAIN: lambda: opened(HeldTable(self.plain.read(STUDY))),
            PEER: lambda: opened(HeldTable(self.peer.read(STUDY))),
        }
        return works

    def changing(self) -> dict[str, dict[str, Work]]:
        """Return what gives new keys, or takes a customer away: another one each time."""
        erased = itertools.count()

        def erase(one: Ours | Plain) -> Work:
            return lambda: one.erase(customer_at(next(erased)))

        return {
            "rotate the key-encryption key": {OURS: self.ours.rotate, PEER: self.peer.rotate},
            "rotate one column's data key": {OURS: self.ours.rekey, PEER: self.peer.rekey},
            "erase one customer": {OURS: erase(self.ours), PLAIN: erase(self.plain), PEER: erase(self.peer)},
        }

    def look(self) -> None:
        """Take note of the bytes of everybody's files."""
        ones = zip(WHO, (self.ours, self.plain, self.peer), strict=True)
        self.sizes = {who: sum(path.stat().st_size for path in one.files()) for who, one in ones}

    def forget(self) -> None:
        """Have the system drop what it keeps in memory of the files."""
        for one in (self.ours, self.plain, self.peer):
            for path in one.files():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _source(self, kind: str) -> Path:
        return self.folder / f"source.{kind}"

    def _taking_in(self, source: Path) -> dict[str, Work]:
        return {
            OURS: lambda: self.ours.take_in(source),
            PLAIN: lambda: self.plain.take_in(source),
            PEER: lambda: self.peer.take_in(source),
        }

    def _reads(self, names: Sequence[str]) -> dict[str, Work]:
        return {
            OURS: lambda: self.ours.read(names),
            PLAIN: lambda: self.plain.read(names),
            PEER: lambda: self.peer.read(names),
        }


def measure(place: Place, table: pa.Table, repeats: int, *, cold: bool) -> Figures:
    """Return what everything takes in a place.

    Args:
        place: Where.
        table: The rows.
        repeats: How often each is done, after once that does not count.
        cold: Whether reading is measured also with nothing of the files in memory.
    """
    place.write_sources(table)
    figures = _all(place.writing(table), repeats)
    if not all(one.read(SCHEMA.names).equals(table) for one in (place.ours, place.plain, place.peer)):
        raise RuntimeError("what was read is not what was written")
    place.look()
    reading = place.reading()
    figures |= _all(reading, repeats)
    if cold:
        first = dict(list(reading.items())[:3])
        figures |= {f"{what}, from the disk": by for what, by in _all(first, repeats, before=place.forget).items()}
    return figures | _all(place.changing(), repeats)


def rotations(folder: Path, table: pa.Table, times: int, repeats: int) -> Figures:
    """Return what a rotation takes in another vault, that holds so many times a table."""
    ours = Ours(folder / "large")
    ours.create()
    ours.seal(piece for _ in range(times) for piece in table.to_batches())
    return _all({f"rotate the key-encryption key, {times * len(table):,} rows": {OURS: ours.rotate}}, repeats)


def _all(works: dict[str, dict[str, Work]], repeats: int, before: Callable[[], None] = lambda: None) -> Figures:
    figures: Figures = {}
    for what, by in works.items():
        figures[what] = {who: [] for who in by}
        for turn in range(repeats + 1):
            for who, work in by.items():
                before()
                one = _seconds(work)
                if turn:
                    figures[what][who].append(one)
        said = ({who: [round(one, 4) for one, _ in each]} for who, each in figures[what].items())
        print(what, *said, sep="; ", flush=True)
    return figures


def _seconds(work: Work) -> tuple[float, float]:
    """Return seconds by the clock, and of processor time."""
    begun, busy = time.perf_counter(), time.process_time()
    result = work()
    took = time.perf_counter() - begun, time.process_time() - busy
    del result  # to give memory back is not in the figure
    return took
