"""`coterie partner cells`: from a table to sealed cells and back, and rows that are found without opening anything."""

import dataclasses
import json
import sys

import pyarrow as pa
import pyarrow.csv
import pytest

from coterie.cli import cells
from coterie.cli.main import main
from coterie.clients.workspace import Workspace
from coterie.tests.clients.federation import CONTRACT, study, table_of

COUNT = 1000


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command in this process; return its exit code and its output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coterie", "partner", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def bank(tmp_path):
    Workspace.create(tmp_path / "bank", "bank")
    return tmp_path / "bank"


@pytest.fixture
def plan(tmp_path):
    contract = dataclasses.replace(CONTRACT, customer_cells="searchable")
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"plan": study(contract=contract).to_dict()}))
    return path


@pytest.fixture
def table(tmp_path):
    table = table_of(count=COUNT)
    table = table.append_column("id", pa.array([f"id{number}" for number in range(COUNT)]))
    pyarrow.csv.write_csv(
        table.cast(pa.schema([(name, "string") for name in table.schema.names])), tmp_path / "table.csv"
    )
    return tmp_path / "table.csv"


def test_a_table_is_sealed_and_opened_and_its_rows_are_found(call, bank, plan, table, tmp_path):
    more = ("--plan", plan, "--row-key", "id")
    code, out, _ = call("cells", "seal", bank, table, *more, "--output", tmp_path / "sealed.csv")
    assert (code, f"{COUNT} rows are sealed" in out) == (0, True)
    assert "customer is searchable: who has the file sees which rows are equal in it" in out
    names = table_of(count=COUNT)["customer"].to_pylist()
    text = (tmp_path / "sealed.csv").read_text()
    assert not [name for name in names if name in text]
    code, out, _ = call("cells", "open", bank, tmp_path / "sealed.csv", *more, "--output", tmp_path / "opened.csv")
    assert (code, "in plain: remove it where it is no longer needed" in out) == (0, True)
    assert (tmp_path / "opened.csv").read_bytes() == table.read_bytes()
    asked = ("cells", "find", bank, tmp_path / "sealed.csv", "--column", "customer", "--row-key", "id")
    assert call(*asked, "--value", names[7]) == (0, "id7\n", "")
    assert json.loads(call(*asked, "--value", names[7], "--json")[1]) == ["id7"]
    assert call(*asked, "--value", "nobody") == (0, "no row has it\n", "")


def test_a_value_that_is_left_out_is_asked_for_without_an_echo(call, bank, plan, table, tmp_path, monkeypatch):
    call("cells", "seal", bank, table, "--plan", plan, "--output", tmp_path / "sealed.csv")
    asked = []
    name = table_of(count=COUNT)["customer"][7].as_py()
    monkeypatch.setattr(cells.getpass, "getpass", lambda words: asked.append(words) or name)
    assert call("cells", "find", bank, tmp_path / "sealed.csv", "--column", "customer") == (0, "8\n", "")
    assert asked == ["value of customer: "]


def test_older_keys_stay_until_they_are_forgotten(call, bank, plan, table, tmp_path):
    call("cells", "seal", bank, table, "--plan", plan, "--output", tmp_path / "first.csv")
    call("cells", "seal", bank, table, "--plan", plan, "--output", tmp_path / "second.csv", "--new-keys")
    assert call("cells", "open", bank, tmp_path / "first.csv", "--plan", plan, "--output", tmp_path / "1.csv")[0] == 0
    code, out, _ = call("cells", "forget", bank)
    assert (code, "6 older keys of cells are forgotten" in out) == (0, True)
    code, _, err = call("cells", "open", bank, tmp_path / "first.csv", "--plan", plan, "--output", tmp_path / "2.csv")
    assert (code, "has cells of a key that this workspace does not have" in err) == (2, True)
    assert not (tmp_path / "2.csv").exists()
    done = call("cells", "open", bank, tmp_path / "second.csv", "--plan", plan, "--output", tmp_path / "2.csv")
    assert done[0] == 0


def test_cells_open_after_a_rotation_that_destroys_older_keys(call, bank, plan, table, tmp_path):
    call("cells", "seal", bank, table, "--plan", plan, "--output", tmp_path / "sealed.csv")
    assert call("rotate", bank, "--destroy-older")[1].endswith("destroyed: 0001\n")
    code, *_ = call("cells", "open", bank, tmp_path / "sealed.csv", "--plan", plan, "--output", tmp_path / "out.csv")
    assert code == 0
    assert (tmp_path / "out.csv").read_bytes() == table.read_bytes()


def test_one_clear_fault_and_no_file_where_a_cell_was_edited(call, bank, plan, table, tmp_path):
    call("cells", "seal", bank, table, "--plan", plan, "--output", tmp_path / "sealed.csv")
    sealed = (tmp_path / "sealed.csv").read_text().splitlines()
    sealed[3], sealed[5] = sealed[3].replace('"v1.', '"v2.', 1), sealed[5].replace('"v1.', '"v2.', 1)
    (tmp_path / "edited.csv").write_text("\n".join(sealed) + "\n")
    code, out, err = call(
        "cells", "open", bank, tmp_path / "edited.csv", "--plan", plan, "--output", tmp_path / "out.csv"
    )
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
    assert f"2 of {COUNT} cells are of another form than a sealed cell" in err
    assert "(first: row 3)" in err
    assert not (tmp_path / "out.csv").exists()
