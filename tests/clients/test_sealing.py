"""Sealing: every type comes back as it was, and what goes wrong on the way leaves the vault as it was."""

import datetime
import decimal
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from coterie.clients import sealing
from coterie.clients.intake import take_in
from coterie.clients.sealing import stage
from coterie.clients.tables.held import HeldTable
from coterie.clients.tables.table import whole
from coterie.clients.vault import CUSTOMERS
from coterie.privacy.errors import ContractFault, FileFault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.sources.local import LocalKeys
from coterie.tests.clients.federation import CONTRACT, table_of, with_cells
from coterie.tests.stories.vaultkit import equal, held, opened, put, small_vault, tables, tree, unnamed_files, workspace

ROWS = 7
UTC_TIMES = [datetime.datetime(2031, 5, 4, 12, 30, n, 123456, tzinfo=datetime.UTC) for n in range(ROWS)]
DECIMALS = [decimal.Decimal("-12345678901234567890.123456789"), decimal.Decimal(0), None] + [decimal.Decimal("1.5")] * 4
COLUMNS = {
    "text": pa.array(["a", "", None, "é", "\x00", "😀" * 50, "x"]),
    "large text": pa.array(["a", "", None, "é", "\x00", "😀" * 50, "x"], pa.large_string()),
    "bytes": pa.array([b"", b"\xff\x00", None, b"x", b"y", b"z" * 5000, b"w"]),
    "whole numbers": pa.array([-(2**63), 2**63 - 1, None, 0, 1, 2, 3], pa.int64()),
    "unsigned": pa.array([0, 2**64 - 1, None, 1, 2, 3, 4], pa.uint64()),
    "small": pa.array([-128, 127, None, 0, 1, 2, 3], pa.int8()),
    "floats": pa.array([0.1, -0.0, None, 5e-324, 1.7e308, float("inf"), -float("inf")]),
    "half floats": pa.array(np.array([0.5, 1, 2, 3, 4, 5, 6], np.float16)),
    "truth": pa.array([True, False, None, True, True, False, None]),
    "nothing": pa.nulls(ROWS),
    "days": pa.array([datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None] + [datetime.date(2031, 5, 4)] * 4),
    "days in ms": pa.array([None] + [datetime.date(2031, 5, 4)] * 6, pa.date64()),
    "times": pa.array(UTC_TIMES, pa.timestamp("us", "UTC")),
    "times elsewhere": pa.array([None, *UTC_TIMES[1:]], pa.timestamp("ns", "Europe/Zurich")),
    "times nowhere": pa.array([t.replace(tzinfo=None) for t in UTC_TIMES], pa.timestamp("ms")),
    "hours": pa.array([datetime.time(1, 2, 3, 4)] * 6 + [None], pa.time64("us")),
    "durations": pa.array([datetime.timedelta(days=-1)] * 6 + [None]),
    "decimals": pa.array(DECIMALS, pa.decimal128(38, 9)),
    "wide decimals": pa.array(DECIMALS, pa.decimal256(60, 9)),
    "words": pa.array(["a", "b", None, "a", "c", "c", "b"]).dictionary_encode(),
    "large words": pa.array(["a", "b", None, "a", "c", "c", "b"], pa.large_string()).dictionary_encode(),
    "numbered words": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0, 1, 1, 0], pa.uint8()), ["x", "y"]),
    "lists": pa.array([[1], [], None, [None, 2], [3], [4], [5]]),
    "structs": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": ""}] + [{"a": 2, "b": "y"}] * 4),
    "fixed bytes": pa.array([b"12"] * 6 + [None], pa.binary(2)),
}
EVERY_TYPE = pa.table({"customer": [f"c{n}" for n in range(ROWS)], **COLUMNS})


@pytest.mark.parametrize("piece", [1, 3, 100])
def test_every_type_comes_back_as_it_was(tmp_path, piece):
    made = workspace(tmp_path / "bank")
    with opened(made) as vault:
        put(vault, CUSTOMERS, EVERY_TYPE, piece=piece)
    found = held(made)[CUSTOMERS]
    assert found.schema.equals(EVERY_TYPE.schema)
    for name in EVERY_TYPE.column_names:
        assert found[name].combine_chunks().equals(EVERY_TYPE[name].combine_chunks()), name
    assert [str(value) for value in found["floats"].to_pylist()] == [str(v) for v in COLUMNS["floats"].to_pylist()]


