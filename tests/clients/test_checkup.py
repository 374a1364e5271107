"""The look at the whole vault: it says how each data set stands, and reads it to the last byte."""

import pytest

from coterie.clients.checkup import check_vault
from coterie.clients.rekeying import rewrap
from coterie.clients.vault import CONSENTS, CUSTOMERS, INTERACTIONS
from coterie.privacy.fields.errors import SealFault
from coterie.tests.stories.vaultkit import opened, put, small_vault, stream_files, tables, tree, workspace


def looked(made):
    with opened(made) as vault:
        return check_vault(vault)


def test_an_empty_vault_has_nothing_to_look_at(tmp_path):
    assert looked(workspace(tmp_path / "bank")) == []


def test_it_says_how_each_data_set_stands(tmp_path):
    made = small_vault(tmp_path / "bank")
    with opened(made) as vault:
        put(vault, CUSTOMERS, tables()[CUSTOMERS])
    found = looked(made)
    sizes = {name: sum(path.stat().st_size for path in stream_files(made, name)) for name in tables()}
    for row, (name, version, columns, rows) in zip(
        found, [(CUSTOMERS, 2, 5, 40), (INTERACTIONS, 1, 3, 120), (CONSENTS, 1, 5, 80)], strict=True
    ):
        assert row == {
            "dataset": name,
            "version": version,
            "columns": columns,
            "rows": rows,
            "bytes": sizes[name],
            "keys": "file",
            "epoch": "0001",
        }


def test_it_changes_nothing(tmp_path):
    made = small_vault(tmp_path / "bank")
    looked(made)  # opens the ledger's file for the first time
    before = tree(made.root)
    looked(made)
    assert tree(made.root) == before


def test_it_tells_the_epoch_that_is_current(tmp_path):
    made = small_vault(tmp_path / "bank")
    with opened(made) as vault:
        rewrap(vault)
    assert {row["epoch"] for row in looked(made)} == {"0002"}


@pytest.mark.parametrize("dataset", list(tables()))
@pytest.mark.parametrize("column", [0, -1])
def test_a_bit_in_the_last_byte_of_any_column_is_seen(tmp_path, dataset, column):
    made = small_vault(tmp_path / "bank")
    path = stream_files(made, dataset)[column]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SealFault, match="was changed, cut short or exchanged") as caught:
        looked(made)
    assert str(path) in str(caught.value)
    path.write_bytes(data)
    assert len(looked(made)) == 3
