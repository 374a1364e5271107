"""New keys: a new key-encryption key touches no stream, single columns come anew, and interruptions are finished."""

import base64
import json
import shutil

import pytest

from coterie.clients import rekeying
from coterie.clients.rekeying import destroy_older, forget_waiting, move_keys, rekey, rewrap, waiting_columns
from coterie.clients.tables.table import whole
from coterie.clients.vault import CUSTOMERS, DATASETS, Vault
from coterie.privacy.errors import ContractFault, FileFault, LedgerFault
from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.fields.sources.environment import EnvironmentKeys
from coterie.privacy.fields.sources.local import LocalKeys
from coterie.privacy.fields.sources.passphrase import PassphraseKeys
from coterie.privacy.fields.sources.settings import KeySettings
from coterie.privacy.ledger import Ledger
from coterie.tests.stories.vaultkit import (
    all_tables,
    held,
    manifest_file,
    opened,
    put,
    read,
    same,
    small_vault,
    tree,
    unnamed_files,
    workspace,
)

ROWS = all_tables(12)
NAMES = ["customer", "age", "spend", "region", "bought"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return small_vault(tmp_path_factory.mktemp("rekeying") / "bank", sealed=ROWS)


@pytest.fixture
def bank(template, tmp_path):
    return type(template)(shutil.copytree(template.root, tmp_path / "bank"))


def streams(made):
    """Every stream's bytes, by where it lies."""
    return {name: data for name, (_, data) in tree(made.vault).items() if "/streams/" in name}


def epochs(vault):
    return [vault.newest(name).epoch for name in DATASETS]


def bodies(vault):
    return [
        (e.body["dataset"], e.body["version"], e.body["what"], e.body["epoch"]) for e in vault.ledger.entries("vault")
    ]


class Stop(Exception):
    """An interruption."""


def stopping(monkeypatch, owner, name, after):
    """Let a function be called so many times, and then be interrupted."""
    really, calls = getattr(owner, name), []

    def counting(*args, **kwargs):
        if len(calls) == after:
            raise Stop
        calls.append(name)
        return really(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)


# --- a new key-encryption key -------------------------------------------------------------------------------------


def test_a_new_key_encryption_key_leaves_every_stream_byte_as_it_was(bank):
    before = streams(bank)
    with opened(bank) as vault:
        old = [vault.newest(name) for name in DATASETS]
        done = rewrap(vault)
        new = [vault.newest(name) for name in DATASETS]
        assert bodies(vault)[5:] == [(name, 2, "rewrapped", "0002") for name in DATASETS]
    assert (done.epoch, done.datasets) == ("0002", DATASETS)
    assert streams(bank) == before
    assert unnamed_files(bank) == []
    for one, other in zip(old, new, strict=True):
        assert [s.key for s in one.streams] != [s.key for s in other.streams]
        assert one.inside != other.inside
        assert one.inside_key != other.inside_key
        assert (one.epoch, other.epoch) == ("0001", "0002")
    assert same(held(bank), ROWS)


def test_what_was_wrapped_under_an_older_key_opens_until_that_is_destroyed(bank, tmp_path):
    backup = shutil.copytree(bank.root, tmp_path / "backup")  # with the keys of then
    shutil.rmtree(backup / "keys" / "vault")
    with opened(bank) as vault:
        rewrap(vault)
        older = (backup / "keys" / "vault").symlink_to(bank.root / "keys" / "vault")
        assert same(held(backup), ROWS)
        assert destroy_older(vault) == ("0001",)
        assert destroy_older(vault) == ()
    assert older is None
    with pytest.raises(KeyFault, match="has no key of epoch 0001: it was destroyed"):
        held(backup)
    assert same(held(bank), ROWS)


def test_an_older_key_is_not_destroyed_while_something_is_wrapped_under_it(bank):
    with opened(bank) as vault:
        vault.keys.advance(after="0001")
        with pytest.raises(SealFault, match="is wrapped under an older key still"):
            destroy_older(vault)
        assert vault.keys.epochs() == ("0001", "0002")
    assert same(held(bank), ROWS)


@pytest.mark.parametrize("done", [0, 1, 2, 4])
def test_an_interrupted_rotation_is_finished_and_makes_no_second_key(bank, monkeypatch, done):
    with monkeypatch.context() as patch, opened(bank) as vault:
        stopping(patch, Vault, "commit", done)
        with pytest.raises(Stop):
            rewrap(vault)
        assert epochs(vault) == ["0002"] * done + ["0001"] * (5 - done)
        assert same(read(vault), ROWS)
    with opened(bank) as vault:
        found = rewrap(vault)
        assert found.datasets == DATASETS[done:]
        assert epochs(vault) == ["0002"] * 5
        assert vault.keys.epochs() == ("0001", "0002")
    assert same(held(bank), ROWS)
    assert unnamed_files(bank) == []


def to_a_mount(vault):
    folder = vault.workspace.root.parent / "mounted"
    folder.mkdir(mode=0o700, exist_ok=True)
    move_keys(vault, LocalKeys.create(folder, kind="mount"))


def all_columns(vault):
    for column in waiting_columns(vault, CUSTOMERS):
        rekey(vault, CUSTOMERS, column)
    forget_waiting(vault, CUSTOMERS)


@pytest.mark.parametrize("work", [rewrap, to_a_mount, all_columns], ids=lambda work: work.__name__)
@pytest.mark.parametrize("done", [1, 2])
def test_what_was_committed_and_not_swept_is_swept_by_the_same_command(bank, monkeypatch, work, done):
    """Else an older manifest would stay, which an older key still opens."""
    with monkeypatch.context() as patch, opened(bank) as vault:
        commits, sweep = [], Vault.sweep
        patch.setattr(Vault, "commit", lambda *args, really=Vault.commit: commits.append(1) or really(*args))

        def swept(*args):
            if len(commits) == done:
                raise Stop
            sweep(*args)

        patch.setattr(Vault, "sweep", swept)
        with pytest.raises(Stop):
            work(vault)
    assert unnamed_files(bank) != []
    with opened(bank) as vault:
        work(vault)
    assert unnamed_files(bank) == []


def test_each_finished_rotation_makes_one_more_key(bank):
    with opened(bank) as vault:
        assert [rewrap(vault).epoch for _ in range(3)] == ["0002", "0003", "0004"]
    assert same(held(bank), ROWS)


def test_a_vault_with_nothing_sealed_gets_a_new_key_too(tmp_path):
    with opened(workspace(tmp_path / "bank")) as vault:
        assert rewrap(vault).datasets == ()
        assert vault.keys.epochs() == ("0001", "0002")
        put(vault, CUSTOMERS, ROWS[CUSTOMERS])
        assert vault.newest(CUSTOMERS).epoch == "0002"


@pytest.mark.parametrize("work", [rewrap, lambda vault: rekey(vault, CUSTOMERS, "age")], ids=["rewrap", "rekey"])
def test_a_ledger_that_cannot_be_written_leaves_the_old_vault(bank, monkeypatch, work):
    before = streams(bank)

    def refuse(self, kind, body):
        raise LedgerFault

    with monkeypatch.context() as patch, opened(bank) as vault:
        patch.setattr(Ledger, "record", refuse)
        with pytest.raises(LedgerFault):
            work(vault)
    assert same(held(bank), ROWS)
    with opened(bank) as vault:
        rewrap(vault)
    assert unnamed_files(bank) == []
    assert streams(bank) == before


# --- new data keys for columns ------------------------------------------------------------------------------------


def test_a_column_with_a_new_data_key_is_another_stream_and_the_others_stay(bank):
    before = streams(bank)
    with opened(bank) as vault:
        old = vault.newest(CUSTOMERS)
        seen = []
        rekey(vault, CUSTOMERS, "spend", see=seen.append)
        new = vault.newest(CUSTOMERS)
        with_old = bytes(vault.unwrapped(old, [old.streams[2]])[0])
        with_new = bytes(vault.unwrapped(new, [new.streams[2]])[0])
        assert bodies(vault)[5:] == [(CUSTOMERS, 2, "rekeyed", "0001")]
    after = streams(bank)
    assert len(after.keys() - before.keys()) == len(before.keys() - after.keys()) == 1
    assert all(before[name] == after[name] for name in before.keys() & after.keys())
    assert with_old != with_new
    assert [s.version for s in new.streams] == [1, 1, 2, 1, 1]
    assert seen == [12]
    assert same(held(bank), ROWS)
    assert unnamed_files(bank) == []


def test_all_columns_one_by_one(bank):
    before = streams(bank)
    with opened(bank) as vault:
        waiting = waiting_columns(vault, CUSTOMERS)
        assert waiting == NAMES
        for column in waiting:
            rekey(vault, CUSTOMERS, column)
            assert same(read(vault), ROWS)
        forget_waiting(vault, CUSTOMERS)
        assert vault.newest(CUSTOMERS).version == 6
    assert not {name for name in before if name.startswith(CUSTOMERS)} & streams(bank).keys()


@pytest.mark.parametrize("done", range(5))
@pytest.mark.parametrize("chosen", [None, ["region", "customer"]], ids=["all", "two"])
def test_columns_that_were_interrupted_go_on_with_those_that_wait(bank, done, chosen):
    expected = chosen or NAMES
    if done >= len(expected):
        done = len(expected) - 1
    with opened(bank) as vault:
        waiting = waiting_columns(vault, CUSTOMERS, chosen)
        assert waiting == expected
        for column in waiting[:done]:
            rekey(vault, CUSTOMERS, column)
    with opened(bank) as vault:
        left = waiting_columns(vault, CUSTOMERS)
        assert sorted(left) == sorted(expected[done:])
        for column in left:
            rekey(vault, CUSTOMERS, column)
        assert vault.newest(CUSTOMERS).version == 1 + len(expected)
        forget_waiting(vault, CUSTOMERS)
        assert waiting_columns(vault, CUSTOMERS) == NAMES
    assert same(held(bank), ROWS)


def test_what_says_which_columns_wait_names_none(bank):
    with opened(bank) as vault:
        waiting_columns(vault, CUSTOMERS, ["spend"])
    said = (bank.vault / CUSTOMERS / "waiting").read_text()
    assert "spend" not in said
    assert json.loads(said)[0] in {path.name for path in (bank.vault / CUSTOMERS / "streams").iterdir()}


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"7", b"[[]]", b"[{}]", b"\xff"])
def test_a_damaged_note_of_waiting_columns_is_one_clear_fault(bank, data):
    (bank.vault / CUSTOMERS / "waiting").write_bytes(data)
    with opened(bank) as vault:
        with pytest.raises(SealFault, match=r"is damaged\. Fix: remove it, and rotate again"):
            waiting_columns(vault, CUSTOMERS)
        assert waiting_columns(vault, CUSTOMERS, ["age"]) == ["age"]