def test_nan_comes_back_with_its_bits(tmp_path):
    bits = np.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000123], np.uint64)
    made = workspace(tmp_path / "bank")
    with opened(made) as vault:
        put(vault, CUSTOMERS, pa.table({"customer": ["a", "b", "c"], "x": bits.view(np.float64)}))
    assert held(made)[CUSTOMERS]["x"].to_numpy().view(np.uint64).tolist() == bits.tolist()


def test_words_may_be_others_in_every_piece(tmp_path):
    texts = (["a", "b"], ["c"], ["b", "a", None], [])
    pieces = [pa.array(words, pa.string()).dictionary_encode() for words in texts]
    table = pa.table({"customer": [f"c{n}" for n in range(6)], "word": pa.chunked_array(pieces)})
    made = workspace(tmp_path / "bank")
    with opened(made) as vault:
        put(vault, CUSTOMERS, table)
    assert held(made)[CUSTOMERS]["word"].to_pylist() == ["a", "b", "c", "b", "a", None]


NAMES = [
    "../../../etc/passwd",
    "/etc/passwd",
    "x'); DROP TABLE customers;--",
    '"quoted", "twice"',
    "a,b\\",
    "{{7*7}}${jndi:ldap://x}",
    "customer\u200b",
    "\u202ereversed",
    "á",
    "a\u0301",
    "e" * 100,
    " ",
    "",
    "\x00nul",
    "line\nline",
    "\x1b[31m",
    "😀",
    "streams",
    "con",
]


def test_names_may_be_any_text_and_none_is_another_ones_or_a_path(tmp_path):
    table = pa.table([pa.array([f"c{n}", str(n)]) for n in range(len(NAMES) + 1)], names=["customer", *NAMES])
    made = workspace(tmp_path / "bank")
    with opened(made) as vault:
        put(vault, CUSTOMERS, table)
    assert equal(held(made)[CUSTOMERS], table)
    files = {path.relative_to(tmp_path).parts[:3] for path in tmp_path.rglob("*") if path.is_file()}
    assert {parts[0] for parts in files} == {"bank"}
    streams = [path.name for path in (made.vault / CUSTOMERS / "streams").iterdir()]
    assert len(streams) == len(NAMES) + 1
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in streams)


def test_two_hundred_columns(tmp_path):
    table = pa.table({"customer": ["a", "b"], **{f"c{n}": pa.array([n, None], pa.int32()) for n in range(199)}})
    made = workspace(tmp_path / "bank")
    with opened(made) as vault:
        put(vault, CUSTOMERS, table)
        assert whole(vault.table(CUSTOMERS), ["c150", "c3"]).to_pydict() == {"c150": [150, None], "c3": [3, None]}
    assert equal(held(made)[CUSTOMERS], table)


def staged(vault, pieces, schema):
    return stage(vault, CUSTOMERS, pieces, schema=schema, customer="customer")


PIECE = pa.record_batch({"customer": ["a", "b"], "n": [1, 2]})
SHAPES = {
    "no pieces": [],
    "an empty piece alone": [PIECE[:0]],
    "empty pieces between": [PIECE[:0], PIECE, PIECE[:0], PIECE[:0], PIECE, PIECE[:0]],
    "pieces of one row": [PIECE[:1]] * 50,
}


@pytest.mark.parametrize("name", SHAPES)
def test_pieces_of_every_size(tmp_path, name):
    expected = pa.Table.from_batches(SHAPES[name], PIECE.schema)
    made = workspace(tmp_path / "bank")
    with opened(made) as vault:
        staged(vault, SHAPES[name], PIECE.schema).commit("sealed")
    assert equal(held(made)[CUSTOMERS], expected)


def test_a_table_without_columns_is_sealed_as_one(tmp_path):
    made = workspace(tmp_path / "bank")
    with opened(made) as vault:
        staged(vault, [], pa.schema([])).commit("sealed")
        assert vault.table(CUSTOMERS).schema.names == []
    assert held(made)[CUSTOMERS].num_rows == 0


