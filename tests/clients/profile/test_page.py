"""The files of a profile: no value of any cell is in them, they are closed to others, and the page needs nothing."""

import dataclasses
import html.parser
import json
import logging
import re
import traceback

import pyarrow as pa
import pytest

from coterie.clients.profile.drift import read_profile
from coterie.clients.profile.facts import FORMAT
from coterie.clients.profile.output import PAGE, TABLE, write_profile
from coterie.clients.profile.page import render
from coterie.clients.profile.profiling import profile_table
from coterie.privacy.contract import Column, Contract, Interactions
from coterie.privacy.errors import ContractFault, Fault, FileFault
from coterie.tests.clients import bad_tables
from coterie.tests.clients.bad_tables import CANARIES, CANARY, NUMBER, doubled
from coterie.tests.clients.federation import CONTRACT, with_cells, with_column
from coterie.tests.clients.profile.profiles import WISH, Held, profile_of

ROWS = bad_tables.TABLE
OTHERS = {
    "e_mail": [f"{CANARY}{i}@example.org" for i in range(150)],
    "remarks": [f"she said {CANARY} {i} times when the parcel did not come" for i in range(150)],
    "postcode": [f"{CANARY}-{i % 7}" for i in range(150)],
    "card": ["4111111111111111"] * 150,
    "same": [CANARY] * 150,
    "amount": [NUMBER] * 150,
}


def planted(name):
    """The table with a canary in one column, or in columns that the contract does not name."""
    if name == "others":
        return pa.table({column: ROWS[column] for column in ROWS.column_names} | OTHERS)
    cell = NUMBER if name in {"spend", "age"} else CANARY
    if name == "bought":
        return with_column(ROWS, name, [CANARY] * 150)
    return doubled(with_cells(ROWS, name, {3: cell, 7: cell} if name != "age" else {3: 987654321}), 3, 2)


def files_of(table, folder, contract=CONTRACT, **wish):
    write_profile(profile_of(table, contract, **wish), folder)
    return (folder / PAGE).read_text(encoding="utf-8"), (folder / TABLE).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*ROWS.column_names, "others"])
@pytest.mark.parametrize("outside", ["error", "clip"])
def test_a_value_that_is_planted_is_nowhere(tmp_path, caplog, capfd, name, outside):
    caplog.set_level(logging.DEBUG)
    columns = tuple(dataclasses.replace(c, outside=outside, missing="centre") for c in CONTRACT.columns)
    contract = dataclasses.replace(CONTRACT, columns=columns)
    table = planted(name)
    quasi = tuple(one for one in table.column_names if one not in {"customer", "bought"})
    earlier = json.loads(files_of(ROWS, tmp_path / "before")[1])
    told = "".join(files_of(table, tmp_path / "now", contract, quasi=quasi, earlier=earlier))
    told += caplog.text + "".join(capfd.readouterr()) + repr(profile_of(table, contract))
    for secret in (*CANARIES, "4111111111111111", "987,654,321"):
        assert secret not in told


def test_a_value_of_interactions_that_is_planted_is_nowhere(tmp_path):
    rows = Interactions(
        item="item", time="day", value="stars", least_value=1, earliest="2030-01-01", latest="2030-12-31"
    )
    contract = Contract(customer="who", interactions=rows)
    table = pa.table({"who": [CANARY], "item": [f"item {CANARY}"], "day": [CANARY], "stars": [NUMBER]})
    told = "".join(files_of(table, tmp_path / "p", contract))
    assert not any(secret in told for secret in CANARIES)


def test_a_word_of_the_vocabulary_is_shown_since_it_is_public(tmp_path):
    column = Column(name="region", kind="categorical", values=(CANARY, "south"))
    contract = dataclasses.replace(CONTRACT, columns=(column,))
    assert all(CANARY in told for told in files_of(ROWS, tmp_path / "p", contract))


def test_names_that_are_cells_of_a_table_without_a_header_are_not_shown(tmp_path):
    names = ["zoe@example.org", "+442079460018", "4111111111111111", "12.5", ""]
    table = pa.table([ROWS["age"]] * 5, names=names)
    told = "".join(files_of(table, tmp_path / "p"))
    assert not any(name in told for name in names if name)
    assert "has 5 columns whose names look like values" in told


