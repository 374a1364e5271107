"""`coterie partner identifiers` and `matches`: from a table to sealed identifiers, and from a match to a file."""

import datetime
import json
import stat
import sys

import pyarrow as pa
import pytest

from coterie.cli.main import main
from coterie.clients.matched import keep_matched, keep_tokens
from coterie.clients.vault import IDENTIFIERS, open_vault
from coterie.clients.workspace import Workspace
from coterie.tests.stories.vaultkit import opened

ONE, TWO = (f"sha256:{digit * 64}" for digit in "ab")
DAY = datetime.date(2031, 5, 4)
CRM = """id,mail,mobile,land
c1,Canary.One@gmail.com,020 7946 0958,GB
c2,canary no address,030 901820,DE
c3,,,
"""


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
    return Workspace.create(tmp_path / "bank", "bank")


@pytest.fixture
def crm(tmp_path):
    (tmp_path / "crm.csv").write_text(CRM)
    return tmp_path / "crm.csv"


@pytest.fixture
def matched(bank):
    with opened(bank) as vault:
        names = pa.array(["c1", "c2"], pa.large_string())
        keep_matched(vault, ONE, {"amber": names, "bir\x1b[2Jch": names.slice(1)}, day=DAY)
        tokens = pa.array(list(range(32)), pa.uint8()).to_numpy().reshape(2, 16)
        keep_tokens(vault, TWO, (names, tokens), day=DAY)
    return bank


COLUMNS = ("--customer", "id", "--email", "mail", "--phone", "mobile", "--region-column", "land")


def test_a_table_of_identifiers_is_sealed_and_what_is_rejected_is_told_without_a_value(call, bank, crm):
    code, out, err = call("identifiers", bank.root, crm, *COLUMNS)
    assert code == 0
    assert "not one e-mail address" in out + err
    assert "identifiers-rejected.csv" in out
    assert "canary" not in (out + err).lower()
    assert bank.identifies()
    with opened(bank) as vault:
        assert vault.table(IDENTIFIERS).rows == 3
    assert "canary" not in (bank.root / "reports" / "identifiers-rejected.csv").read_text()


def test_the_same_for_a_program(call, bank, crm):
    code, out, _ = call("identifiers", bank.root, crm, *COLUMNS, "--json")
    told = json.loads(out)
    assert (code, told["taken"]) == (0, {"email": 1, "phone": 2})
    assert {(r["kind"], r["reason"], r["rows"]) for r in told["rejected"]} == {
        ("email", "empty", 1),
        ("email", "not-an-address", 1),
        ("phone", "empty", 1),
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--customer", "id"), "names no column of a known kind"),
        (("--customer", "nobody", "--email", "mail"), "column nobody: is missing"),
        (("--customer", "id", "--phone", "mobile", "--region", "UK"), "the region: is no country's"),
    ],
)
def test_what_cannot_be_taken_is_one_clear_error(call, bank, crm, more, expected):
    code, out, err = call("identifiers", bank.root, crm, *more)
    assert (code, expected in err) == (2, True)
    assert not bank.identifies()
    assert "canary" not in out + err


def test_matches_are_listed_and_a_partners_name_acts_on_no_terminal(call, matched):
    code, out, err = call("matches", matched.root)
    assert code == 0
    assert "2 at amber" in out + err
    assert "2 with tokens" in out + err
    assert "\x1b[2J" not in out + err
    code, out, _ = call("matches", matched.root, "aaaaaa", "--json")
    assert [(m["plan"], m["outcome"], m["day"]) for m in json.loads(out)] == [(ONE, "rows", "2031-05-04")]


@pytest.mark.parametrize(("digits", "option", "lines"), [("aaaaaa", "--rows", 4), ("bbbbbb", "--tokens", 3)])
def test_what_a_match_left_is_written_for_the_operator_alone(call, matched, tmp_path, digits, option, lines):
    path = tmp_path / "out.csv"
    code, out, _ = call("matches", matched.root, digits, option, path)
    assert (code, f"{lines - 1} rows are in {path}" in out) == (0, True)
    assert len(path.read_text().splitlines()) == lines
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--rows", "out.csv"), "several matches"),
        (("bbbbbb", "--rows", "out.csv"), "has no rows"),
        (("cccccc", "--tokens", "out.csv"), "no match that is kept"),
        (("aaaaaa", "--rows", "out.csv", "--tokens", "more.csv"), "are of different matches"),
        (("aaaaaa", "--rows", "out.txt"), "neither a .csv nor a .parquet"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_clear_error(call, matched, tmp_path, monkeypatch, more, expected):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("matches", matched.root, *more)
    assert (code, expected in err) == (2, True)
    assert not (tmp_path / "out.csv").exists()


def test_rotating_by_column_knows_them(call, bank, crm):
    assert call("identifiers", bank.root, crm, *COLUMNS)[0] == 0
    code, out, _ = call("rotate", bank.root, "--dataset", "identifiers", "--column", "value")
    assert (code, "1 columns of identifiers have new data keys" in out) == (0, True)
    with open_vault(bank.root, lambda: datetime.datetime.now(datetime.UTC)) as vault:
        assert vault.newest(IDENTIFIERS).version == 2
