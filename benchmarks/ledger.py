"""What the ledger costs: durable charges against bare SQLite inserts, and a long ledger verified end to end.

    python benchmarks/ledger.py --output benchmarks/results/ledger.json

Appends: each reservation and settlement is one durable transaction (WAL, synchronous=FULL), with the budget check, the
Merkle tree and Rényi sums; against it a table of the same columns, written with the same settings by one bare INSERT
a transaction. Both in one run, in turns. Verification: a bundle of 200,000 entries, every one a real charge of some
study under a real plan and policy, checked by one process; the two accountants are timed apart.
"""

import dataclasses
import datetime
import itertools
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conditions import arguments_for, conditions, publish

from coterie.clients.consent import consent_body
from coterie.privacy.calibration import calibrate
from coterie.privacy.canonical import digest
from coterie.privacy.charges import Charge, Entry, Limit
from coterie.privacy.checkpoint import cosign, sign_checkpoint
from coterie.privacy.clock import now
from coterie.privacy.contract import Column, Contract
from coterie.privacy.entries import charge_body, leaf_of
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.merkle import Frontier
from coterie.privacy.plan import Cohort, Metrics, Model, Partner, Plan, Privacy, Training
from coterie.privacy.policy import Policy
from coterie.privacy.renyi import Filter
from coterie.privacy.review.bundle import Header, bundle_lines
from coterie.privacy.review.verify import verify_bundle
from coterie.privacy.schema import parse
from coterie.privacy.signed import sign

EVENT = PoissonGaussian(40.0, 0.01, 1)
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ROUNDS = 900


def rules(coordinator: str) -> dict[str, Any]:
    """Return a policy that permits the long ledger's studies."""
    return {
        "coordinator": coordinator,
        "customer": "customer",
        "labels": ["bought"],
        "purposes": ["coupons"],
        "columns": ["age"],
        "families": ["logistic"],
        "trust": ["local"],
        "minimum_partners": 1,
        "minimum_customers": 1000,
        "budget": {"study_epsilon": 1.0, "lifetime_epsilon": 900.0, "delta": 1e-6},
        "approval": {"automatic_epsilon": 0.5},
    }


def plan_of(number: int, key: str) -> Plan:
    """Return the study of a number; all are alike but for their names."""
    return Plan(
        name=f"study {number}",
        purpose="coupons",
        task="propensity",
        expires=datetime.date(2036, 12, 31),
        contract=Contract(
            customer="customer", label="bought", columns=(Column(name="age", kind="numeric", low=0, high=99),)
        ),
        model=Model(family="logistic"),
        training=Training(rounds=ROUNDS, local_steps=1, sample_rate=0.01, learning_rate=1.0, clip=1.0),
        privacy=Privacy(
            unit="customer of one partner", epsilon=0.5, delta=1e-6, trust="local", threshold=1, colluders=1
        ),
        metrics=Metrics(rounds=tuple(range(10, ROUNDS + 1, 10))),
        cohort=Cohort(minimum_customers=1000),
        partners=(Partner(name="bank", customers=100_000, key=key), Partner(name="shop", customers=1000)),
    )


def long_history(count: int, partner: Identity, coordinator: Identity, plans: list[bytes]) -> Iterator[Entry]:
    """Yield the entries of a ledger of `count`; signs each plan when it is consented to."""
    content = rules(coordinator.public)
    policy = parse(Policy, content, place="policy")
    seqs = itertools.count(1)
    said = START

    def entry(kind: str, body: dict[str, Any]) -> Entry:
        nonlocal said
        said += datetime.timedelta(seconds=20)
        seq = next(seqs)
        return Entry(seq, said.isoformat(timespec="seconds"), kind, body, f"{seq:032x}")

    yield entry(
        "opened",
        {
            "format": "coterie/ledger/v2",
            "partner": "bank",
            "key": partner.public,
            "groups": "sha256:" + "1" * 64,
            "carried": 0,
        },
    )
    yield entry("policy", {"policy": digest(content), "content": content})
    for number in itertools.count():
        plan = plan_of(number, partner.public)
        mechanisms = calibrate(plan)
        plans.append(sign(plan, coordinator).to_bytes())
        release = "sha256:" + "0" * 64
        yield (last := entry("consent", consent_body(plan, mechanisms, policy, (release, digest(content)))))
        name = plan.digest()
        for round_ in range(1, ROUNDS + 1):
            steps = [("train", "training", mechanisms.update)]
            steps += [("evaluate", "holdout", mechanisms.histogram)] if round_ % 10 == 0 else []
            for kind, group, event in steps:
                charge = Charge(name, plan.purpose, f"{kind}/{round_}", 1, group, event, "os")
                yield (last := entry("reserve", charge_body(charge)))
                yield (last := entry("settle", {"reserve": last.seq, "release": release}))
                if last.seq >= count:
                    return


