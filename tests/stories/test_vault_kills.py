"""Killed anywhere, a vault holds the old rows or the new; the same command finishes; nothing lies in the clear."""

import collections
import random
import shutil
import signal
from pathlib import Path

import pytest

from coterie.clients.tables.table import whole
from coterie.clients.vault import CUSTOMERS
from coterie.clients.workspace import Workspace
from coterie.privacy.errors import FileFault
from coterie.tests.clients.processes import Process
from coterie.tests.stories.killed_vault import LEFT, WORKS, planted, work
from coterie.tests.stories.test_mute import sings
from coterie.tests.stories.vaultkit import equal, held, opened, same, small_vault, unnamed_files, without

OLD, NEW = planted("old"), planted("new")
AFTER = {
    "seal": OLD | {CUSTOMERS: NEW[CUSTOMERS]},
    "rewrap": OLD,
    "rekey": OLD,
    "erase": {name: without(table, LEFT) for name, table in OLD.items()},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return small_vault(tmp_path_factory.mktemp("kills") / "bank", sealed=OLD)


def killed(template, folder, kind, how, last):
    """Copy the vault, work on it until the kill, and return the copy, what was said, and how the process ended."""
    bank = Workspace(shutil.copytree(template.root, folder / "bank"))
    (folder / "temporary").mkdir()
    process = Process(work, bank.root, kind, how, last, folder / "temporary")
    return bank, process.heard(), process.ended()


@pytest.fixture(scope="module")
def lengths(template, tmp_path_factory):
    """How many durable steps and lines each work passes."""
    found = {}
    for kind in WORKS:
        for how in ("durable", "lines"):
            folder = tmp_path_factory.mktemp(f"{kind}-{how}")
            bank, said, ended = killed(template, folder, kind, how, 0)
            assert ended == 0
            assert same(held(bank), AFTER[kind])
            found[kind, how] = said[0]
    return found


def in_the_clear(folder):
    """Files below a folder in which a canary is heard, or that are called by one."""
    heard = (path for path in folder.rglob("*") if path.is_file() and sings(path.read_bytes()))
    return [*heard, *(path for path in folder.rglob("*") if sings(str(path).encode()))]


def wrong_after(bank, kind, folder):
    """All that is wrong with a vault after a kill; the same command is given again, in this process."""
    wrong = []
    found = held(bank)
    for name, table in found.items():
        if not (equal(table, OLD[name]) or equal(table, AFTER[kind][name])):
            wrong.append(f"{name} holds neither the old rows nor the new")
    if found.keys() != OLD.keys():
        wrong.append("a data set is gone")
    wrong += [f"in the clear before: {path}" for path in in_the_clear(folder)]
    with opened(bank) as vault:
        try:
            WORKS[kind](vault)
        except FileFault as fault:
            # An erasure whose last step was done already has nobody to erase.
            if kind != "erase" or "holds no row of this customer" not in str(fault):
                raise
    if not same(held(bank), AFTER[kind]):
        wrong.append("the same command did not finish")
    wrong += [f"left over: {name}" for name in unnamed_files(bank)]
    wrong += [f"in the clear after: {path}" for path in in_the_clear(folder)]
    wrong += [f"in the temporary folder: {path}" for path in (folder / "temporary").iterdir()]
    if kind == "erase":
        with opened(bank) as vault:
            epochs, entries = vault.keys.epochs(), list(vault.ledger.entries("erasure"))
            wrong += [] if len(epochs) == len(entries) == 1 else [f"{len(epochs)} keys, {len(entries)} entries"]
    return wrong


def points(rng, lengths, kind, count):
    """Where to kill: half of the times before durable steps, all of them where they are few, and else before lines."""
    steps = range(1, lengths[kind, "durable"] + 1)
    lines = range(1, lengths[kind, "lines"] + 1)
    durable = rng.sample(steps, min(count // 2, len(steps)))
    return [("durable", n) for n in durable] + [("lines", n) for n in rng.sample(lines, count - len(durable))]


@pytest.mark.parametrize("kind", WORKS)
@pytest.mark.parametrize(
    ("count", "seed"), [pytest.param(10, 1, id="fast"), pytest.param(60, 2, id="many", marks=pytest.mark.slow)]
)
def test_a_vault_that_is_killed_is_the_old_one_or_the_new_one(template, lengths, tmp_path, kind, count, seed):
    rng, wrong, states = random.Random(seed), {}, collections.Counter()  # noqa: S311 - no secret
    before = set(Path("/tmp").iterdir())  # noqa: S108 - what is written there is looked for
    for how, last in points(rng, lengths, kind, count):
        folder = tmp_path / f"{how}-{last}"
        folder.mkdir()
        bank, said, ended = killed(template, folder, kind, how, last)
        assert (said, ended) == ([], -signal.SIGKILL)
        states[_state(bank, kind)] += 1
        if found := wrong_after(bank, kind, folder):
            wrong[how, last] = found
        shutil.rmtree(folder)
    stray = [p for p in set(Path("/tmp").iterdir()) - before if p.is_file() and sings(p.read_bytes())]  # noqa: S108
    print(kind, sum(states.values()), "kills:", dict(states))  # noqa: T201 - shown by -rP and where it fails
    assert wrong == {}
    assert stray == []
    assert sum(states.values()) == count
    assert len(states) > 1 or count < 60


def _state(bank, kind):
    with opened(bank) as vault:
        done = [entry.body["what"] for entry in vault.ledger.entries("vault")][3:]
        erased = len(list(vault.ledger.entries("erasure")))
    return f"{len(done)} steps" + (", recorded" if erased else "")


def test_plaintext_in_the_workspace_would_be_heard(template, tmp_path):
    bank = Workspace(shutil.copytree(template.root, tmp_path / "bank"))
    assert in_the_clear(tmp_path) == []
    with opened(bank) as vault:
        names = whole(vault.table(CUSTOMERS), ["customer", "spend"])
    (bank.vault / "spill").write_bytes(b"".join(bytes(b) for c in names.columns for b in c.chunks[0].buffers() if b))
    assert in_the_clear(tmp_path) == [bank.vault / "spill"]
