"""The vault against whoever can write to its folder: nothing is put back, exchanged or forged without being told."""

import dataclasses
import shutil

import pyarrow as pa
import pyarrow.parquet
import pytest

from coterie.clients.tables.table import whole
from coterie.clients.vault import CONSENTS, CUSTOMERS, INTERACTIONS, Vault
from coterie.clients.workspace import Workspace, WorkspaceBusy
from coterie.privacy.errors import ContractFault, FileFault, LedgerFault
from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.fields.manifest import Manifest, column_context, key_context
from coterie.privacy.fields.streams import SealedStream
from coterie.privacy.fields.wiping import wiped
from coterie.privacy.identity import Identity
from coterie.tests.stories.vaultkit import (
    equal,
    folder,
    held,
    manifest_file,
    opened,
    put,
    read,
    restore,
    same,
    small_vault,
    stream_files,
    tables,
    tree,
    unnamed_files,
    without,
    workspace,
)

OLD, NEW = tables(), {name: without(table, "customer-0003") for name, table in tables().items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bank whose customers were sealed twice, how it looked after the first time, and another partner's vault."""
    root = tmp_path_factory.mktemp("vaults")
    bank = small_vault(root / "bank")
    shutil.copytree(bank.root, root / "earlier")
    with opened(bank) as vault:
        put(vault, CUSTOMERS, NEW[CUSTOMERS])
    small_vault(root / "other")
    return root


@pytest.fixture
def site(made, tmp_path):
    """The same, to be damaged: `bank`, `earlier` and `other`."""
    return shutil.copytree(made, tmp_path / "site")


@pytest.fixture
def bank(site):
    return Workspace(site / "bank")


@pytest.fixture
def earlier(site):
    return Workspace(site / "earlier")


HELD = OLD | {CUSTOMERS: NEW[CUSTOMERS]}


def test_what_was_sealed_is_what_is_read_and_the_newest_counts(bank, earlier):
    assert same(held(bank), HELD)
    assert same(held(earlier), OLD)
    assert not same(held(bank), OLD)
    assert unnamed_files(bank) == []


def test_nothing_in_the_vault_says_what_a_column_is_called_or_holds(bank):
    said = b"".join(path.read_bytes() + str(path).encode() for path in bank.vault.rglob("*") if path.is_file())
    for word in (b"spend", b"region", b"withdrawn", b"customer-0001", b"north", b"item-3"):
        assert word not in said


def test_only_the_columns_that_are_asked_for_are_opened(bank):
    with opened(bank) as vault:
        table = vault.table(CUSTOMERS)
        spend = table.manifest.streams[table.schema.names.index("spend")]
        (vault.streams(CUSTOMERS) / spend.file).unlink()
        assert whole(table, ["age"])["age"].to_pylist() == NEW[CUSTOMERS]["age"].to_pylist()
        assert whole(table, ["region", "age"]).schema.names == ["region", "age"]
        assert list(table.pieces([])) == []
        with pytest.raises(SealFault):
            whole(table, ["age", "spend"])
        with pytest.raises(ContractFault, match="column shoe size: is missing"):
            whole(table, ["shoe size"])


def test_a_data_set_that_was_never_sealed_says_how_to_seal_it(tmp_path):
    with opened(workspace(tmp_path / "bank")) as vault:
        assert not vault.holds(CUSTOMERS)
        assert vault.newest(CUSTOMERS) is None
        with pytest.raises(SealFault, match=r"holds nothing sealed\. Fix: seal it: coterie partner seal"):
            vault.table(CUSTOMERS)


def test_two_processes_do_not_hold_one_vault(bank):
    with opened(bank), pytest.raises(WorkspaceBusy), bank.lock():
        pass


# --- what somebody does to the folder -----------------------------------------------------------------------------


def all_of_an_older_vault(site, bank):
    shutil.rmtree(bank.vault)
    shutil.copytree(site / "earlier" / "vault", bank.vault)


def an_older_data_set(site, bank):
    shutil.rmtree(bank.vault / CUSTOMERS)
    shutil.copytree(site / "earlier" / "vault" / CUSTOMERS, bank.vault / CUSTOMERS)


def an_older_data_set_under_the_newest_name(site, bank):
    older, newest = manifest_file(Workspace(site / "earlier")), manifest_file(bank)
    shutil.copytree(older.parent.parent / "streams", newest.parent.parent / "streams", dirs_exist_ok=True)
    newest.write_bytes(older.read_bytes())


def the_manifest_of_another_data_set(site, bank):
    shutil.copy(manifest_file(bank, CONSENTS), manifest_file(bank))


def another_data_set(site, bank):
    """With its manifest under the name that the ledger knows."""
    shutil.copytree(folder(bank, CONSENTS, "streams"), folder(bank, CUSTOMERS, "streams"), dirs_exist_ok=True)
    the_manifest_of_another_data_set(site, bank)


def another_partners_data_set(site, bank):
    theirs = Workspace(site / "other")
    shutil.copytree(folder(theirs, CUSTOMERS, "streams"), folder(bank, CUSTOMERS, "streams"), dirs_exist_ok=True)
    shutil.copy(manifest_file(theirs), manifest_file(bank))


def columns_exchanged(site, bank):
    one, other = stream_files(bank)[:2]
    held_, other_ = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_)
    other.write_bytes(held_)