def write_long(path: Path, count: int) -> None:
    """Write a bundle with a ledger of `count` entries, cosigned now and then."""
    partner, coordinator, plans, notes = Identity.create(), Identity.create(), [], []
    tree, entries = Frontier(), []
    for entry in long_history(count, partner, coordinator, plans):
        tree.add(leaf_of(entry))
        entries.append(entry)
        if entry.seq % 5000 == 0 or entry.seq == count:
            seen = int(datetime.datetime.fromisoformat(entry.at).timestamp())
            notes.append(cosign(sign_checkpoint(tree.size, tree.root(), partner), coordinator, seen))
    parts: list[tuple[str, Any]] = [("plan", json.loads(plan)) for plan in plans]
    parts += [("checkpoint", note) for note in notes]
    counts = {"plan": len(plans), "record": 0, "card": 0, "checkpoint": len(notes), "entry": len(entries)}
    header = Header("bank", partner.public, START.isoformat(), "benchmark", counts)
    head = sign_checkpoint(tree.size, tree.root(), partner)
    with path.open("wb") as file:
        file.writelines(bundle_lines(header, parts, entries, head=head, identity=partner))


def verified(path: Path) -> dict[str, Any]:
    """Time a verification with and without the accountants."""
    started = time.process_time(), time.perf_counter()
    verdict = verify_bundle(path, accounting=False)
    cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
    again = time.perf_counter()
    whole = verify_bundle(path)
    return {
        "entries": verdict.size,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "status": whole.status,
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "with_accountants_wall_seconds": round(time.perf_counter() - again, 2),
    }


def ours(folder: Path, count: int) -> float:
    """Return durable appends a second: a reservation and its settlement are two."""
    path = folder / f"ours-{time.time_ns()}.sqlite"
    Ledger.create(path)
    limits = [
        Limit(Filter(900.0, 1e-6)),
        Limit(Filter(900.0, 1e-6), purpose="coupons"),
        Limit(Filter(900.0, 1e-6), year=2026),
    ]
    charge = Charge("sha256:" + "a" * 64, "coupons", "train/0", 1, "training", EVENT, "os")
    with Ledger(path, now) as ledger:
        ledger.settle(ledger.reserve(charge, limits, declared=10), "sha256:" + "0" * 64)  # imports and caches
        started = time.perf_counter()
        for number in range(count // 2):
            one = dataclasses.replace(charge, plan=f"sha256:{number // 20:064x}", step=f"train/{number % 20 + 1}")
            ledger.settle(ledger.reserve(one, limits, declared=20), f"sha256:{number:064x}")
        return count / (time.perf_counter() - started)


def bare(folder: Path, count: int) -> float:
    """Return inserts a second into a table of the same columns, one durable transaction each."""
    db = sqlite3.connect(folder / f"bare-{time.time_ns()}.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(
        "CREATE TABLE entries (seq INTEGER PRIMARY KEY, at TEXT, kind TEXT, key TEXT UNIQUE, body TEXT, nodes BLOB)"
    )
    body = json.dumps(charge_body(Charge("sha256:" + "a" * 64, "coupons", "train/1", 1, "training", EVENT, "os")))
    started = time.perf_counter()
    for number in range(count):
        row = (number, now().isoformat(), "reserve", f"{number:064x}/train/1/1", body, bytes(64))
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
    rate = count / (time.perf_counter() - started)
    db.close()
    return rate


def start_up() -> list[float]:
    """Return the wall seconds of the reviewer's command when it is only asked for help."""
    times = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run(
            [str(Path(sys.executable).with_name("coterie")), "audit", "--help"], check=True, capture_output=True
        )
        times.append(round(time.perf_counter() - started, 3))
    return times


def main() -> None:
    parser = arguments_for(__doc__)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--appends", type=int, default=4000)
    parser.add_argument("--folder", type=Path, help="where to write; must be on the disk that is to be measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        rates = [(bare(folder, arguments.appends), ours(folder, arguments.appends)) for _ in range(5)]
        write_long(folder / "long.bundle", arguments.entries)
        verification = verified(folder / "long.bundle")
    ratios = [own / plain for plain, own in rates]
    result = {
        "what": "durable appends a second, and a long ledger verified",
        **conditions("cryptography"),
        "sqlite": sqlite3.sqlite_version,
        "bare_inserts_per_second": [round(plain) for plain, _ in rates],
        "ledger_appends_per_second": [round(own) for _, own in rates],
        "ledger_over_bare": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "verification": verification,
        "audit_help_seconds": start_up(),
    }
    publish(result, arguments.output)


if __name__ == "__main__":
    main()