def test_what_is_staged_can_be_read_and_nothing_is_changed_before_it_is_committed(tmp_path):
    made = small_vault(tmp_path / "bank")
    before = tree(made.vault)
    with opened(made) as vault:
        draft = staged(vault, [PIECE], PIECE.schema)
        assert whole(draft.table(), ["n"])["n"].to_pylist() == [1, 2]
        assert whole(vault.table(CUSTOMERS), ["age"])["age"] == tables()[CUSTOMERS]["age"]
        draft.drop()
    assert tree(made.vault) == before
    with opened(made) as vault:
        staged(vault, [PIECE], PIECE.schema)  # as a crash leaves it
    assert held(made)[CUSTOMERS].num_rows == 40
    with opened(made) as vault:
        staged(vault, [PIECE], PIECE.schema).commit("sealed")
    assert held(made)[CUSTOMERS].num_rows == 2
    assert unnamed_files(made) == []


def test_a_table_that_is_sealed_twice_has_nothing_of_the_first_time(tmp_path):
    made = small_vault(tmp_path / "bank")
    first = {path.name for path in made.vault.rglob("*") if path.is_file()}
    with opened(made) as vault:
        for dataset, table in tables().items():
            put(vault, dataset, table)
        entries = [e.body for e in vault.ledger.entries("vault")]
    second = {path.name for path in made.vault.rglob("*") if path.is_file()}
    assert not first & second
    assert len(first) == len(second) == 5 + 3 + 5 + 3
    assert [(e["dataset"], e["version"], e["what"]) for e in entries] == [
        (dataset, version, "sealed") for version in (1, 2) for dataset in tables()
    ]


def test_no_two_streams_have_a_data_key_in_common(tmp_path):
    made = small_vault(tmp_path / "bank")
    with opened(made) as vault:
        manifests = [vault.newest(name) for name in tables()]
        keys = [bytes(key) for manifest in manifests for key in vault.unwrapped(manifest, manifest.streams)]
    assert len(set(keys)) == len(keys) == 13


# --- what goes wrong on the way -----------------------------------------------------------------------------------


BAD_AT_LAST = pa.concat_tables([table_of(count=300), with_cells(table_of("birch"), "region", {100: "canary-4711"})])


def test_a_broken_rule_in_the_last_piece_leaves_vault_and_approvals_as_they_were(tmp_path, monkeypatch):
    made = small_vault(tmp_path / "bank")
    before = tree(made.root)
    seen = []
    source = HeldTable(BAD_AT_LAST, "the table")
    monkeypatch.setattr(HeldTable, "pieces", lambda self, names: iter(self.rows.select(names).to_batches(100)))
    with opened(made) as vault, pytest.raises(ContractFault, match="outside the contract's vocabulary") as caught:
        take_in(vault, source, CONTRACT, see=seen.append)
    assert seen[:3] == [100, 200, 300]  # three pieces were sealed by then
    assert "canary" not in str(caught.value)
    assert tree(made.root) == before
    assert not made.approves(CONTRACT)


class Sudden(Exception):
    """Raised by a source of rows that nobody foresaw."""


def raising(error):
    yield PIECE
    yield PIECE
    yield PIECE
    raise error


