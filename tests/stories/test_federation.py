"""A study among real processes: what it releases is what a simulation releases, and nothing else is to be seen."""

import hashlib
import struct
import subprocess
import sys

import numpy as np
import pytest

from coterie.clients.outbox import Outbox
from coterie.clients.tables.table import whole
from coterie.clients.vault import CUSTOMERS, open_vault
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.ledger import Ledger
from coterie.privacy.randomness import SeededSource
from coterie.server.bookrows import FINISHED
from coterie.simulations import releases
from coterie.simulations.deployedreport import deployed_report, write_report
from coterie.simulations.federation import run_federation
from coterie.tests.clients.federation import NAMES
from coterie.tests.stories.deployed import OUTSIDER, WORDS, charges_of, programs, twin_folders
from coterie.tests.stories.seeded import SEED


def outbox_of(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "outbox").iterdir()}


# Openly: an update and a histogram of two rounds. In sums: two steps and a histogram of two rounds, masked.
@pytest.mark.parametrize(("which", "releases"), [("local", 4), ("secure", 6)])
def test_a_deployed_study_releases_the_bytes_of_the_simulated_one(live, which, releases):
    plan = getattr(live, which)
    twin = live.twin(plan)
    simulated = run_federation(twin, plan, dict.fromkeys(NAMES), seed=7, engine="local", random=SeededSource(SEED))
    ended = live.run(plan)
    assert (ended.status, ended.reason) == (FINISHED, "")
    for name, folder in twin_folders(twin, plan).items():
        made, kept = charges_of(folder, plan), live.charges(name, plan)
        assert len(made) == releases
        assert kept == made
        here, there = outbox_of(live.folders[name]), outbox_of(folder)
        assert len(there) == releases
        assert {file: here.get(file) for file in there} == there
    deployed = live.progress(plan)
    assert deployed.round == simulated.progress.round == 2
    assert sorted(deployed.receipts, key=repr) == sorted(
        simulated.progress.receipts, key=repr
    )  # who comes first differs
    assert [w.tobytes() for w in deployed.weights] == [w.tobytes() for w in simulated.progress.weights]
    assert all(np.any(w) for w in deployed.weights[:1])


@pytest.fixture
def finished(live):
    """The federation after a study."""
    ended = live.run(live.local)
    assert ended.status == FINISHED
    return live


def test_the_deployed_report_shows_charged_releases_alone(finished, tmp_path):
    report = deployed_report(finished.site.office, finished.local.digest(), clock=now)
    assert report["simulation"] is None
    assert report["budget"] == []
    assert report["model"]["sha256"]
    progress = finished.progress(finished.local)
    assert sorted(progress.histograms) == [one["round"] for one in report["release"]["rounds"]] == [1, 2]
    for number, by_partner in progress.histograms.items():
        for name in NAMES:  # what is shown is made of these, and each of them was paid for
            assert np.array_equal(by_partner[name], released(finished.folders[name], finished.local, number))
    assert report["release"] == releases.released(finished.local, progress)
    write_report(report, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 0


def released(folder, plan, number):
    """The histogram that a partner's ledger settled for a round."""
    with Ledger(Workspace(folder).ledger, now) as ledger:
        (paid,) = [one for one in ledger.charges_of(plan.digest()) if f"/evaluate/{number}/" in one.charge.key]
    (counts,) = Outbox(folder / "outbox").again(paid.charge, paid.settled).arrays
    return counts


def spellings():
    """Every spelling in which a canary might be heard."""
    word = WORDS["customer"]
    texts = (word, repr(WORDS["spend"]))
    coded = [form for text in texts for form in (text.encode(), text.encode("utf-16-le"), text.encode().hex().encode())]
    return [*coded, *(struct.pack(form, WORDS["spend"]) for form in ("<d", ">d", "<f", ">f"))]


def files_under(*folders):
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_no_row_is_found_at_the_coordinator_or_in_any_log(finished, tmp_path):
    with open_vault(finished.folders["birch"], now) as vault:
        table = vault.table(CUSTOMERS)
        rows = whole(table, table.schema.names)
    assert WORDS["customer"] in rows["customer"].to_pylist()
    assert WORDS["spend"] in rows["spend"].to_pylist()
    write_report(deployed_report(finished.site.office, finished.local.digest(), clock=now), tmp_path / "report.html")
    partners = [finished.folders[name] / part for name in NAMES for part in ("logs", "run", "supernode", "outbox")]
    seen = files_under(finished.folders["coordinator"], tmp_path, *partners)
    names = {path.name for path in seen}
    expected = {"state.db", "books.sqlite", "worker.log", "supernode.out", "superlink.out", "report.json"}
    assert expected <= names
    found = [(path, song) for path in seen for song in spellings() if song in path.read_bytes()]
    assert found == []


# What the processes are, by a word of their command lines.
KINDS = (
    "coordinator start",
    "flower-superlink",
    "flower-superexec",
    "server.running.gateway",
    "flwr-serverapp",
    "running.supernode",
    "seeded.py partner",
    "seeded.py worker",
)


def test_no_process_looks_up_a_name_or_installs_anything(finished):
    processes = finished.heard_of("process")
    assert [kind for kind in KINDS if not any(kind in one for one in processes)] == []
    names = set(finished.heard_of("name"))
    assert "127.0.0.1" in names or "localhost" in names  # the recorder hears
    assert names <= {"", "localhost", "127.0.0.1", "0.0.0.0"}  # noqa: S104 - heard, not bound
    runs = finished.heard_of("runs")
    started = {"python", "flwr-serverapp"}
    assert started <= programs(runs)
    # `platform` of the standard library asks these two which machine this is.
    assert programs(runs) - started <= {"file", "uname"}


def test_the_recorder_hears_flowers_own_defaults_reach_out(live):
    told = "from flwr.supercore.telemetry import EventType, event; event(EventType.PING).result(20)"
    environment = {**live.environment, "FLWR_TELEMETRY_ENABLED": "1", "FLWR_HOME": str(live.root / "control")}
    heard = live.root / "control" / "heard.txt"
    recorder = live.root / "control" / "recorder" / "sitecustomize.py"
    recorder.parent.mkdir(parents=True)
    shipped = (live.root / "recorder" / "sitecustomize.py").read_text(encoding="utf-8")
    recorder.write_text(shipped.replace(str(live.heard), str(heard)), encoding="utf-8")
    environment["PYTHONPATH"] = str(recorder.parent)
    subprocess.run([sys.executable, "-c", told], env=environment, check=True, capture_output=True, timeout=60)
    names = [line.partition("\t")[2] for line in heard.read_text().splitlines() if line.startswith("name")]
    assert [name for name in names if name not in ("", "localhost", "127.0.0.1")]


def test_a_partner_that_no_plan_names_is_asked_nothing(finished):
    assert OUTSIDER not in {receipt.partner for receipt in finished.progress(finished.local).receipts}
    assert not list((finished.folders[OUTSIDER] / "outbox").iterdir())