def a_column_of_an_older_version(site, bank):
    for path in stream_files(bank):
        path.write_bytes(stream_files(Workspace(site / "earlier"))[0].read_bytes())


def a_column_of_another_data_set(site, bank):
    shutil.copy(stream_files(bank, INTERACTIONS)[0], stream_files(bank)[0])


def a_column_of_another_partner(site, bank):
    shutil.copy(stream_files(Workspace(site / "other"))[0], stream_files(bank)[0])


def arrow_in_the_clear(site, bank):
    table = NEW[CUSTOMERS].select(["age"])
    for path in stream_files(bank):
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)


def parquet_in_the_clear(site, bank):
    for path in stream_files(bank):
        pa.parquet.write_table(NEW[CUSTOMERS].select(["age"]), path)


def a_stream_cut(site, bank):
    path = stream_files(bank)[2]
    path.write_bytes(path.read_bytes()[:-1])


def a_stream_emptied(site, bank):
    stream_files(bank)[2].write_bytes(b"")


def a_stream_gone(site, bank):
    stream_files(bank)[2].unlink()


def a_stream_that_is_a_folder(site, bank):
    path = stream_files(bank)[2]
    path.unlink()
    path.mkdir()


def the_streams_gone(site, bank):
    shutil.rmtree(folder(bank, CUSTOMERS, "streams"))


def the_manifest_cut(site, bank):
    path = manifest_file(bank)
    path.write_bytes(path.read_bytes()[:-1])


def the_manifest_emptied(site, bank):
    manifest_file(bank).write_bytes(b"")


def the_manifest_gone(site, bank):
    manifest_file(bank).unlink()


def the_vault_emptied(site, bank):
    shutil.rmtree(bank.vault)
    bank.vault.mkdir(mode=0o700)


def forged(change):
    """An attack that edits the newest manifest and signs it again, under the attacker's key."""

    def attack(site, bank):
        path = manifest_file(bank)
        manifest = Manifest.from_bytes(path.read_bytes(), _whose(bank), place="")
        path.write_bytes(change(manifest).signed(Identity.create()).to_bytes())

    attack.__name__ = f"signed by another key: {change.__name__}"
    return attack


def _whose(bank):
    with opened(bank) as vault:
        return vault.whose(CUSTOMERS)


def as_it_was(manifest):
    return manifest


def with_streams_exchanged(manifest):
    first, second, *rest = manifest.streams
    return dataclasses.replace(manifest, streams=(second, first, *rest))


def with_a_stream_less(manifest):
    return dataclasses.replace(manifest, streams=manifest.streams[:-1])


def of_a_higher_version(manifest):
    return dataclasses.replace(manifest, version=manifest.version + 1)


DAMAGES = (
    all_of_an_older_vault,
    an_older_data_set,
    an_older_data_set_under_the_newest_name,
    the_manifest_of_another_data_set,
    another_data_set,
    another_partners_data_set,
    columns_exchanged,
    a_column_of_an_older_version,
    a_column_of_another_data_set,
    a_column_of_another_partner,
    arrow_in_the_clear,
    parquet_in_the_clear,
    a_stream_cut,
    a_stream_emptied,
    a_stream_gone,
    a_stream_that_is_a_folder,
    the_streams_gone,
    the_manifest_cut,
    the_manifest_emptied,
    the_manifest_gone,
    the_vault_emptied,
    *(forged(change) for change in (as_it_was, with_streams_exchanged, with_a_stream_less, of_a_higher_version)),
)


