"""The most memory that one piece of work takes, each in a process of its own.

    python benchmarks/vault_memory.py WORK FOLDER

The peak is VmHWM of /proc/self/status, less that of a process that imports the same and does nothing. It is what
ru_maxrss should be: that one starts at the peak of the process that started this one.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from vault_data import SCHEMA, STUDY, MadeUp, customer_at
from vault_ours import Ours
from vault_peers import Encrypted, Plain

from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import PIECE

__all__ = ["measure"]

_NOTHING, _PREPARE = "nothing", "prepare"
_ERASED = customer_at(4711)


def _works(folder: Path) -> dict[str, Callable[[], object]]:
    """Return what can be done, by name; the vault's first."""
    ours, plain = Ours(folder / "workspace"), Plain(folder / "plain")
    peer = Encrypted(folder / "encrypted")
    parquet, csv = folder / "source.parquet", folder / "source.csv"
    return {
        "seal pieces": lambda: ours.seal(_pieces(parquet)),
        "read a Parquet file's pieces, seal nothing": lambda: sum(1 for _ in table_at(parquet).pieces(SCHEMA.names)),
        "take in a Parquet file": lambda: ours.take_in(parquet),
        "take in a CSV file": lambda: ours.take_in(csv),
        "rotate the key-encryption key": ours.rotate,
        "rotate one column's data key": ours.rekey,
        "erase one customer": lambda: ours.erase(_ERASED),
        "check all 20 columns, piece by piece": lambda: ours.run_through(SCHEMA.names),
        "read the 8 columns of a study": lambda: ours.read(STUDY),
        "plain Parquet: take in a Parquet file": lambda: plain.take_in(parquet),
        "plain Parquet: read the 8 columns of a study": lambda: plain.read(STUDY),
        "plain Parquet: erase one customer": lambda: plain.erase(_ERASED),
        "modular encryption: take in a Parquet file": lambda: peer.take_in(parquet),
    }


def _pieces(parquet: Path) -> Iterator[pa.RecordBatch]:
    """Yield as many rows as a file has, the first piece again and again: what reads tables takes memory of its own."""
    (piece,) = MadeUp(PIECE).pieces(SCHEMA.names)
    yield from itertools.repeat(piece, pq.read_metadata(parquet).num_rows // PIECE)


def measure(folder: Path, rows: int, repeats: int) -> dict[str, list[int]]:
    """Return the peaks in bytes, for each repetition, by what was done."""
    _run(_PREPARE, folder, str(rows))
    peaks: dict[str, list[int]] = {}
    for _ in range(repeats):
        base = int(_run(_NOTHING, folder))
        for name in _works(folder):
            peaks.setdefault(name, []).append(int(_run(name, folder)) - base)
    print(rows, {name: max(peak) >> 20 for name, peak in peaks.items()}, "MiB", flush=True)
    return peaks


def _run(work: str, folder: Path, *more: str) -> str:
    done = subprocess.run(
        [sys.executable, __file__, work, str(folder), *more], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _prepare(folder: Path, rows: int) -> None:
    """Make the tables and the vault that the others work on."""
    ours, plain = Ours(folder / "workspace"), Plain(folder / "plain")
    folder.mkdir()
    ours.create()
    for name in ("plain", "encrypted"):
        (folder / name).mkdir()
    made = MadeUp(rows)
    with (
        pq.ParquetWriter(folder / "source.parquet", SCHEMA) as parquet,
        pyarrow.csv.CSVWriter(folder / "source.csv", SCHEMA) as csv,
    ):
        for piece in made.pieces(SCHEMA.names):
            parquet.write_batch(piece)
            csv.write_batch(piece)
    ours.seal(table_at(folder / "source.parquet").pieces(SCHEMA.names))
    plain.take_in(folder / "source.parquet")


def _peak() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def main(arguments: Sequence[str]) -> None:
    work, folder = arguments[0], Path(arguments[1])
    if work == _PREPARE:
        _prepare(folder, int(arguments[2]))
        return
    if work != _NOTHING:
        _works(folder)[work]()
    print(json.dumps(_peak()))


if __name__ == "__main__":
    main(sys.argv[1:])
