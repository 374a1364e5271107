"""What the vault costs and notices, beside plain Parquet and Parquet's modular encryption, in one run and in turns.

    python benchmarks/vault.py --output benchmarks/results/vault.md

The three parts (times, memory, changes) may also be measured apart: `--parts times --keep FILE`, and so on. FILE keeps
what was measured, and the page has all of it, each part with its load of the machine.

The vault is used as its commands use it: every figure holds the opening of the workspace, its ledger, its keys from a
key file, and all that makes a change durable. A read ends with the rows in memory, checked to the last byte.

What is comparable:

- The same table: 20 columns, of which 5 are sensitive texts (an identifier, an e-mail address, a telephone number, a
  name, an address), 5 whole numbers, 4 floats, 5 categories as texts, and a label. Everybody reads the same rows back.
- What is durable: everybody's files are forced to disk, and a crash leaves the old version or the new one.
- Reading with the files in the system's memory, and on a disk also without ("from the disk").

What is not:

- What is promised. The vault finds out an older version that is put back, and plain rows in place of sealed ones; its
  reader works on one core. Parquet compresses (snappy), encodes, and reads with all cores.
- Taking a file in: the vault checks it against a contract of 6 features and the label, customer by customer, in pieces,
  and takes a cell of a CSV file for a text unless the contract says otherwise. The peers load the file whole, check
  nothing, and guess the types.
- Opening for a study: the contract's checks, and for every customer a keyed hash that decides whether it is held out;
  that is the same work for everybody, and most of the time.
- Erasing: the vault looks for the customer in all data sets, says which models were made with it, makes a new
  key-encryption key, destroys the old one and writes two entries of the ledger. The peers load, filter and write.
- Rotating: the vault makes a key file, signs a manifest and writes an entry of the ledger, all forced to disk.
  PyArrow's rotation writes the file's key material anew and does not force it to disk; for one column's new data key
  there is no way but to write the whole file anew.
- Memory: "seal pieces" has its rows in memory. PyArrow's reader of Parquet files, which taking in uses, has a row of
  its own; and taking in keeps a number for every row, by which customers with too many rows are found.

"Of work" is processor time, of all threads together: what is left to compare where the machine has other work too. A
peer whose time is its work had one core for it; with all cores to itself it may need its work divided by their number.
Memory is the peak of a process of its own (VmHWM), less that of a process that imports the same and does nothing.
"""

import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vault_memory
import vault_tamper
from conditions import arguments_for
from vault_data import MadeUp
from vault_page import CHANGES, MEMORY, TIMES, page
from vault_timing import Place, measure, rotations

from coterie.privacy.durable import write_durably

TAMPERED = 10_000  # rows of the table whose files are changed
MORE = 10  # times the rows, of the vault whose rotation is compared


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        folders: Empty ones, the first in memory and the last on a disk.
        rows: Of the table.
        repeats: How often each is done.
        flips: Bits to flip, of each format.
    """

    folders: Sequence[Path]
    rows: int
    repeats: int
    flips: int


def times(settings: Settings) -> dict[str, Any]:
    """Return the times that everything takes, by the kind of file system, and the sizes of files."""
    found, sizes, table = {}, {}, MadeUp(settings.rows).whole()
    for folder in settings.folders:
        kind = file_system(folder)
        print(f"in {kind}", flush=True)
        place = Place(folder)
        figures = measure(place, table, settings.repeats, cold=kind != "tmpfs")
        found[kind] = figures | rotations(folder, table, MORE, settings.repeats)
        sizes = place.sizes
        for path in folder.iterdir():
            _remove(path)
    return {"rows": settings.rows, "places": found, "sizes": sizes, "arrow": table.nbytes}


def memory(settings: Settings) -> dict[str, Any]:
    """Return peaks of memory."""
    found, first = {}, settings.folders[0]
    for many in (settings.rows, 4 * settings.rows):
        found[str(many)] = vault_memory.measure(first / str(many), many, settings.repeats)
        _remove(first / str(many))
    return {"peaks": found}


def changes(settings: Settings) -> dict[str, Any]:
    """Return what was noticed of changed files."""
    folder = settings.folders[0] / "changed"
    found = vault_tamper.measure(folder, TAMPERED, settings.flips)
    _remove(folder)
    return {"formats": found}


PARTS: dict[str, Callable[[Settings], dict[str, Any]]] = {MEMORY: memory, CHANGES: changes, TIMES: times}


def file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on."""
    found = ("", "")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        at, kind = line.split()[1:3]
        if folder.resolve().is_relative_to(at) and len(at) >= len(found[0]):
            found = (at, kind)
    return found[1]


def load(quiet: float = math.inf) -> str:
    """Wait until so few processes run, and return how many: in the last minute, in 5 and in 15."""
    while os.getloadavg()[0] > quiet:
        time.sleep(5)
    return ", ".join(f"{load:.1f}" for load in os.getloadavg())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was written is removed
    parser = arguments_for(__doc__ or "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5, help="of everything, times after one that does not count")
    parser.add_argument("--flips", type=int, default=300, help="of bits, of each format")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", type=Path, help="file of what was measured; parts that are in it stand on the page")
    parser.add_argument("--quiet", type=float, default=math.inf, help="load to wait for before each part")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a folder in memory")  # noqa: S108
    parser.add_argument("--disk", type=Path, default=Path.cwd(), help="a folder on a disk")
    arguments = parser.parse_args()
    kept = json.loads(arguments.keep.read_bytes()) if arguments.keep and arguments.keep.exists() else {}
    for part in arguments.parts:
        with (
            tempfile.TemporaryDirectory(dir=arguments.memory) as first,
            tempfile.TemporaryDirectory(dir=arguments.disk, prefix=".vault-benchmark-") as last,
        ):
            before = load(arguments.quiet)
            settings = Settings((Path(first), Path(last)), arguments.rows, arguments.repeats, arguments.flips)
            kept[part] = PARTS[part](settings) | {"repeats": arguments.repeats, "load": [before, load()]}
        if arguments.keep:
            write_durably(arguments.keep, json.dumps(kept).encode())
    text = page(kept, __doc__ or "")
    print(text)
    if arguments.output:
        write_durably(arguments.output, text.encode())


if __name__ == "__main__":
    main()