def test_columns_that_are_not_there_are_refused_before_anything_is_done(bank):
    before = tree(bank.vault)
    with opened(bank) as vault:
        with pytest.raises(ContractFault, match="column shoe size: is missing"):
            waiting_columns(vault, CUSTOMERS, ["age", "shoe size"])
        with pytest.raises(ContractFault, match="is missing"):
            rekey(vault, CUSTOMERS, "shoe size")
    assert tree(bank.vault) == before


@pytest.mark.parametrize("step", ["wrapping", "sealing", "the manifest"])
def test_a_column_that_cannot_be_sealed_anew_leaves_the_vault_as_it_was(bank, monkeypatch, step):
    before = tree(bank.vault)

    def refuse(*args, **kwargs):
        raise {"wrapping": KeyFault, "sealing": OSError(28, "No space left on device")}.get(step, FileFault)

    with monkeypatch.context() as patch, opened(bank) as vault:
        owner, name = {
            "wrapping": (rekeying, "_wrapped"),
            "sealing": (rekeying, "seal_columns"),
            "the manifest": (Vault, "draft"),
        }[step]
        patch.setattr(owner, name, refuse)
        with pytest.raises(KeyFault if step == "wrapping" else FileFault):
            rekey(vault, CUSTOMERS, "age")
    assert tree(bank.vault) == before


