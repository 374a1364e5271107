"""Power that fails at any moment: what was acknowledged is there, and what is there is whole.

SQLite runs on a file system of its own here, which writes down every write, sync, truncation and removal that the real
ledger causes. A cut keeps what was synced; of what was written since, it keeps some, tears some in the middle of a
sector row and loses the rest. Each image is then opened by the SQLite of Python, as after a restart.
"""

import collections
import datetime
import itertools
import json
import random
import sqlite3
from pathlib import Path

import apsw
import pytest

from coterie.privacy import storage
from coterie.privacy.charges import Charge, Limit
from coterie.privacy.events import DiscreteGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.renyi import ORDERS, Filter
from coterie.tests.privacy.review.bundles import leaf, tree

EVENT = DiscreteGaussian(64.0, 1)
LIMITS = [Limit(Filter(90.0, 1e-5)), Limit(Filter(90.0, 1e-5), year=2030)]
CHARGES = 40
SECTOR = 512


def clock():
    return datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class Recorder(apsw.VFS):
    """A file system that writes down what happens to files, and does it."""

    def __init__(self):
        self.log = []
        super().__init__("recorder", base="")

    def xOpen(self, name, flags):  # noqa: N802 - apsw's name
        return _File(self.log, name, flags)

    def xDelete(self, filename, syncdir):  # noqa: N802 - likewise
        self.log.append(("delete", Path(filename).name, bool(syncdir)))
        super().xDelete(filename, syncdir)


