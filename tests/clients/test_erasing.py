"""Erasing one customer: its rows are gone, the others' are as they were, older copies are dead or said not to be."""

import base64
import contextlib
import hashlib
import json
import logging
import shutil

import pyarrow as pa
import pytest
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag

from coterie.clients import erasing
from coterie.clients.erasing import erase, rows_of, trace_customer
from coterie.clients.export import export_bundle
from coterie.clients.rekeying import destroy_older, move_keys, rewrap
from coterie.clients.vault import CONSENTS, CUSTOMERS, DATASETS, IDENTIFIERS, INTERACTIONS, MATCHES, Vault
from coterie.clients.workspace import Workspace
from coterie.privacy.errors import FileFault, LedgerFault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import unwrap_key
from coterie.privacy.fields.manifest import Manifest, Whose, column_context, inside_context, key_context
from coterie.privacy.fields.sources.environment import EnvironmentKeys
from coterie.privacy.fields.sources.keyfolder import KeyFolder
from coterie.privacy.fields.sources.local import LocalKeys
from coterie.privacy.ledger import Ledger
from coterie.tests.stories.vaultkit import (
    all_tables,
    equal,
    held,
    opened,
    put,
    read,
    same,
    small_vault,
    today,
    tree,
    unnamed_files,
    without,
    workspace,
)

LEFT, STAYS = "canary-id-7f3a91c4", "customer-0005"


def planted():
    """The data sets, in which the customer who leaves has one row, three, two, one and one, and one of nobody."""
    found = {}
    for name, table in all_tables(12).items():
        columns = table.to_pydict()
        columns["customer"] = [LEFT if who == "customer-0003" else who for who in columns["customer"]]
        columns["customer"][-1] = None
        if name == IDENTIFIERS:
            columns["value"] = [value.replace("customer-0003", LEFT) for value in columns["value"]]
        found[name] = pa.table(columns, schema=table.schema)
    return found


OLD = planted()
ROWS = {CUSTOMERS: 1, INTERACTIONS: 3, CONSENTS: 2, IDENTIFIERS: 1, MATCHES: 1}


def others(table):
    """A table without the customer, by plain Python."""
    rows = [row for row in table.to_pylist() if row["customer"] != LEFT]
    return pa.Table.from_pylist(rows, schema=table.schema)


NEW = {name: others(table) for name, table in OLD.items()}


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    root = tmp_path_factory.mktemp("erasing")
    small_vault(root / "file", sealed=OLD)
    (root / "beside").mkdir()
    small_vault(root / "mount", keys=root / "beside" / "keys", sealed=OLD)
    return root


@pytest.fixture
def bank(templates, tmp_path):
    return Workspace(shutil.copytree(templates / "file", tmp_path / "bank"))


@pytest.fixture
def mounted(templates, tmp_path):
    """A workspace whose keys lie on a mount beside it."""
    bank = Workspace(shutil.copytree(templates / "mount", tmp_path / "bank"))
    keys = shutil.copytree(templates / "beside" / "keys", tmp_path / "keys")
    settings = bank.root / "coterie.toml"
    settings.write_text(settings.read_text().replace(str(templates / "beside" / "keys"), str(keys)))
    return bank


def entries(bank):
    with Ledger(bank.ledger, today) as ledger:
        return list(ledger.entries())


# --- what is left -------------------------------------------------------------------------------------------------


def test_no_row_of_the_customer_is_left_and_everybody_elses_are_exactly_as_they_were(bank):
    with opened(bank) as vault:
        assert rows_of(vault, LEFT) == ROWS
        seen = []
        done = erase(vault, LEFT, see=seen.append)
        assert rows_of(vault, LEFT) == dict.fromkeys(DATASETS, 0)
        assert [vault.newest(name).epoch for name in DATASETS] == ["0002"] * 5
        assert vault.keys.epochs() == ("0002",)
    assert done.rows == ROWS
    assert (done.destroyed, done.proved) == (("0001",), False)
    found = held(bank)
    assert same(found, NEW)
    assert not same(found, OLD)
    assert [found[name].num_rows for name in DATASETS] == [11, 33, 22, 11, 11]
    assert unnamed_files(bank) == []
    assert seen[-1] == 11


