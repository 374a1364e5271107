"""Customer groups: who is held out is a keyed hash of the identifier, for life."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from coterie.clients.opening import open_table
from coterie.clients.tables.files import table_at
from coterie.clients.training import training_customers
from coterie.privacy.randomness import OsSource
from coterie.tests.clients.federation import CONTRACT, study, table_of

KEY = bytes(range(32))
CROWD = 6000


def hmac_sha256(key, message):
    """RFC 2104, written out."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).digest()


@pytest.fixture
def held_out(tmp_path):
    """Returns the identifiers that are held out of a table under a key."""

    def held(table, key=KEY):
        path = tmp_path / "table.parquet"
        pyarrow.parquet.write_table(table, path)
        got = open_table(table_at(path), CONTRACT, group_key=key, stream=OsSource().stream("rows"))
        return set(np.array(table["customer"].to_pylist())[got.held_out])

    return held


def test_the_group_is_the_keyed_hash_of_the_identifier_and_nothing_else(held_out):
    table = table_of(count=300)
    expected = {
        identifier
        for identifier in table["customer"].to_pylist()
        if int.from_bytes(hmac_sha256(KEY, b"coterie/group/v1\n" + identifier.encode())[:8], "big") % 5 == 0
    }
    assert held_out(table) == expected


def test_the_groups_are_the_same_at_every_call_and_in_every_order(held_out):
    table = table_of(count=300)
    order = np.random.default_rng(1).permutation(300)
    assert held_out(table) == held_out(table) == held_out(table.take(order))


def test_about_one_customer_in_five_is_held_out(held_out):
    share = len(held_out(table_of(count=CROWD))) / CROWD
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / CROWD) ** 0.5


def test_another_key_holds_out_other_customers(held_out):
    table = table_of(count=CROWD)
    one, other = held_out(table), held_out(table, bytes(32))
    # Independent draws share a fifth of a fifth.
    assert abs(len(one & other) / CROWD - 0.04) < 0.012


def test_a_customers_group_does_not_depend_on_the_others(held_out):
    table = table_of(count=300)
    half = table.slice(0, 150)
    assert held_out(half) == held_out(table) & set(half["customer"].to_pylist())
    alone = table.slice(17, 1)
    pair = pa.concat_tables(
        [alone, table.filter(pa.compute.not_equal(table["bought"], alone["bought"][0])).slice(0, 1)]
    )
    assert held_out(pair) & set(alone["customer"].to_pylist()) == held_out(table) & set(alone["customer"].to_pylist())


def test_training_takes_just_the_customers_that_are_not_held_out(tmp_path, held_out):
    table = table_of(count=300)
    path = tmp_path / "one.parquet"
    pyarrow.parquet.write_table(table, path)
    opened = open_table(table_at(path), CONTRACT, group_key=KEY, stream=OsSource().stream("rows"))
    customers = training_customers(opened, study())
    assert len(customers) == 300 - len(held_out(table))
    everyone = customers.batch(np.arange(len(customers)))
    ages = sorted((everyone.features[:, 0].numpy() * 36 + 54).round().tolist())
    outside = held_out(table)
    mine = [a for a, c in zip(table["age"].to_pylist(), table["customer"].to_pylist(), strict=True) if c not in outside]
    assert ages == sorted(mine)


@pytest.mark.parametrize("key", [b"", bytes(31), None])
def test_a_group_key_that_is_not_whole_stops_the_work_and_charges_nothing(agreed, key):
    path = agreed.folders["amber"] / "keys" / "groups.key"
    path.unlink() if key is None else path.write_bytes(key)
    with pytest.raises(Exception, match="must hold 32 bytes"):
        agreed.train()
    assert agreed.reservations() == ()