class _File(apsw.VFSFile):
    def __init__(self, log, name, flags):
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._log, self._name = log, Path(text).name if text else ""
        super().__init__("", name, flags)

    def xWrite(self, data, offset):  # noqa: N802 - likewise
        self._log.append(("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xSync(self, flags):  # noqa: N802 - likewise
        self._log.append(("sync", self._name))
        super().xSync(flags)

    def xTruncate(self, newsize):  # noqa: N802 - likewise
        self._log.append(("truncate", self._name, newsize))
        super().xTruncate(newsize)


class Connection:
    """What the ledger uses of `sqlite3.Connection`, over apsw."""

    def __init__(self, path, synchronous):
        self._db = apsw.Connection(str(path), vfs="recorder")
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # the index of the log needs no shared memory then
        self._db.execute("PRAGMA wal_autocheckpoint = 30")  # often enough to be cut in the middle of
        self._synchronous = synchronous

    def execute(self, statement, values=()):
        rows = self._db.execute(statement.replace("synchronous = FULL", self._synchronous), values).fetchall()
        return _Rows(rows)

    @property
    def in_transaction(self):
        return self._db.in_transaction

    def close(self):
        self._db.close()


class _Rows(list):
    def fetchall(self):
        return list(self)

    def fetchone(self):
        return self[0] if self else None


def recorded(folder, monkeypatch, synchronous="synchronous = FULL"):
    """Let the real ledger charge and settle; return its first image and all that happened since, with what it said."""
    path = folder / "ledger.sqlite"
    Ledger.create(path)
    first, recorder = path.read_bytes(), Recorder()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(storage.sqlite3, "connect", lambda path, **_: Connection(path, synchronous))
            with Ledger(path, clock) as ledger:
                assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
                for number in range(CHARGES):
                    plan, segments = f"sha256:{number % 3}", ("north",) if number % 3 == 2 else ()
                    group = "holdout" if number % 4 == 3 else "training"
                    charge = Charge(plan, "test", f"s/{number}", 1, group, EVENT, "os", segments=segments)
                    held = ledger.reserve(charge, LIMITS, declared=10**6)
                    recorder.log.append(("said", held.seq))
                    if number % 5:
                        recorder.log.append(("said", ledger.settle(held, f"sha256:r{number}").seq))
                recorder.log.append(("closing",))
    finally:
        recorder.unregister()
    return first, recorder.log, whole_history(path)


def whole_history(path):
    db = sqlite3.connect(path)
    rows = db.execute("SELECT * FROM entries ORDER BY seq").fetchall()
    db.close()
    return rows


def cut(first, log, moment, rng):
    """Return the files as a cut just before a moment may leave them, and the last entry that was acknowledged."""
    safe, waiting, said = {"ledger.sqlite": bytearray(first)}, collections.defaultdict(list), 0
    for what, *about in log[:moment]:
        if what == "said":
            said = about[0]
        elif what == "sync":
            (name,) = about
            for step in waiting.pop(name, []):
                _do(safe, name, step)
            safe.setdefault(name, bytearray())
        elif what == "delete" and about[1]:
            safe.pop(about[0], None)
            waiting.pop(about[0], None)
        elif what != "closing":
            waiting[about[0]].append((what, *about[1:]))
    for name, steps in waiting.items():
        chance = rng.random()
        for step in steps:
            if rng.random() < chance:
                _do(safe, name, _torn(step, rng) if rng.random() < 0.3 else step)
    return safe, said


def _do(files, name, step):
    what, *about = step
    if what == "delete":
        files.pop(name, None)
        return
    data = files.setdefault(name, bytearray())
    if what == "truncate":
        del data[about[0] :]
        data.extend(bytes(max(0, about[0] - len(data))))
    else:
        offset, content = about
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(content)] = content


def _torn(step, rng):
    """Some of the sectors of a write, from one end or the other."""
    if step[0] != "write" or len(step[2]) <= SECTOR:
        return step
    what, offset, content = step
    at = rng.randrange(SECTOR, len(content), SECTOR)
    return (what, offset, content[:at]) if rng.random() < 0.5 else (what, offset + at, content[at:])


def wrong_with(folder, files, said, history):
    """Open what a cut left; return whether acknowledged entries are lost, and what else is wrong."""
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path, wrong = folder / "ledger.sqlite", []
    db = sqlite3.connect(path)
    if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        wrong.append("corrupt")
    rows = db.execute("SELECT * FROM entries ORDER BY seq").fetchall()
    names = [column[1] for column in db.execute("PRAGMA table_info(entries)")]
    spent = {row[:4]: json.loads(row[4]) for row in db.execute("SELECT grp, span, segment, count, curve FROM spent")}
    unsettled = {seq for (seq,) in db.execute("SELECT seq FROM unsettled")}
    db.close()
    if rows != history[: len(rows)]:
        wrong.append("another history")
    entries = [dict(zip(names, row, strict=True)) for row in rows]
    for entry in entries:
        entry["body"] = json.loads(entry["body"])
    wrong += spending(entries, spent)
    ended = {e["body"]["reserve"] for e in entries if e["kind"] == "settle"}
    if unsettled != {e["seq"] for e in entries if e["kind"] == "reserve"} - ended:
        wrong.append("other charges are open")
    known = {"at", "body", "kind", "salt", "seq"}
    leaves = [
        leaf(json.dumps({k: e[k] for k in known & e.keys()}, sort_keys=True, separators=(",", ":")).encode())
        for e in entries
    ]
    with Ledger(path, clock) as ledger:
        if ledger.root(ledger.size) != tree(leaves):
            wrong.append("another root")
        if {found.seq for found in ledger.recover()} != unsettled or ledger.recover():
            wrong.append("not recovered")
    return len(rows) < said, wrong


def spending(entries, spent):
    """Hold the sums beside the entries against the entries."""
    wrong = []
    counts = collections.Counter(
        (e["body"]["group"], span, segment)
        for e in entries
        if e["kind"] == "reserve"
        for span, segment in itertools.product(("life", "purpose/test", "year/2030"), e["body"].get("segments") or [""])
    )
    if {(*key, count) for key, count in counts.items()} != set(spent):
        wrong.append("another count is spent")
    one = [order / (2 * EVENT.sigma**2) for order in ORDERS]
    for key, curve in spent.items():
        if curve != pytest.approx([value * key[3] for value in one]):
            wrong.append("another curve is spent")
    return wrong


def cuts(tmp_path, monkeypatch, count, seed, synchronous="synchronous = FULL"):
    """Cut the power `count` times; return how many cuts lost something acknowledged, and all that is wrong."""
    (tmp_path / "live").mkdir()
    (tmp_path / "after").mkdir()
    first, log, history = recorded(tmp_path / "live", monkeypatch, synchronous)
    assert len(history) == CHARGES + CHARGES * 4 // 5
    assert {"write", "sync"} <= {event[0] for event in log}
    assert sum(event[:2] == ("sync", "ledger.sqlite") for event in log) > 3  # the log was carried over in between
    rng, lost, wrong, reached = random.Random(seed), 0, collections.Counter(), set()  # noqa: S311 - no secret
    for _ in range(count):
        files, said = cut(first, log, rng.randrange(len(log) + 1), rng)
        missing, found = wrong_with(tmp_path / "after", files, said, history)
        lost += missing
        wrong.update(found)
        reached.add(said)
    return lost, wrong, reached


@pytest.mark.parametrize(
    ("count", "seed"),
    [(200, 1), pytest.param(1500, 2, marks=pytest.mark.slow), pytest.param(1500, 3, marks=pytest.mark.slow)],
)
def test_no_cut_of_the_power_loses_what_was_acknowledged_or_damages_the_ledger(tmp_path, monkeypatch, count, seed):
    lost, wrong, reached = cuts(tmp_path, monkeypatch, count, seed)
    assert (lost, dict(wrong)) == (0, {})
    assert len(reached) > 40  # the cuts struck all along the way


def test_with_less_syncing_the_same_cuts_lose_acknowledged_charges(tmp_path, monkeypatch):
    lost, _, _ = cuts(tmp_path, monkeypatch, 200, 1, "synchronous = NORMAL")
    assert lost > 20