def test_every_stream_is_new_also_of_data_sets_that_never_held_the_customer(bank):
    with opened(bank) as vault:
        put(vault, CONSENTS, without(OLD[CONSENTS], LEFT))
        before = {s.file: s.key for name in DATASETS for s in vault.newest(name).streams}
        erase(vault, LEFT)
        after = {s.file: s.key for name in DATASETS for s in vault.newest(name).streams}
        versions = {s.version for name in DATASETS for s in vault.newest(name).streams}
    assert not before.keys() & after.keys()
    assert len(after) == 22
    assert versions == {2, 3}


def test_the_ledger_says_the_same_whoever_is_erased_and_names_nobody(bank, tmp_path):
    other = Workspace(shutil.copytree(bank.root, tmp_path / "other"))
    for place, customer in ((bank, LEFT), (other, STAYS)):
        with opened(place) as vault:
            erase(vault, customer)
    one, two = ([(e.kind, sorted(e.body)) for e in entries(place)] for place in (bank, other))
    assert one == two
    told = [e.body for e in entries(bank) if e.kind == "erasure"]
    assert len(told) == 1
    assert told[0]["datasets"] == list(DATASETS)
    assert told[0]["shredded"] == "not-provable"
    assert (told[0]["keys"], told[0]["epoch"]) == ("file", "0002")
    assert [(e.body["dataset"], e.body["what"]) for e in entries(bank) if e.kind == "vault"][5:] == [
        (name, "erased") for name in DATASETS
    ]


def spellings(text):
    plain = text.encode()
    yield from (plain, plain.hex().encode(), text.encode("utf-16-le"))
    yield from (base64.b64encode(bytes(shift) + plain)[4:-4] for shift in range(3))


