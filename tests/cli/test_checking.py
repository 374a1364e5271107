"""`coterie partner check`: what it prints, how it ends, and that it goes the way of the node's processes."""

import json
import os
import shutil
import socket
import sys

import pytest

from coterie.cli.main import main
from coterie.privacy.clock import now
from coterie.tests.clients.joinedsite import copied, joined_site
from coterie.tests.clients.test_reaching import elsewhere

HERE = (
    *("workspace", "ledger", "policy", "vault and contracts", "hygiene", "admission", "versions", "matching"),
    *("disk", "dry round"),
)
THERE = ("coordinator", "clock", "node")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return joined_site(tmp_path_factory.mktemp("checking") / "site")


@pytest.fixture
def bank(site, tmp_path):
    return copied(site, tmp_path / "bank")


@pytest.fixture
def check(monkeypatch, capsys):
    """Run the command in this process, whose environment it may change; return its exit code and its output."""
    before = dict(os.environ)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coterie", "partner", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out + printed.err

    yield call
    os.environ.clear()
    os.environ.update(before)


def test_a_partner_that_is_ready_is_told_so(check, bank):
    code, printed = check(bank.root, "--offline")
    assert code == 0
    marks = [line.split(":")[0].split(maxsplit=1) for line in printed.splitlines()]
    assert marks == [["ok", name] for name in HERE]
    assert "2 charged releases with made-up customers" in printed


def test_one_failure_is_enough_to_end_with_one_and_the_others_are_still_tested(check, bank):
    bank.policy.unlink()
    code, printed = check(bank.root, "--offline")
    assert code == 1
    lines = printed.splitlines()
    assert [line for line in lines if line.startswith("failed policy: ") and "Fix: " in line]
    assert len([line for line in lines if line.startswith("ok ")]) == len(HERE) - 1


def test_json_has_every_check(check, bank):
    shutil.rmtree(bank.federation)
    code, printed = check(bank.root, "--json")
    assert code == 1
    found = {one["name"]: one for one in json.loads(printed)}
    assert tuple(found) == (*HERE, *THERE)
    assert {name for name, one in found.items() if not one["fine"]} == {"admission", *THERE}
    assert all("coterie partner request" in found[name]["said"] for name in ("admission", *THERE))


def test_a_folder_that_is_no_workspace_is_one_failure(check, tmp_path):
    code, printed = check(tmp_path, "--json")
    (one,) = json.loads(printed)
    assert code == 1
    assert "is not a workspace. Fix: make one with: coterie partner init" in one["said"]
    assert list(tmp_path.iterdir()) == []


def test_the_way_to_the_coordinator_is_that_of_the_node_without_a_proxy(check, site, bank, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy, elsewhere(site, bank, tmp_path, issued=now()):
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        _, printed = check(bank.root, "--json")
    found = {one["name"]: one for one in json.loads(printed)}
    assert found["coordinator"]["fine"]
    assert found["clock"]["fine"]
    assert "(status 403)" in found["node"]["said"]  # the server's own answer: a proxy that is deaf would time out
