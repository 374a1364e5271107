"""A workspace: one process at a time, readable by its owner alone, made once."""

import os
import stat

import pytest

from coterie.clients.node import open_node
from coterie.clients.workspace import Workspace, WorkspaceBusy
from coterie.privacy.errors import FileFault, LedgerFault
from coterie.privacy.policy import read_policy
from coterie.tests.clients.federation import SEEDED, files_of, study, today
from coterie.tests.clients.processes import Process, hold


def modes(folder):
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def loose_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_second_process_finds_the_workspace_busy(agreed):
    first = Process(hold, agreed.root, study())
    assert first.pipe.recv() == "held"
    with pytest.raises(WorkspaceBusy, match="is in use by another process"), agreed.node():
        pass
    first.pipe.send("let go")
    assert first.heard() == []
    agreed.train()


def test_the_coordinator_hears_that_a_workspace_is_busy_and_nothing_else(agreed):
    first = Process(hold, agreed.root, study())
    assert first.pipe.recv() == "held"
    grid = agreed.grid()
    for reply in (agreed.ask_plan(grid), agreed.ask_task(grid, "train"), agreed.ask_task(grid, "evaluate")):
        assert reply.error.reason == "busy"
    assert not agreed.ask_plan(grid, "birch").has_error()
    first.pipe.send("let go")
    assert first.heard() == []
    assert agreed.kinds() == ["consent"]
    assert not agreed.ask_task(grid, "train").has_error()


def test_a_killed_process_leaves_no_lock_behind(agreed):
    first = Process(hold, agreed.root, study())
    assert first.pipe.recv() == "held"
    first._process.kill()
    first.heard()
    agreed.train()


def test_a_new_workspace_has_keys_of_its_own_and_no_policy(tmp_path):
    one, other = (Workspace.create(tmp_path / name, name) for name in ("one", "other"))
    assert (one.name, other.name) == ("one", "other")
    assert len(one.group_key) == 32
    assert one.group_key != other.group_key
    assert one.identity.public != other.identity.public
    with pytest.raises(FileFault):
        read_policy(one.policy)


@pytest.mark.parametrize("name", ['say "so"', "back\\slash", "Zo\u00eb & Co.", "\x7f", "n" * 60])
def test_a_name_is_kept_as_it_was_given(tmp_path, name):
    assert Workspace.create(tmp_path / "new", name).name == name


@pytest.mark.parametrize("name", ["", "n" * 61, "tab\tand", "line\n", "\x07", "\x00"])
def test_a_name_that_no_roster_could_hold_is_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(FileFault, match="1 to 60 characters"):
        Workspace.create(tmp_path / "new", name)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("there", ["a file", "a folder", "a workspace"])
def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path, there):
    root = tmp_path / "here"
    if there == "a workspace":
        Workspace.create(root, "first")
    else:
        root.mkdir()
        (root / "thing").mkdir() if there == "a folder" else (root / "thing").write_text("mine")
    before = files_of(root)
    with pytest.raises(FileFault, match="is not empty"):
        Workspace.create(root, "second")
    assert files_of(root) == before


def test_a_workspace_cannot_be_made_in_place_of_a_file(tmp_path):
    (tmp_path / "here").write_text("mine")
    with pytest.raises(FileFault, match="cannot be made"):
        Workspace.create(tmp_path / "here", "second")


def test_where_there_is_no_workspace_there_is_no_node(tmp_path):
    with (
        pytest.raises(FileFault, match="is not a workspace"),
        open_node(tmp_path / "nowhere", random=SEEDED, clock=today),
    ):
        pass


def test_everything_is_readable_by_its_owner_alone(tmp_path, loose_umask):
    root = tmp_path / "empty-before"
    root.mkdir(mode=0o755)
    Workspace.create(root, "amber")
    wrong = {name: oct(mode) for name, mode in modes(root).items() if mode not in (0o600, 0o700)}
    assert not wrong


def test_what_work_leaves_behind_is_readable_by_its_owner_alone(agreed, loose_umask):
    agreed.policy()
    agreed.workspace().policy.chmod(0o600)
    for kind in ("train", "measure"):
        getattr(agreed, kind)()
    agreed.lose()
    agreed.ask_task(agreed.grid(), "train", agreed.task(2))
    agreed.policy(purposes=["churn"])
    agreed.propose()
    found = modes(agreed.folders["amber"])
    assert {"reports/refusals.log", "ledger.sqlite", "lock"} <= set(found)
    assert any(name.startswith("outbox/") for name in found)
    assert any(name.startswith("plans/") for name in found)
    assert not {name: oct(mode) for name, mode in found.items() if mode not in (0o600, 0o700)}


@pytest.mark.parametrize("harm", ["garbage", "another version", "gone"])
def test_a_ledger_that_cannot_be_believed_stops_everything(agreed, harm):
    path = agreed.workspace().ledger
    if harm == "gone":
        path.unlink()
        path.mkdir()
    elif harm == "garbage":
        path.write_bytes(b"not a ledger" * 1000)
    else:
        import sqlite3

        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
    with pytest.raises(LedgerFault):
        agreed.train()
    grid = agreed.grid()
    assert agreed.ask_task(grid, "train").error.reason == "fault"
    assert agreed.ask_plan(grid).error.reason == "fault"
