"""What the vault and its peers notice when their files are changed: bits that flip, files that are put back or forged.

    python benchmarks/vault_tamper.py FOLDER ROWS FLIPS

Prints JSON. Every read is a process of its own: a damaged Parquet file may take its reader down.
"""

import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from vault_data import SCHEMA, SENSITIVE, MadeUp
from vault_ours import Ours
from vault_peers import Encrypted, Plain

from coterie.clients.tables.table import whole
from coterie.clients.vault import CUSTOMERS
from coterie.privacy.errors import CoterieError

__all__ = ["CASES", "DIED", "FORMATS", "NOTICED", "OTHER", "SAME", "measure"]

NOTICED, OTHER, SAME, DIED = "noticed", "other rows", "the same rows", "reader died"
"""What a read came to; the second and third without an error."""

FORMATS = ("vault", "encrypted, all columns", "encrypted, the sensitive columns", "plain Parquet")
_ANYWHERE, _ABOUT = "a bit flips, anywhere", "a bit flips, in the manifest or the footer"
_CUT, _BACK = "the last byte of a file is cut off", "the data set's files of an older version are put back"
_ONE_BACK, _FORGED = "one column's file of an older version is put back", "plain rows stand in place of sealed ones"
_SWAPPED = "two columns' files change places"
_ALL_BACK = "an older copy of the whole workspace is put back, with its ledger"
CASES = (_ANYWHERE, _ABOUT, _CUT, _BACK, _ONE_BACK, _FORGED, _SWAPPED, _ALL_BACK)
_FOOTER_END = 8  # bytes behind a footer: its length, and the format's mark
_LONGEST, _MOST_MEMORY = 60, 16 << 30  # seconds and bytes of one read

Counts = dict[str, Counter[str]]


def measure(folder: Path, rows: int, flips: int) -> dict[str, dict[str, dict[str, int]]]:
    """Return how often each change came to what, by format and change.

    Args:
        folder: An empty one.
        rows: Of the table.
        flips: How many bits, one at a time, of each format.
    """
    command = [sys.executable, __file__, str(folder), str(rows), str(flips)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, dict[str, dict[str, int]]] = json.loads(done.stdout)
    print(json.dumps(found), flush=True)
    return found


@dataclass(frozen=True)
class _Target:
    """What is attacked.

    Args:
        read: Returns all rows.
        truth: The rows that were written last.
        refusal: What it raises where it notices; any other error would be a defect.
    """

    read: Callable[[], pa.Table]
    truth: pa.Table
    refusal: type[Exception]

    def says(self) -> str:
        """Read in a child process, and return what it came to."""
        mine, its = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(_LONGEST)
            resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
            os.write(its, self._said().encode())
            os._exit(0)
        os.close(its)
        with os.fdopen(mine) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return said or DIED

    def _said(self) -> str:
        try:
            return SAME if self.read().equals(self.truth) else OTHER
        except self.refusal:
            return NOTICED
        except Exception as error:  # noqa: BLE001 - told by its name, in the table
            return type(error).__name__

    def changed(self, files: Mapping[Path, bytes]) -> str:
        """Read while files hold something else."""
        with _kept(list(files)):
            for path, data in files.items():
                path.write_bytes(data)
            return self.says()

    def cut(self, files: Sequence[Path]) -> Counter[str]:
        """Cut the last byte off each file."""
        return Counter(self.changed({path: path.read_bytes()[:-1]}) for path in files)

    def flipped(self, files: Sequence[Path], flips: int, *, tail: int | None = None) -> Counter[str]:
        """Flip bits, one at a time; any byte of the files, or of their last `tail` bytes, is as likely as any other."""
        rng, found = random.Random(7), Counter[str]()  # noqa: S311 - which bits is no secret
        sizes = [path.stat().st_size for path in files]
        for _ in range(flips):
            (path,) = rng.choices(files, sizes)
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data) - (tail or len(data)), len(data))] ^= 1 << rng.randrange(8)
            found[self.changed({path: bytes(data)})] += 1
        return found


