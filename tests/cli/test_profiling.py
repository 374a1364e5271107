"""`coterie partner profile`: what it prints and writes, and how it ends."""

import json
import sys

import pyarrow.csv
import pyarrow.parquet
import pytest

from coterie.cli.main import main
from coterie.tests.clients.federation import study, table_of, with_column


@pytest.fixture
def profile(monkeypatch, capsys):
    """Run the command in this process; return its exit code and its output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coterie", "partner", "profile", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"plan": study().to_dict()}))
    return path


def written(table, path):
    pyarrow.csv.write_csv(table, path)
    return path


def test_a_good_table_ends_with_0_and_both_files(profile, plan, tmp_path):
    table = written(table_of(), tmp_path / "customers.csv")
    code, out, _ = profile(table, "--plan", plan, "--output", tmp_path / "p")
    assert code == 0
    assert "fine: The table keeps the contract." in out
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["profile.html", "profile.json"]


def test_a_table_that_stops_a_study_ends_with_1_and_says_why(profile, plan, tmp_path):
    table = written(with_column(table_of(), "age", [200] * 150), tmp_path / "customers.csv")
    code, out, _ = profile(table, "--plan", plan, "--output", tmp_path / "p", "--json")
    told = json.loads(out)
    assert (code, told["verdict"]) == (1, "stops")
    assert told["stops"][0].startswith("column age: lies outside 18 to 90 in 150 rows")
    assert told["output"] == str(tmp_path / "p" / "profile.html")


def test_quasi_identifiers_and_an_earlier_profile_are_taken(profile, plan, tmp_path):
    table = written(table_of(), tmp_path / "customers.csv")
    profile(table, "--plan", plan, "--output", tmp_path / "p")
    against = ("--against", tmp_path / "p" / "profile.json")
    profile(table, "--plan", plan, "--quasi", "age", "--quasi", "spend", *against, "--output", tmp_path / "q")
    held = json.loads((tmp_path / "q" / "profile.json").read_text())
    assert held["anonymity"]["columns"] == ["age", "spend"]
    assert [one["index"] for one in held["drift"]] == [0, 0, 0]


def test_a_table_that_cannot_be_read_ends_with_2_and_writes_nothing(profile, plan, tmp_path):
    code, _, err = profile(tmp_path / "customers.csv", "--plan", plan, "--output", tmp_path / "p")
    assert code == 2
    assert "customers.csv" in err
    assert not (tmp_path / "p").exists()


def test_what_is_sealed_has_the_profile_of_the_table_that_was_taken_in(profile, federation, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_bytes(federation.signed.to_bytes())
    folder = federation.folders["amber"]
    code, _, err = profile("--workspace", folder, "--plan", plan, "--output", tmp_path / "sealed")
    assert code == 0, err
    pyarrow.parquet.write_table(table_of("amber"), tmp_path / "amber.parquet")
    profile(tmp_path / "amber.parquet", "--plan", plan, "--output", tmp_path / "plain")
    sealed, plain = (json.loads((tmp_path / one / "profile.json").read_text()) for one in ("sealed", "plain"))
    assert sealed == plain
    assert not [path for path in folder.rglob("*") if path.name.startswith("profile")]


@pytest.mark.parametrize("words", [(), ("customers.csv", "--workspace", "bank")])
def test_a_table_or_a_workspace_is_needed_and_not_both(profile, plan, tmp_path, words):
    code, _, err = profile(*words, "--plan", plan, "--output", tmp_path / "p")
    assert (code, "is needed, and not both" in err) == (2, True)