def test_the_identifier_is_nowhere_in_workspace_logs_and_export(bank, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with opened(bank) as vault:
        trace_customer(vault, LEFT)
        erase(vault, LEFT)
    export_bundle(bank.root, tmp_path / "bundle.json", today)
    out, err = capfd.readouterr()
    said = (caplog.text + out + err).encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    said += b"".join(path.read_bytes() + str(path.relative_to(tmp_path)).encode() for path in files)
    assert [song for song in spellings(LEFT) if song in said] == []
    assert len(files) > 20


def test_the_interrupted_erasure_too_names_nobody_on_disk(bank, monkeypatch):
    interrupt(monkeypatch, bank, Vault, "commit", 1)
    data = (bank.vault / "erasing").read_bytes()
    assert LEFT.encode() not in data
    assert (bank.vault / "erasing").stat().st_mode & 0o777 == 0o600


def test_the_answer_is_kept_for_the_partner_and_the_ledger_commits_to_it(bank):
    with opened(bank) as vault:
        expected = trace_customer(vault, LEFT)
        done = erase(vault, LEFT)
    assert done.trace == expected
    (kept,) = (bank.root / "reports" / "erasures").iterdir()
    assert "sha256:" + hashlib.sha256(kept.read_bytes()).hexdigest() == done.answer
    assert kept.stem == done.answer.removeprefix("sha256:")
    assert json.loads(kept.read_bytes())["trace"] == expected.to_dict()
    assert [e.body["answer"] for e in entries(bank) if e.kind == "erasure"] == [done.answer]


@pytest.mark.parametrize("customer", ["nobody", LEFT[:-1], LEFT + " ", LEFT.upper(), "", "%", "*", "None"])
def test_who_was_never_there_cannot_be_erased_and_nothing_is_done(bank, customer):
    before, count = tree(bank.vault), len(entries(bank))
    with opened(bank) as vault, pytest.raises(FileFault, match="holds no row of this customer") as caught:
        erase(vault, customer)
    assert not customer or customer not in str(caught.value).replace("no row", "")
    assert tree(bank.vault) == before
    assert len(entries(bank)) == count


@pytest.mark.parametrize(
    "column",
    [
        pa.array([7, 12, None, 7]),
        pa.array(["7", "x", None, "7"]).dictionary_encode(),
        pa.array(["7", "70", "07", "7"], pa.large_string()),
    ],
    ids=["whole numbers", "words", "large texts"],
)
def test_identifiers_may_be_of_every_type(bank, column):
    table = pa.table({"customer": column, "n": range(4)})
    with opened(bank) as vault:
        put(vault, CUSTOMERS, table)
        assert erase(vault, "7").rows[CUSTOMERS] == 2
    assert held(bank)[CUSTOMERS]["n"].to_pylist() == [1, 2]


def test_a_data_set_may_be_left_with_no_row(bank):
    with opened(bank) as vault:
        put(vault, CUSTOMERS, OLD[CUSTOMERS].slice(3, 1))
        erase(vault, LEFT)
    found = held(bank)
    assert found[CUSTOMERS].num_rows == 0
    assert found[CUSTOMERS].schema.equals(OLD[CUSTOMERS].schema)


def test_one_after_another(bank):
    with opened(bank) as vault:
        assert [erase(vault, who).destroyed for who in (LEFT, STAYS)] == [("0001",), ("0002",)]
    assert same(held(bank), {name: without_(table, STAYS) for name, table in NEW.items()})
    assert len([e for e in entries(bank) if e.kind == "erasure"]) == 2


def without_(table, customer):
    return pa.Table.from_pylist([r for r in table.to_pylist() if r["customer"] != customer], schema=table.schema)


# --- interrupted --------------------------------------------------------------------------------------------------


class Stop(Exception):
    """An interruption."""


def interrupt(monkeypatch, bank, owner, name, after):
    """Begin to erase, and be stopped at the call of something that is `after` calls away."""
    really, calls = getattr(owner, name), []

    def counting(*args, **kwargs):
        if len(calls) == after:
            raise Stop
        calls.append(name)
        return really(*args, **kwargs)

    with monkeypatch.context() as patch, opened(bank) as vault:
        patch.setattr(owner, name, counting)
        with pytest.raises(Stop):
            erase(vault, LEFT)


STOPS = {
    "before it is noted": (erasing, "_begin", 0),
    "before the new key": (LocalKeys, "advance", 0),
    "while the new key is made": (KeyFolder, "add", 0),
    "before the first data set": (erasing, "stage", 0),
    "before the first is committed": (Vault, "commit", 0),
    "before the first is swept": (Vault, "sweep", 2),
    "before the second is committed": (Vault, "commit", 1),
    "before the third is committed": (Vault, "commit", 2),
    "before the last is committed": (Vault, "commit", 4),
    "before the ledger knows the first": (Ledger, "record", 0),
    "before the ledger knows the last": (Ledger, "record", 4),
    "before the old key goes": (erasing, "destroy_older", 0),
    "while the old key goes": (KeyFolder, "shred", 0),
    "before the erasure is recorded": (Ledger, "record", 5),
    "before the answer is kept": (erasing, "write_durably", 1),
    "before the note goes": (erasing, "sync_folder", 0),
}


@pytest.mark.parametrize("place", STOPS)
def test_an_erasure_that_was_interrupted_anywhere_is_finished_by_the_same_command(bank, monkeypatch, place):
    interrupt(monkeypatch, bank, *STOPS[place])
    with opened(bank) as vault:
        found = read(vault)
        assert all(equal(found[name], OLD[name]) or equal(found[name], NEW[name]) for name in DATASETS)
        noted = (bank.vault / "erasing").exists()
        if noted:
            with pytest.raises(FileFault, match="the erasure of another customer: was interrupted") as caught:
                erase(vault, STAYS)
            assert LEFT not in str(caught.value)
    with opened(bank) as vault:
        if noted or place == "before it is noted":
            erase(vault, LEFT)
        assert vault.keys.epochs() == ("0002",)
    assert same(held(bank), NEW)
    assert unnamed_files(bank) == []
    told = [e.body for e in entries(bank) if e.kind == "erasure"]
    assert len(told) == 1
    (kept,) = (bank.root / "reports" / "erasures").iterdir()
    assert told[0]["answer"] == f"sha256:{kept.stem}"


@pytest.mark.parametrize("between", ["rewrap", "seal", "rotate and destroy"])
@pytest.mark.parametrize("place", ["before the first data set", "before the second is committed"])
def test_whatever_is_done_before_it_is_finished_brings_no_row_back(mounted, tmp_path, monkeypatch, place, between):
    """Sealed or wrapped under the new key, the customer's rows would look like those of an erasure that is done."""
    interrupt(monkeypatch, mounted, *STOPS[place])
    with opened(mounted) as vault:
        if between == "seal":
            put(vault, CUSTOMERS, OLD[CUSTOMERS])
        else:
            rewrap(vault)
        if between == "rotate and destroy":
            destroy_older(vault)
    backup = shutil.copytree(mounted.root, tmp_path / "backup")
    with opened(mounted) as vault:
        erase(vault, LEFT)
        assert rows_of(vault, LEFT) == dict.fromkeys(DATASETS, 0)
    assert same(held(mounted), NEW)
    assert unnamed_files(mounted) == []
    assert opened_by_any_key(backup, tmp_path / "keys", bank=mounted) == []


def test_a_damaged_note_of_an_erasure_is_a_clear_fault(bank):
    for data in (b"", b"{", b"[]", b"{}", b'{"customer":7}', b'{"customer":"\xc3\xa9"}'):
        (bank.vault / "erasing").write_bytes(data)
        with opened(bank) as vault, pytest.raises(FileFault, match="is damaged"):
            erase(vault, LEFT)
    assert same(held(bank), OLD)


def test_a_key_that_cannot_be_destroyed_leaves_an_erasure_that_is_not_done(bank, monkeypatch):
    def refuse(self, epoch):
        raise KeyFault

    with monkeypatch.context() as patch, opened(bank) as vault:
        patch.setattr(LocalKeys, "destroy", refuse)
        with pytest.raises(KeyFault):
            erase(vault, LEFT)
    assert [e for e in entries(bank) if e.kind == "erasure"] == []
    with opened(bank) as vault:
        erase(vault, LEFT)
        assert vault.keys.epochs() == ("0002",)
    assert len([e for e in entries(bank) if e.kind == "erasure"]) == 1


def test_a_ledger_that_cannot_be_written_changes_no_row(bank, monkeypatch):
    def refuse(self, kind, body):
        raise LedgerFault

    with monkeypatch.context() as patch, opened(bank) as vault:
        patch.setattr(Ledger, "record", refuse)
        with pytest.raises(LedgerFault):
            erase(vault, LEFT)
    assert same(held(bank), OLD)


# --- older copies -------------------------------------------------------------------------------------------------


def opened_by_any_key(place, keys, *, bank):
    """What any key that is there opens of a copy of a vault: wrapped keys, sealed parts and columns, by brute force."""
    found, partner = [], bank.identity.public
    keks = [path.read_bytes() for path in sorted(keys.glob("*.key"))]
    assert keks
    for path in sorted(place.glob("vault/*/manifests/*")):
        whose = Whose(partner, path.parent.parent.name)
        manifest = Manifest.from_bytes(path.read_bytes(), whose, place="")
        wrapped = [(manifest.salt, manifest.inside_key), *((s.file, s.key) for s in manifest.streams)]
        for kek in keks:
            for name, key in wrapped:
                with contextlib.suppress(KeyFault):
                    unwrap_key(kek, key, key_context(whose, name))
                    found.append(f"{whose.dataset}: a data key")
            found += _decrypted(kek, manifest.inside, inside_context(whose, manifest.version, manifest.salt))
            for stream in manifest.streams:
                data = (path.parent.parent / "streams" / stream.file).read_bytes()
                for column in ("customer", "age", "item"):
                    found += _decrypted(kek, data, column_context(whose, column, stream))
    return found


def _decrypted(key, data, context):
    try:
        opening = Cobblestone256Decryptor(key, context)
        opening.update(data)
        opening.finalize()
    except (InvalidTag, ValueError):
        return []
    return ["opened"]


def test_with_keys_apart_nothing_opens_a_backup_any_more(mounted, tmp_path):
    backup = shutil.copytree(mounted.root, tmp_path / "backup")
    keys = tmp_path / "keys"
    assert len(opened_by_any_key(backup, keys, bank=mounted)) == 22 + 5  # until then the brute force does open it
    with opened(mounted) as vault:
        done = erase(vault, LEFT)
    assert done.proved
    assert [e.body["shredded"] for e in entries(mounted) if e.kind == "erasure"] == ["destroyed"]
    assert [path.name for path in keys.iterdir()] == ["0002.key"]
    assert opened_by_any_key(backup, keys, bank=mounted) == []
    with pytest.raises(KeyFault, match="has no key of epoch 0001: it was destroyed"):
        held(backup)
    assert len(opened_by_any_key(mounted.root, keys, bank=mounted)) == 22 + 5
    assert same(held(mounted), NEW)


def test_with_keys_in_the_workspace_a_backup_opens_still_and_that_is_what_is_said(bank, tmp_path):
    backup = shutil.copytree(bank.root, tmp_path / "backup")
    with opened(bank) as vault:
        done = erase(vault, LEFT)
    assert not done.proved
    assert [e.body["shredded"] for e in entries(bank) if e.kind == "erasure"] == ["not-provable"]
    assert same(held(backup), OLD)
    assert LEFT in held(backup)[CUSTOMERS]["customer"].to_pylist()


def test_a_backup_of_the_vault_alone_is_dead_with_keys_in_the_workspace_too(bank, tmp_path):
    backup = shutil.copytree(bank.vault, tmp_path / "backup" / "vault")
    with opened(bank) as vault:
        erase(vault, LEFT)
    assert opened_by_any_key(backup.parent, bank.root / "keys" / "vault", bank=bank) == []


@pytest.mark.parametrize("ever_in_the_workspace", [False, True])
def test_keys_of_the_environment_are_their_operators_and_the_command_goes_on(bank, ever_in_the_workspace, tmp_path):
    spelled = [f"k{n}:" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
    environment = {"KEYS": spelled[0]}
    made = bank if ever_in_the_workspace else workspace(tmp_path / "fresh")
    with opened(made) as vault:
        here = vault.under(EnvironmentKeys("KEYS", environment))
        if ever_in_the_workspace:
            move_keys(vault, here.keys)
        else:
            for name, table in OLD.items():
                put(here, name, table)
        for keys, fix in ((spelled[:1], "at its end, where it is set"), (spelled, "remove k1 from it")):
            environment["KEYS"] = ",".join(keys)
            with pytest.raises(KeyFault, match=fix):
                erase(vault.under(EnvironmentKeys("KEYS", environment)), LEFT)
            assert list(vault.ledger.entries("erasure")) == []
        environment["KEYS"] = spelled[1]
        here = vault.under(EnvironmentKeys("KEYS", environment))
        assert erase(here, LEFT).proved != ever_in_the_workspace
        assert same(read(here), NEW)
        (told,) = vault.ledger.entries("erasure")
    said = "not-provable" if ever_in_the_workspace else "destroyed"  # an older copy may be under the older source's key
    assert (told.body["keys"], told.body["epoch"], told.body["shredded"]) == ("environment", "k2", said)


def test_a_key_that_the_operator_added_beforehand_is_the_new_one(tmp_path):
    spelled = [f"k{number}:" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]
    environment = {"KEYS": spelled[0]}
    with opened(workspace(tmp_path / "fresh")) as vault:
        here = vault.under(EnvironmentKeys("KEYS", environment))
        for name, table in OLD.items():
            put(here, name, table)
        environment["KEYS"] = ",".join(spelled)
        with pytest.raises(KeyFault, match="remove k1 from it"):  # and not: add another one
            erase(vault.under(EnvironmentKeys("KEYS", environment)), LEFT)
        environment["KEYS"] = spelled[1]
        here = vault.under(EnvironmentKeys("KEYS", environment))
        assert erase(here, LEFT).proved
        assert same(read(here), NEW)
        assert {vault.newest(name).epoch for name in DATASETS} == {"k2"}