def test_columns_are_sealed_anew_under_the_newest_key_encryption_key(bank):
    with opened(bank) as vault:
        vault.keys.advance(after="0001")
        rekey(vault, CUSTOMERS, "age")
        assert epochs(vault) == ["0002", *["0001"] * 4]
    assert same(held(bank), ROWS)


def test_a_damaged_column_is_not_sealed_anew(bank):
    with opened(bank) as vault:
        table = vault.table(CUSTOMERS)
        path = vault.streams(CUSTOMERS) / table.manifest.streams[1].file
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        before = tree(bank.vault)
        with pytest.raises(SealFault, match="was changed, cut short or exchanged"):
            rekey(vault, CUSTOMERS, "age")
        assert tree(bank.vault) == before
        rekey(vault, CUSTOMERS, "spend")  # the others can be
        path.write_bytes(data)
    assert same(held(bank), ROWS)


# --- to another source --------------------------------------------------------------------------------------------


def environment_keys():
    return EnvironmentKeys("KEYS", {"KEYS": "first:" + base64.b64encode(bytes(range(32))).decode()})


def test_keys_move_from_source_to_source_and_nothing_else_does(bank, tmp_path):
    mounted = tmp_path / "mounted"
    mounted.mkdir(mode=0o700)
    before = streams(bank)
    path = [
        lambda: PassphraseKeys.create(bank.root / "keys" / "vault", "seven sealed words"),
        lambda: LocalKeys.create(mounted, kind="mount"),
        environment_keys,
        lambda: LocalKeys.create(bank.root / "keys" / "vault"),
    ]
    with opened(bank) as first:
        vault = first
        for make in path:
            target = make()
            moved = move_keys(vault, target)
            assert moved.datasets == DATASETS
            with pytest.raises(KeyFault, match="is not the source of keys that sealed customers"):
                vault.table(CUSTOMERS)
            vault = vault.under(target)
            assert same(read(vault), ROWS)
            assert move_keys(vault, target).datasets == ()
    assert streams(bank) == before
    assert same(held(bank), ROWS)
    assert unnamed_files(bank) == []