@pytest.mark.parametrize("error", [Sudden(), ContractFault(), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_a_source_that_raises_in_the_middle_leaves_the_vault_as_it_was(tmp_path, error):
    made = small_vault(tmp_path / "bank")
    before = tree(made.root)
    with opened(made) as vault, pytest.raises(type(error)):
        staged(vault, raising(error), PIECE.schema)
    assert tree(made.root) == before


def test_a_source_whose_piece_has_other_columns_leaves_the_vault_as_it_was(tmp_path):
    made = small_vault(tmp_path / "bank")
    before = tree(made.root)
    with opened(made) as vault, pytest.raises((pa.ArrowException, IndexError)):
        staged(vault, [PIECE, PIECE.select(["customer"])], PIECE.schema)
    assert tree(made.root) == before


@pytest.mark.parametrize("call", [1, 2], ids=["the columns' keys", "the sealed part's key"])
def test_a_key_source_that_does_not_answer_leaves_the_vault_as_it_was(tmp_path, monkeypatch, call):
    made = small_vault(tmp_path / "bank")
    before, wrap, calls = tree(made.root), LocalKeys.wrap, []

    def failing(self, keys, contexts):
        calls.append(len(keys))
        if len(calls) == call:
            raise KeyFault
        return wrap(self, keys, contexts)

    monkeypatch.setattr(LocalKeys, "wrap", failing)
    with opened(made) as vault, pytest.raises(KeyFault):
        put(vault, CUSTOMERS, tables()[CUSTOMERS])
    assert len(calls) == call
    assert tree(made.root) == before


def test_a_manifest_that_cannot_be_written_leaves_the_vault_as_it_was(tmp_path, monkeypatch):
    made = small_vault(tmp_path / "bank")
    before = tree(made.root)

    def refuse(path, data):
        raise FileFault

    monkeypatch.setattr("coterie.clients.vault.write_durably", refuse)
    with opened(made) as vault, pytest.raises(FileFault):
        put(vault, CUSTOMERS, tables()[CUSTOMERS])
    assert tree(made.root) == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where the machine lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False)
    yield place if made.returncode == 0 else None
    if made.returncode == 0:
        subprocess.run(["/bin/umount", str(place)], check=True)


def large(rows):
    draw = np.random.default_rng(5)
    for _ in range(rows // 1000):
        yield pa.record_batch({"customer": [str(n) for n in range(1000)], "x": draw.random(1000)})


def test_a_disk_that_is_full_in_the_middle_leaves_the_vault_as_it_was(small_disk, tmp_path):
    """On a real file system of 1 MiB; where none can be mounted, under the process' own limit of a file's size."""
    made = small_vault((small_disk or tmp_path) / "bank")
    before, seen = tree(made.vault), []
    schema = next(large(1000)).schema
    if small_disk is None:
        with opened(made) as vault, _files_of_at_most(300_000), pytest.raises(FileFault, match="cannot be written"):
            stage(vault, CUSTOMERS, large(200_000), schema=schema, customer="customer", see=seen.append)
    else:
        with opened(made) as vault, pytest.raises(FileFault, match=r"cannot be written \(No space left on device\)"):
            stage(vault, CUSTOMERS, large(200_000), schema=schema, customer="customer", see=seen.append)
    assert len(seen) > 3
    assert tree(made.vault) == before
    assert held(made)[CUSTOMERS].num_rows == 40
    with opened(made) as vault:
        put(vault, CUSTOMERS, tables(10)[CUSTOMERS])
    assert held(made)[CUSTOMERS].num_rows == 10


def _files_of_at_most(size):
    import contextlib
    import resource
    import signal

    @contextlib.contextmanager
    def limited():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)

    return limited()


def test_data_keys_are_overwritten_when_a_table_is_sealed_and_when_it_fails(tmp_path, monkeypatch):
    made, seen = workspace(tmp_path / "bank"), []
    monkeypatch.setattr(sealing, "wiped", lambda secrets: seen.append(secrets) or _WIPED(secrets))
    with opened(made) as vault:
        staged(vault, [PIECE], PIECE.schema)
        with pytest.raises(Sudden):
            staged(vault, raising(Sudden()), PIECE.schema)
    assert [len(secrets) for secrets in seen] == [2, 2]
    assert all(not any(key) for secrets in seen for key in secrets)


_WIPED = sealing.wiped

CHILD = """
import sys
from pathlib import Path
from coterie.clients.intake import take_in
from coterie.clients.tables.files import table_at
from coterie.clients.vault import open_vault
from coterie.privacy.clock import now
from coterie.privacy.contract import Column, Contract

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

contract = Contract(customer="who", label="y", columns=(Column(name="x", kind="numeric", low=0, high=1),))
with open_vault(Path(sys.argv[1]), now) as vault:
    table = table_at(Path(sys.argv[2]))
    before = peak()
    take_in(vault, table, contract)
    print(vault.table("customers").rows, peak() - before)
"""


def test_the_memory_of_the_intake_does_not_grow_with_the_rows_but_for_a_few_bytes_of_each(tmp_path):
    grown, rows, env = [], 400_000, os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    for times in (1, 4):
        made, path = workspace(tmp_path / f"bank-{times}"), tmp_path / f"{times}.parquet"
        draw, count = np.random.default_rng(5), times * rows
        columns = {"who": pa.array(np.arange(count)).cast(pa.string()), "x": draw.random(count)}
        table = pa.table(columns | {"y": draw.integers(0, 2, count)})
        pyarrow.parquet.write_table(table, path, row_group_size=100_000)
        words = [sys.executable, "-c", CHILD, str(made.root), str(path)]
        said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120, env=env).stdout.split()
        assert int(said[0]) == count
        grown.append(int(said[1]) - _hashes(count))
    assert grown[1] < 1.3 * grown[0] + 4096  # KiB: how much is read ahead is a matter of chance


def _hashes(count):
    """What counting the rows of each customer may take: 32 bytes of each, in KiB."""
    return 32 * count // 1024