def said_by(caught, bank):
    """The one fault: it names a file of the vault and what to do, and holds no value."""
    assert len(caught.value.faults) == 1
    fault = caught.value.faults[0]
    assert fault.fix
    for word in ("customer-0", "north", "item-", "canary"):
        assert word not in str(caught.value)
    return fault


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.replace("_", " "))
def test_whatever_is_done_to_the_folder_is_one_clear_fault_and_what_is_put_right_opens(site, bank, damage):
    before = tree(bank.root)
    damage(site, bank)
    with pytest.raises(SealFault) as caught:
        held(bank)
    assert str(bank.vault / CUSTOMERS) in said_by(caught, bank).place
    assert tree(bank.vault) != before
    restore(bank.root, before)
    assert same(held(bank), HELD)


MENDED = [damage for damage in DAMAGES if damage is not a_stream_that_is_a_folder]  # which the operator must remove


@pytest.mark.parametrize("damage", MENDED, ids=lambda damage: damage.__name__.replace("_", " "))
def test_the_fix_works_a_table_that_is_sealed_anew_replaces_what_is_damaged(site, bank, damage):
    damage(site, bank)
    with opened(bank) as vault:
        for dataset, table in OLD.items():
            put(vault, dataset, table)
    assert same(held(bank), OLD)
    assert unnamed_files(bank) == []


@pytest.mark.parametrize("damage", [the_manifest_gone, all_of_an_older_vault], ids=lambda d: d.__name__)
def test_a_sealing_that_fails_beside_a_damaged_vault_takes_away_nothing_that_was_there(site, bank, damage):
    damage(site, bank)
    before = tree(bank.vault)

    def pieces():
        yield from OLD[CUSTOMERS].to_batches(max_chunksize=16)[:1]
        raise ContractFault

    with opened(bank) as vault, pytest.raises(ContractFault):
        put(vault, CUSTOMERS, _Table(pieces()))
    assert {name: tree(bank.vault).get(name) for name in before} == before


class _Table:
    """Pieces that are drawn while they are sealed."""

    schema = OLD[CUSTOMERS].schema

    def __init__(self, pieces):
        self._pieces = pieces

    def to_batches(self, *, max_chunksize):
        return self._pieces


# --- what the manifest alone does not hold off: deeper than signature and ledger ----------------------------------


def transplanted(vault, manifest, place, stream, whose=None, keys=None):
    """Put a stream into a manifest's place with its data key wrapped as it should be there, and commit that."""
    keys = keys or vault.keys
    with wiped(keys.unwrap([stream.key], [key_context(whose or manifest.whose, stream.file)], epoch="0001")) as opened_:
        (key,) = vault.keys.wrap(opened_, [key_context(manifest.whose, stream.file)])
    streams = list(manifest.streams)
    streams[place] = dataclasses.replace(stream, key=key)
    inside = vault.inside_of(manifest)
    vault.commit(vault.draft(manifest.whose.dataset, manifest.version + 1, streams, inside), "rekeyed")


def test_a_stream_opens_only_as_the_column_that_it_was_sealed_as(bank):
    with opened(bank) as vault:
        manifest, names = vault.newest(CUSTOMERS), vault.table(CUSTOMERS).schema.names
        transplanted(vault, manifest, names.index("customer"), manifest.streams[names.index("region")])
        with pytest.raises(SealFault, match="was changed, cut short or exchanged"):
            whole(vault.table(CUSTOMERS), ["customer"])


def test_a_stream_opens_only_at_the_version_at_which_it_was_sealed(bank):
    with opened(bank) as vault:
        manifest = vault.newest(CUSTOMERS)
        aged = dataclasses.replace(manifest.streams[0], version=manifest.streams[0].version - 1)
        transplanted(vault, manifest, 0, aged)
        with pytest.raises(SealFault, match="was changed, cut short or exchanged"):
            whole(vault.table(CUSTOMERS), ["customer"])


def test_a_stream_opens_only_in_its_own_data_set(bank):
    with opened(bank) as vault:
        manifest, theirs = vault.newest(CUSTOMERS), vault.newest(INTERACTIONS)
        name = theirs.streams[0].file  # the column is called the same in both
        shutil.copy(vault.streams(INTERACTIONS) / name, vault.streams(CUSTOMERS) / name)
        transplanted(vault, manifest, 0, theirs.streams[0], theirs.whose)
        with pytest.raises(SealFault, match="was changed, cut short or exchanged"):
            whole(vault.table(CUSTOMERS), ["customer"])