@pytest.mark.parametrize("done", [0, 1, 2, 4])
def test_an_interrupted_move_is_finished_by_the_same_call(bank, tmp_path, monkeypatch, done):
    (tmp_path / "mounted").mkdir(mode=0o700)
    target = LocalKeys.create(tmp_path / "mounted", kind="mount")
    with monkeypatch.context() as patch, opened(bank) as vault:
        stopping(patch, Vault, "commit", done)
        with pytest.raises(Stop):
            move_keys(vault, target)
    with opened(bank) as vault:  # the settings say what they said
        assert move_keys(vault, LocalKeys(tmp_path / "mounted", kind="mount")).datasets == DATASETS[done:]
    bank.keep_keys(KeySettings(source="mount", path=str(tmp_path / "mounted")))
    assert same(held(bank), ROWS)
    with opened(bank) as vault:
        assert [vault.newest(name).keys for name in DATASETS] == ["mount"] * 5


def test_keys_that_do_not_open_are_not_moved(bank, tmp_path):
    target = environment_keys()
    (bank.root / "keys" / "vault" / "0001.key").write_bytes(bytes(32))
    before = tree(bank.root)
    with opened(bank) as vault, pytest.raises(KeyFault):
        move_keys(vault, target)
    assert tree(bank.root) == before


def test_a_manifest_that_is_wrapped_anew_says_the_same_of_its_table(bank):
    with opened(bank) as vault:
        inside = vault.inside_of(vault.newest(CUSTOMERS))
        digest = vault.table(CUSTOMERS).digest
        rewrap(vault)
        assert vault.inside_of(vault.newest(CUSTOMERS)) == inside
        assert vault.table(CUSTOMERS).digest == digest
        rekey(vault, CUSTOMERS, "age")
        assert vault.table(CUSTOMERS).digest != digest
        assert whole(vault.table(CUSTOMERS), ["age"])["age"].to_pylist() == ROWS[CUSTOMERS]["age"].to_pylist()
    assert manifest_file(bank).stat().st_mode & 0o777 == 0o600