@contextlib.contextmanager
def _kept(files: Sequence[Path]) -> Iterator[None]:
    were = {path: path.read_bytes() for path in files}
    try:
        yield
    finally:
        for path, data in were.items():
            path.write_bytes(data)


def _of_vault(folder: Path, rows: int, flips: int) -> Counts:
    ours, older = Ours(folder / "workspace"), Ours(folder / "older")
    ours.create()
    ours.seal(MadeUp(rows, seed=1).pieces(SCHEMA.names))
    shutil.copytree(ours.folder, older.folder)
    ours.seal(MadeUp(rows).pieces(SCHEMA.names))
    (manifest,) = (path for path in ours.files() if path.parent.name == "manifests")
    with ours.vault() as vault:
        truth = MadeUp(rows).whole()
        target = _Target(lambda: whole(vault.table(CUSTOMERS), SCHEMA.names), truth, CoterieError)
        streams, before = _streams(ours.folder), _streams(older.folder)
        found = {
            _ANYWHERE: target.flipped(ours.files(), flips),
            _ABOUT: target.flipped([manifest], flips),
            _CUT: target.cut(ours.files()),
            _ONE_BACK: Counter(
                target.changed({new: old.read_bytes()}) for new, old in zip(streams, before, strict=True)
            ),
            _FORGED: Counter(
                target.changed({path: _arrow(truth, name)}) for path, name in zip(streams, SCHEMA.names, strict=True)
            ),
            _SWAPPED: Counter(
                target.changed({one: other.read_bytes(), other: one.read_bytes()})
                for one, other in itertools.pairwise(streams)
            ),
        }
        if target.says() != SAME:
            raise RuntimeError("the vault was not put together again")
        shutil.rmtree(ours.folder / "vault")
        shutil.copytree(older.folder / "vault", ours.folder / "vault")
        found[_BACK] = Counter([target.says()])
    found[_ALL_BACK] = Counter([_Target(lambda: older.read(SCHEMA.names), truth, CoterieError).says()])
    return found


def _streams(workspace: Path) -> list[Path]:
    """Return the files of a workspace's columns, in the table's order."""
    folder = workspace / "vault" / CUSTOMERS
    (manifest,) = (folder / "manifests").iterdir()
    return [folder / "streams" / stream["file"] for stream in json.loads(manifest.read_bytes())["streams"]]


def _of_parquet(one: Plain, rows: int, flips: int) -> Counts:
    one.write(MadeUp(rows, seed=1).whole())
    older = {path: path.read_bytes() for path in one.files()}
    truth, plain = MadeUp(rows).whole(), one.folder / "plain.parquet"
    one.write(truth)
    pq.write_table(MadeUp(rows, seed=2).whole(), plain)
    footer = int.from_bytes(one.path.read_bytes()[-_FOOTER_END:-4], "little") + _FOOTER_END
    target = _Target(lambda: one.read(SCHEMA.names), truth, Exception)
    return {
        _ANYWHERE: target.flipped([one.path], flips),
        _ABOUT: target.flipped([one.path], flips, tail=footer),
        _CUT: target.cut(one.files()),
        _BACK: Counter([target.changed(older)]),
        _FORGED: Counter([target.changed({one.path: plain.read_bytes()})]),
    }


def _arrow(table: pa.Table, name: str) -> bytes:
    """Return one column as the vault's streams hold it, unsealed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([SCHEMA.field(name)])) as writer:
        writer.write_table(table.select([name]))
    return bytes(sink.getvalue())


def main(arguments: Sequence[str]) -> None:
    folder, rows, flips = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    found = {FORMATS[0]: _of_vault(folder / "vault", rows, flips)}
    makers: tuple[Callable[[Path], Plain], ...] = (Encrypted, lambda at: Encrypted(at, SENSITIVE), Plain)
    for place, (name, made) in enumerate(zip(FORMATS[1:], makers, strict=True)):
        at = folder / str(place)
        at.mkdir(parents=True)
        found[name] = _of_parquet(made(at), rows, flips)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