def test_a_stream_opens_only_at_its_own_partner(site, bank):
    with opened(site / "other") as other, opened(bank) as vault:
        manifest, theirs = vault.newest(CUSTOMERS), other.newest(CUSTOMERS)
        aged = dataclasses.replace(theirs.streams[0], version=manifest.streams[0].version)
        name = aged.file
        shutil.copy(other.streams(CUSTOMERS) / name, vault.streams(CUSTOMERS) / name)
        transplanted(vault, manifest, 0, theirs.streams[0], theirs.whose, other.keys)
        with pytest.raises(SealFault, match="was changed, cut short or exchanged"):
            whole(vault.table(CUSTOMERS), ["customer"])


def test_the_same_transplant_of_a_stream_to_where_it_belongs_opens(bank):
    """So that the four above fail for their reason."""
    with opened(bank) as vault:
        manifest = vault.newest(CUSTOMERS)
        transplanted(vault, manifest, 0, manifest.streams[0])
    assert same(held(bank), HELD)


def test_a_data_key_is_no_data_key_of_another_stream(bank):
    with opened(bank) as vault:
        manifest = vault.newest(CUSTOMERS)
        first, second, *rest = manifest.streams
        streams = (dataclasses.replace(first, key=second.key), second, *rest)
        vault.commit(vault.draft(CUSTOMERS, 3, streams, vault.inside_of(manifest)), "rekeyed")
        with pytest.raises(KeyFault, match="a data key: does not open under this key"):
            whole(vault.table(CUSTOMERS), ["customer"])


def test_a_sealed_part_is_no_part_of_another_manifest(bank):
    with opened(bank) as vault:
        mine, theirs = vault.newest(CUSTOMERS), vault.newest(INTERACTIONS)
        for change in ({"inside": theirs.inside}, {"version": 9}, {"inside": mine.inside[:-1]}, {"inside": b""}):
            with pytest.raises(SealFault, match="sealed part is damaged"):
                vault.inside_of(dataclasses.replace(mine, **change))
        for change in ({"inside_key": theirs.inside_key}, {"salt": "0" * 32}, {"inside_key": b""}):
            with pytest.raises(KeyFault):
                vault.inside_of(dataclasses.replace(mine, **change))
        with pytest.raises(SealFault, match="sealed part is damaged"):
            vault.inside_of(dataclasses.replace(mine, streams=mine.streams[:-1]))


def junk(table):
    """What a column might be instead of an Arrow stream of the same rows, though sealed under the right key."""
    schema = pa.schema([table.schema.field("age")])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table.select(["age"]), max_chunksize=16)
    good = sink.getvalue().to_pybytes()
    yield "nothing", b""
    yield "no Arrow", b"canary-4711" * 50
    yield "cut", good[: len(good) // 2]
    yield "cut in its schema", good[:100]
    yield "more behind its end", good + b"canary"
    yield "fewer rows", _stream(table.select(["age"]).slice(1), 16)
    yield "other pieces", _stream(table.select(["age"]), 8)
    yield "no rows", _stream(table.select(["age"]).slice(0, 0), 16)
    yield "a huge message", good[:8] + b"\xff\xff\xff\x7f" + good[12:]


def _stream(table, piece):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=piece)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", [name for name, _ in junk(NEW[CUSTOMERS])])
def test_a_column_that_its_own_key_sealed_wrong_is_one_fault_and_no_librarys_text(bank, name):
    data = dict(junk(NEW[CUSTOMERS]))[name]
    with opened(bank) as vault:
        manifest = vault.newest(CUSTOMERS)
        place = vault.table(CUSTOMERS).schema.names.index("age")
        stream = dataclasses.replace(manifest.streams[place], file="0" * 32)
        key = bytearray(b"k" * 32)
        sealed = SealedStream(
            vault.streams(CUSTOMERS) / stream.file, key, column_context(manifest.whose, "age", stream)
        )
        sealed.write(data)
        sealed.close()
        (wrapped,) = vault.keys.wrap([key], [key_context(manifest.whose, stream.file)])
        streams = list(manifest.streams)
        streams[place] = dataclasses.replace(stream, key=wrapped)
        vault.commit(vault.draft(CUSTOMERS, 3, streams, vault.inside_of(manifest)), "rekeyed")
        with pytest.raises(SealFault, match="the vault's customers: has columns that do not fit together") as caught:
            whole(vault.table(CUSTOMERS), ["customer", "age"])
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        assert "canary" not in str(caught.value)


