"""A coordinator that ships code: nothing of it runs at a partner, whatever it ships, and honest studies go on."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flwr.common.constant import ErrorCode

from coterie.server.bookrows import FINISHED
from coterie.tests.clients.federation import NAMES
from coterie.tests.stories.deployed import until
from coterie.tests.stories.hostile import Hostile, bomb, plain, shadow, thief

# What the SuperLink ships under the digest of a bundle that it has taken.
SHIPPED = {
    "bomb": bomb,
    "noise": lambda: bytes(range(256)) * 64,
    "nothing": lambda: b"",
}


def supernodes(live):
    """Process id and most memory in bytes of each partner's SuperNode."""
    found = {}
    for name in NAMES:
        child = next(line for line in reversed(live.log(name, "service.log")) if line.get("child") == "supernode")
        assert child["event"] == "started"
        status = Path(f"/proc/{child['pid']}/status").read_text(encoding="utf-8")
        found[name] = child["pid"], int(status.split("VmHWM:")[1].split()[0]) * 1024
    return found


def installed(live):
    """What Flower unpacked at partners."""
    return [path for name in NAMES for path in live.folders[name].rglob("apps/*") if path.is_dir()]


@pytest.mark.parametrize("kind", ["thief", "shadow", "bomb", "noise", "nothing"])
def test_no_bundle_but_the_installed_one_reaches_a_partner(kind, live):
    mark = live.root / f"mark-{kind}" / "ran"
    makers = {"thief": lambda: thief(live.root, mark), "shadow": lambda: shadow(live.root, mark)}
    fab = makers.get(kind, lambda: plain(kind))()
    before = supernodes(live)
    charged = {name: live.charges(name, live.local) for name in NAMES}
    coordinator = Hostile(live, kind)
    coordinator.start(fab)
    if kind in SHIPPED:
        until(coordinator.here.exists, 90, "the hostile app")
        coordinator.exchange(fab, SHIPPED[kind]())
    coordinator.go.touch()
    until(coordinator.told.exists, 150, "the hostile run's end")
    told = coordinator.replies()
    assert told["asked"] == 4 * len(NAMES)
    assert len(told["replies"]) == told["asked"]
    assert {tuple(one["error"]) for one in told["replies"]} == {
        (ErrorCode.INVALID_FAB, "The FAB could not be verified.")
    }
    assert not mark.parent.exists()
    assert installed(live) == []
    after = supernodes(live)
    assert {name: pid for name, (pid, _) in after.items()} == {name: pid for name, (pid, _) in before.items()}
    assert all(after[name][1] - before[name][1] < 100 << 20 for name in NAMES)
    assert charged == {name: live.charges(name, live.local) for name in NAMES}
    for name in NAMES:
        assert "FAB verification failed" in live.output(name, "supernode.out")


@pytest.mark.parametrize(("maker", "module"), [(thief, "hostile.client"), (shadow, "coterie.clients.running.worker")])
def test_the_code_that_is_shipped_would_leave_its_mark(maker, module, tmp_path):
    with zipfile.ZipFile(io.BytesIO(maker(tmp_path, tmp_path / "mark" / "ran"))) as archive:
        archive.extractall(tmp_path / "apps")
    vault = tmp_path / "site" / "partners" / "amber" / "vault"
    vault.mkdir(parents=True)
    (vault / "customers.parquet").write_bytes(b"rows")
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=tmp_path / "apps", check=True, timeout=120)
    assert (tmp_path / "mark" / "customers.parquet").read_bytes() == b"rows"


def test_after_them_an_honest_study_runs(live):
    plan = live.named("afterwards")
    ended = live.run(plan)
    assert (ended.status, ended.reason) == (FINISHED, "")
    with live.books() as books:
        assert [one.cohort for one in books.rounds(plan.digest())] == [tuple(sorted(NAMES))] * 2