def test_a_fault_while_reading_shows_nothing_and_is_passed_on():
    fault = Fault("the held table", "is cut short", "export it again")

    class Broken(Held):
        def pieces(self, names):
            yield from list(super().pieces(names))[:1]
            raise ContractFault(fault)

    with pytest.raises(ContractFault) as caught:
        profile_table(Broken(planted("others")), CONTRACT, WISH)
    assert caught.value.faults == (fault,)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


# --- files ------------------------------------------------------------------------------------------------------


def test_folder_and_files_are_closed_to_others(tmp_path):
    folder = tmp_path / "a" / "profile"
    files_of(ROWS, folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == [PAGE, TABLE]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_a_folder_that_others_can_enter_is_refused(tmp_path, mode):
    folder = tmp_path / "profile"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(FileFault, match="can be entered by other users"):
        files_of(ROWS, folder)
    assert not list(folder.iterdir())


def test_a_file_in_place_of_the_folder_is_a_fault(tmp_path):
    (tmp_path / "profile").write_text("x")
    with pytest.raises(FileFault, match="cannot be made"):
        files_of(ROWS, tmp_path / "profile")


def test_the_json_has_its_format_and_is_read_back(tmp_path):
    _, table = files_of(ROWS, tmp_path / "p")
    held = json.loads(table)
    assert (held["format"], held["rows"], held["verdict"]) == (FORMAT, 150, profile_of(ROWS).verdict)
    assert read_profile(tmp_path / "p" / TABLE) == held


@pytest.mark.parametrize(
    "data",
    [None, b"", b"{}", b"[]", b'{"format": "coterie/profile/v2", "rows": 1, "columns": []}', b"[" * 100_000],
    ids=["missing", "empty", "nothing", "a list", "another version", "deep"],
)
def test_an_earlier_profile_that_is_none_is_a_fault(tmp_path, data):
    path = tmp_path / "profile.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(FileFault, match=r"profile\.json"):
        read_profile(path)


@pytest.mark.parametrize("count", [-1, 1.5, "7", None, True])
def test_an_earlier_profile_with_a_count_that_is_none_is_a_fault(tmp_path, count):
    held = json.loads(files_of(ROWS, tmp_path / "p")[1])
    next(one for one in held["columns"] if one["numbers"])["numbers"]["bins"][0]["rows"] = count
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(held))
    with pytest.raises(FileFault, match="is not a profile"):
        read_profile(path)


# --- the page ---------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """What a page is made of."""

    VOID = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_script_and_no_other_file(tmp_path):
    text, _ = files_of(doubled(planted("others"), 3, 2), tmp_path / "p")
    page = Page(text)
    assert page.open == []
    assert not {"script", "img", "link", "iframe", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in {"src", "style"} or name.startswith("on")]
    assert [value for name, value in page.attributes if name == "href"] == ["#main"]
    assert [v for n, v in page.attributes if n == "content" and v.startswith("default-src 'none'; style-src 'sha256-")]
    assert page.tags.count("table") == page.tags.count("caption")
    assert page.tags.count("h1") == 1
    assert "Nothing of this page leaves" in text


def test_names_are_escaped_and_cannot_reverse_the_text(tmp_path):
    name = '<script>alert("x")</script>\u202egnp'
    table = ROWS.append_column(name.replace("\u202e", ""), ROWS["age"]).append_column("a\u202eb", ROWS["age"])
    text, _ = files_of(table, tmp_path / "p")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\u202e" not in text


def test_a_word_of_a_strangers_contract_cannot_reverse_the_text():
    words = Column(name="region", kind="categorical", values=("\u202e\u00a0gnp", "south"))
    text = render(profile_of(ROWS, dataclasses.replace(CONTRACT, columns=(words,))))
    assert "\u202e" not in text
    assert "?\u00a0gnp" in text


def test_the_same_profile_is_drawn_alike():
    assert render(profile_of(ROWS)) == render(profile_of(ROWS))


@pytest.mark.parametrize(("verdict", "made"), [("stops", {"age": [200] * 150}), ("look", {"age": [40] * 150})])
def test_the_verdict_is_at_the_top(verdict, made):
    (name, values) = next(iter(made.items()))
    found = profile_of(with_column(ROWS, name, values))
    text = render(found)
    assert found.verdict == verdict
    headings = re.findall(r"<h2[^>]*>([^<]*)<", text)
    assert headings[0] == {"stops": "What stops a study", "look": "What deserves a look"}[verdict]
    assert text.index('class="verdict') < text.index("<h2")