def test_an_older_manifest_is_refused_also_where_it_is_signed_and_all_its_streams_are_there(site, bank, earlier):
    """The ledger alone holds this off: told to name the older one, the vault opens it."""
    older = manifest_file(earlier)
    shutil.copytree(bank.vault / CUSTOMERS, site / "kept")
    shutil.copytree(earlier.vault / CUSTOMERS, bank.vault / CUSTOMERS, dirs_exist_ok=True)
    assert same(held(bank), HELD)  # beside the newest one, an older one says nothing
    with opened(bank) as vault:
        found = Manifest.from_bytes(older.read_bytes(), vault.whose(CUSTOMERS), place="")
        assert found.version == 1
        assert equal(whole(vault.table_of(found), OLD[CUSTOMERS].schema.names), OLD[CUSTOMERS])


# --- the ledger and the keys ---------------------------------------------------------------------------------------


def test_a_ledger_that_is_older_than_the_vault_does_not_open_it(bank, earlier):
    kept = bank.ledger.read_bytes()
    shutil.copy(earlier.ledger, bank.ledger)
    with pytest.raises(SealFault, match=r"lacks the manifest that the ledger names \(version 1\)"):
        held(bank)
    bank.ledger.write_bytes(kept)
    assert same(held(bank), HELD)


def test_a_ledger_that_is_gone_opens_nothing(bank):
    kept = bank.ledger.rename(bank.ledger.with_name("away"))
    with pytest.raises(LedgerFault, match="is missing"):
        held(bank)
    kept.rename(bank.ledger)
    assert same(held(bank), HELD)


def key_file(bank):
    (path,) = (bank.root / "keys" / "vault").iterdir()
    return path


def another_key(bank, site):
    shutil.copy(key_file(Workspace(site / "other")), key_file(bank))


def a_key_that_is_gone(bank, site):
    key_file(bank).unlink()


def a_key_of_another_epoch(bank, site):
    key_file(bank).rename(key_file(bank).with_name("0002.key"))


def a_key_that_is_cut(bank, site):
    key_file(bank).write_bytes(key_file(bank).read_bytes()[:31])


def a_key_that_others_may_read(bank, site):
    key_file(bank).chmod(0o640)


def a_source_of_another_kind(bank, site):
    (site / "mounted").mkdir(mode=0o700)
    shutil.copy(key_file(bank), site / "mounted" / "0001.key")
    (bank.root / "coterie.toml").write_text(f'name = "bank"\n[keys]\nsource = "mount"\npath = "{site / "mounted"}"\n')


KEYS = {
    another_key: "a data key: does not open under this key",
    a_key_that_is_gone: "has no key of epoch 0001",
    a_key_of_another_epoch: "has no key of epoch 0001",
    a_key_that_is_cut: "must hold 32 bytes",
    a_key_that_others_may_read: "may be read or written by others",
    a_source_of_another_kind: "is not the source of keys that sealed customers",
}


@pytest.mark.parametrize("damage", KEYS, ids=lambda damage: damage.__name__.replace("_", " "))
def test_a_wrong_key_is_one_clear_fault_and_the_right_one_opens(site, bank, damage):
    before = tree(bank.root)
    damage(bank, site)
    with pytest.raises(KeyFault, match=KEYS[damage]) as caught:
        held(bank)
    said_by(caught, bank)
    restore(bank.root, before)
    assert same(held(bank), HELD)


def test_a_vault_that_others_may_enter_is_refused_until_it_is_closed(bank):
    bank.vault.chmod(0o750)
    with pytest.raises(FileFault, match=r"is open to other users.*chmod go-rwx"):
        held(bank)
    bank.vault.chmod(0o700)
    assert same(held(bank), HELD)


def test_all_that_is_written_in_the_vault_is_its_owners_alone(bank):
    rights = {name: mode for name, (mode, _) in tree(bank.vault).items()}
    assert set(rights.values()) == {0o700, 0o600}
    assert all(mode == (0o700 if (bank.vault / name).is_dir() else 0o600) for name, mode in rights.items())


def test_another_source_of_keys_for_the_same_vault_changes_nothing(bank):
    with opened(bank) as vault:
        assert isinstance(vault.under(vault.keys), Vault)
        assert same(read(vault.under(vault.keys)), HELD)
