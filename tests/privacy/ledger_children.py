"""What the ledger's tests run in processes of their own: work that is killed, raced or starved of disk.

Run as a script: `ledger_children.py ROLE FOLDER ...`; each role prints JSON on its last line.
"""

import datetime
import json
import os
import random
import resource
import select
import signal
import sqlite3
import sys
from pathlib import Path

from coterie.privacy.charges import Charge, Limit
from coterie.privacy.errors import BudgetExhausted, LedgerFault
from coterie.privacy.events import DiscreteGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.renyi import ORDERS, Filter

EVENT = DiscreteGaussian(64.0, 1)
PLENTY = [Limit(Filter(90.0, 1e-5))]


def clock():
    return datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def charge(step):
    return Charge("sha256:p", "test", str(step), 1, "training", EVENT, "os")


def work(folder):
    """Reserve, draw, settle and let go, for ever: what a node does with a release."""
    with Ledger(folder / "ledger.sqlite", clock) as ledger:
        ledger.recover()
        step = len(ledger.reservations())
        out = os.open(folder / "released", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        while True:
            step += 1
            reservation = ledger.reserve(charge(step), PLENTY, declared=10**6)
            digest = f"sha256:{os.urandom(8).hex()}"
            ledger.settle(reservation, digest)
            os.write(out, f"{reservation.seq} {digest}\n".encode())


def inspect(folder):
    """Return what is wrong with a ledger after a kill, and how many reservations it left open."""
    path, wrong = folder / "ledger.sqlite", []
    with Ledger(path, clock) as ledger:
        held = {r.seq: r for r in ledger.reservations()}
        lines = (folder / "released").read_text().splitlines() if (folder / "released").exists() else []
        # The last line may be half written; what it says was not released.
        released = [line.split() for line in lines if len(line.split()) == 2 and len(line.split()[1]) == 23]
        for seq, digest in released:
            if int(seq) not in held or held[int(seq)].settled != digest or not ledger.paid_for(digest):
                wrong.append(f"{digest} was released and is not charged")
        open_ones = [r for r in held.values() if r.settled is None and not r.lost]
        if len(open_ones) > 1:
            wrong.append(f"{len(open_ones)} reservations are open")
        one = ORDERS[0] / (2 * EVENT.sigma**2)
        if abs(ledger.spent("training")[0] - one * len(held)) > 1e-9 * len(held):
            wrong.append("a reservation is not counted")
        if len(held) < len(released):
            wrong.append("more releases than charges")
    if sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() != ("ok",):
        wrong.append("the file is damaged")
    return wrong, len(open_ones), len(released)


def killing(folder, kills, seed):
    """Kill a worker `kills` times, anywhere in its work, and look at what it left each time."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    wrong, left_open, released = [], 0, 0
    for kill in range(kills):
        place = folder / f"{kill // 10}"  # a few kills in a row meet the same ledger
        if kill % 10 == 0:
            place.mkdir()
            Ledger.create(place / "ledger.sqlite")
        alive, child_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(alive)
            try:
                work(place)
            finally:
                os._exit(1)
        os.close(child_end)
        # Ready only if the child died by itself.
        ended, _, _ = select.select([alive], [], [], rng.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(alive)
        if ended:
            wrong.append("the worker ended by itself")
        found, unsettled, count = inspect(place)
        wrong += found
        left_open += unsettled
        released += count
    return {"wrong": wrong, "left_open": left_open, "released": released}


def racing(folder, racers, attempts, room):
    """Let processes reserve against one cap at once; return how many were granted."""
    limits = [Limit(Filter(1.0, 1e-5))]
    budget = limits[0].budget
    # A charge of which exactly `room` fit, with a little to spare.
    order = ORDERS[budget.index]
    event = DiscreteGaussian((order * (room + 0.5) / (2 * budget.capacity)) ** 0.5, 1)
    Ledger.create(folder / "ledger.sqlite")
    start, go = os.pipe()
    children = []
    for racer in range(racers):
        child = os.fork()
        if child == 0:
            granted: int | str = 0
            try:
                os.close(go)
                os.read(start, 1)  # returns when the parent closes its end: all start together
                with Ledger(folder / "ledger.sqlite", clock) as ledger:
                    for attempt in range(attempts):
                        plan = f"sha256:{racer}"  # every racer is a study of its own
                        asked = Charge(plan, "test", f"{attempt}", 1, "training", event, "os")
                        try:
                            ledger.reserve(asked, limits, declared=10**6)
                            granted += 1
                        except BudgetExhausted:
                            pass
            except BaseException as error:  # noqa: BLE001 - told to the test
                granted = repr(error)
            finally:
                (folder / f"granted.{racer}").write_text(json.dumps(granted))
                os._exit(0)
        children.append(child)
    os.close(start)
    os.close(go)
    for child in children:
        os.waitpid(child, 0)
    told = [json.loads((folder / f"granted.{racer}").read_text()) for racer in range(racers)]
    granted = [answer for answer in told if isinstance(answer, int)]
    with Ledger(folder / "ledger.sqlite", clock) as ledger:
        return {
            "granted": sum(granted),
            "charged": len(ledger.reservations()),
            "winners": sum(map(bool, granted)),
            "errors": [answer for answer in told if isinstance(answer, str)],
        }


def dividing(folder, racers, attempts, seed):
    """Let processes charge segments, purposes and everybody at once; return what was granted, and all that is held."""
    limits = [Limit(Filter(1.0, 1e-5)), Limit(Filter(0.7, 1e-5), purpose="test"), Limit(Filter(0.8, 1e-5), year=2030)]
    Ledger.create(folder / "ledger.sqlite")
    start, go = os.pipe()
    children = []
    for racer in range(racers):
        child = os.fork()
        if child == 0:
            rng = random.Random(seed * 100 + racer)  # noqa: S311 - no secret
            told: object = []
            try:
                os.close(go)
                os.read(start, 1)
                granted = []
                with Ledger(folder / "ledger.sqlite", clock) as ledger:
                    for attempt in range(attempts):
                        segments = rng.choice([(), ("a",), ("b",), ("c",), ("a", "b")])
                        purpose, sigma = rng.choice(["test", "work"]), rng.choice([9.0, 14.0, 30.0])
                        event = DiscreteGaussian(sigma, 1)
                        plan = f"sha256:{racer}.{attempt}"
                        asked = Charge(plan, purpose, "x", 1, "training", event, "os", segments)
                        kept = [limit for limit in limits if limit.purpose in {None, purpose}]
                        try:
                            ledger.reserve(asked, kept, declared=1)
                            granted.append([list(segments), purpose, sigma])
                        except BudgetExhausted:
                            granted.append(None)
                told = granted
            except BaseException as error:  # noqa: BLE001 - told to the test
                told = repr(error)
            finally:
                (folder / f"granted.{racer}").write_text(json.dumps(told))
                os._exit(0)
        children.append(child)
    os.close(start)
    os.close(go)
    for child in children:
        os.waitpid(child, 0)
    told = [json.loads((folder / f"granted.{racer}").read_text()) for racer in range(racers)]
    with Ledger(folder / "ledger.sqlite", clock) as ledger:
        held = [[list(r.charge.segments), r.charge.purpose, r.charge.event.sigma] for r in ledger.reservations()]
    lists = [answer for answer in told if isinstance(answer, list)]
    return {
        "granted": [one for answer in lists for one in answer if one],
        "refused": sum(one is None for answer in lists for one in answer),
        "held": held,
        "errors": [answer for answer in told if isinstance(answer, str)],
    }


def dump(path):
    """Return the version of a file, and its tables row by row."""
    db = sqlite3.connect(path)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    rows = db.execute("SELECT seq, at, kind, key, body FROM entries ORDER BY seq").fetchall()
    whole = db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    return version, tables, rows, whole


def upgrading(folder, kills, seed):
    """Kill the carrying over of a ledger of version 1 at random points; it must be there whole, in either version."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    path = folder / "ledger.sqlite"
    earlier = path.read_bytes()
    _, _, rows, _ = dump(path)
    wrong, versions = [], []
    took = 0.05
    for _ in range(kills):
        for beside in folder.glob("ledger.sqlite*"):
            beside.unlink()
        path.write_bytes(earlier)
        alive, child_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(alive)
            with Ledger(path, clock):
                os._exit(0)
        os.close(child_end)
        ended, _, _ = select.select([alive], [], [], rng.uniform(0.0, took))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(alive)
        took = took * 0.9 if ended else took * 1.1  # about as long as it takes here
        version, tables, kept, whole = dump(path)
        versions.append(version)
        if kept != rows or not whole or "earlier" in tables or ("spent" in tables) != (version == 2):
            wrong.append(f"half carried over at version {version}")
        with Ledger(path, clock) as ledger:
            if len(list(ledger.entries())) != len(rows) or dump(path)[0] != 2:
                wrong.append("was not carried over the next time")
    return {"wrong": wrong, "versions": versions}


def together(folder, openers, _seed):
    """Let processes open one ledger of version 1 at once; return what each saw."""
    path = folder / "ledger.sqlite"
    start, go = os.pipe()
    children = []
    for opener in range(openers):
        child = os.fork()
        if child == 0:
            told: object = "nothing"
            try:
                os.close(go)
                os.read(start, 1)
                with Ledger(path, clock) as ledger:
                    told = [ledger.size, ledger.root(ledger.size).hex(), ledger.spent("training")[0]]
            except BaseException as error:  # noqa: BLE001 - told to the test
                told = repr(error)
            finally:
                (folder / f"told.{opener}").write_text(json.dumps(told))
                os._exit(0)
        children.append(child)
    os.close(start)
    os.close(go)
    for child in children:
        os.waitpid(child, 0)
    return [json.loads((folder / f"told.{opener}").read_text()) for opener in range(openers)]


def full_disk(folder):
    """Write until files may grow no more, then go on when they may again."""
    Ledger.create(folder / "ledger.sqlite")
    with Ledger(folder / "ledger.sqlite", clock) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        granted, fault = 0, None
        while fault is None:
            try:
                ledger.reserve(charge(granted), PLENTY, declared=10**6)
                granted += 1
            except LedgerFault as error:
                (fault,) = error.faults
        before = len(ledger.reservations())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ledger.reserve(charge(granted), PLENTY, declared=10**6)
        after = len(ledger.reservations())
    wrong, _, _ = inspect(folder)
    return {
        "granted": granted,
        "before": before,
        "after": after,
        "place": fault.place,
        "fix": fault.fix,
        "wrong": [line for line in wrong if "open" not in line],
    }


if __name__ == "__main__":
    role, at, *numbers = sys.argv[1:]
    roles = {
        "killing": killing,
        "racing": racing,
        "full_disk": full_disk,
        "dividing": dividing,
        "upgrading": upgrading,
        "together": together,
    }
    print(json.dumps(roles[role](Path(at), *map(int, numbers))))  # noqa: T201 - its way to answer
