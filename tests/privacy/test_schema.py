"""Strict reading of TOML: every fault at once, each with its place, rule and fix, and never a value."""

import datetime
from dataclasses import dataclass, field

import pytest

from coterie.privacy.errors import FileFault
from coterie.privacy.schema import integer, number, one_of, parse, read, text

CANARY = "canary-4711"


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = field(metadata=integer(1, 3))
    label: str = field(default="x", metadata=text(12))


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = field(metadata=text(12))
    colour: str = field(metadata=one_of("red", "green"))
    rate: float = field(metadata=number(0, 1, ends="(]"))
    margin: float = field(default=0.5, metadata=number(0, 1, ends="[)"))
    count: int = field(default=2, metadata=integer(1, 5))
    on: bool = False
    until: datetime.date = datetime.date(2030, 1, 1)
    low: float | None = field(default=None, metadata=number(-10, 10))
    edges: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    inner: Inner = Inner(depth=1)
    rows: tuple[Inner, ...] = ()
    shares: dict[str, float] = field(default_factory=dict, metadata=number(0, 1))


GOOD = 'name = "n"\ncolour = "red"\nrate = 0.5\n'


@pytest.fixture
def file(tmp_path):
    def write(content, name="study.toml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def faults(path):
    with pytest.raises(FileFault) as caught:
        read(Outer, path)
    assert CANARY not in str(caught.value)
    assert "4711" not in str(caught.value)
    for fault in caught.value.faults:
        assert fault.place.startswith(str(path))
        assert fault.rule
        assert fault.fix
    return caught.value.faults


# --- what is accepted -----------------------------------------------------------------------------------


def test_a_file_that_keeps_the_schema_is_read_whole(file):
    got = read(
        Outer,
        file(
            GOOD + "margin = 0\ncount = 5\non = true\nuntil = 2031-02-28\nlow = -10\nedges = [1, 2.5]\n"
            'words = ["a"]\n[inner]\ndepth = 3\nlabel = "é"\n[[rows]]\ndepth = 1\n[[rows]]\ndepth = 2\n'
            "[shares]\nany = 1\n"
        ),
    )
    assert got == Outer(
        name="n",
        colour="red",
        rate=0.5,
        margin=0.0,
        count=5,
        on=True,
        until=datetime.date(2031, 2, 28),
        low=-10.0,
        edges=(1.0, 2.5),
        words=("a",),
        inner=Inner(depth=3, label="é"),
        rows=(Inner(depth=1), Inner(depth=2)),
        shares={"any": 1.0},
    )
    assert type(got.low) is type(got.edges[0]) is float


def test_what_is_left_out_takes_its_default(file):
    assert read(Outer, file(GOOD)) == Outer(name="n", colour="red", rate=0.5)


# --- values ---------------------------------------------------------------------------------------------

WRONG = {  # line -> (key path, part of the rule)
    'name = "canary-4711-and-more"': ("name", "text of 1 to 12 characters"),
    'name = ""': ("name", "text of 1 to 12 characters"),
    "name = 4711": ("name", "text"),
    'colour = "canary-4711"': ("colour", "one of red, green"),
    "rate = 0": ("rate", "(0, 1]"),
    "rate = 1.4711": ("rate", "(0, 1]"),
    "rate = -4711": ("rate", "(0, 1]"),
    "rate = nan": ("rate", "(0, 1]"),
    "rate = inf": ("rate", "(0, 1]"),
    f"rate = 4711{'0' * 400}": ("rate", "(0, 1]"),
    'rate = "canary-4711"': ("rate", "a number"),
    "rate = true": ("rate", "a number"),
    "margin = 1": ("margin", "[0, 1)"),
    "margin = -0.4711": ("margin", "[0, 1)"),
    "count = 0": ("count", "a whole number from 1 to 5"),
    "count = 4711": ("count", "a whole number from 1 to 5"),
    "count = 2.4711": ("count", "a whole number"),
    "count = true": ("count", "a whole number"),
    "on = 1": ("on", "true or false"),
    'on = "canary-4711"': ("on", "true or false"),
    'until = "2031-01-01"': ("until", "a date"),
    "until = 2031-01-01T00:00:00": ("until", "a date"),
    "until = 2031-01-01T00:00:00Z": ("until", "a date"),
    "until = 00:00:00": ("until", "a date"),
    "low = -10.4711": ("low", "[-10, 10]"),
    'low = "canary-4711"': ("low", "a number"),
    "edges = 4711": ("edges", "a list"),
    'edges = [1, "canary-4711"]': ("edges[1]", "a number"),
    'words = "canary-4711"': ("words", "a list"),
    "words = [1]": ("words[0]", "text"),
    'inner = "canary-4711"': ("inner", "a table"),
    "inner = {depth = 4711}": ("inner.depth", "a whole number from 1 to 3"),
    "inner = {}": ("inner.depth", "is missing"),
    'inner = {depth = 1, label = "canary-4711-and-more"}': ("inner.label", "text of 1 to 12 characters"),
    "rows = [{depth = 1}, {depth = 4711}]": ("rows[1].depth", "a whole number from 1 to 3"),
    'rows = ["canary-4711"]': ("rows[0]", "a table"),
    "rows = {depth = 1}": ("rows", "a list"),
    "shares = [4711]": ("shares", "a table"),
    "shares = {books = 4711}": ("shares.books", "[0, 1]"),
    'shares = {books = "canary-4711"}': ("shares.books", "a number"),
    'shade = "canary-4711"': ("shade", "unknown key"),
    "inner = {depth = 1, width = 4711}": ("inner.width", "unknown key"),
}


@pytest.mark.parametrize("line", WRONG)
def test_each_broken_rule_is_one_fault_with_its_place_and_never_the_value(file, line):
    place, rule = WRONG[line]
    key = line.split(" ")[0]
    kept = "".join(f"{other}\n" for other in GOOD.splitlines() if not other.startswith(f"{key} "))
    path = file(kept + line + "\n")
    (fault,) = faults(path)
    assert fault.place == f"{path}: {place}"
    assert rule in fault.rule


def test_an_unknown_key_is_answered_with_the_known_ones(file):
    (fault,) = faults(file(GOOD + "Rate = 1\n"))
    for known in ("rate", "margin", "colour"):
        assert known in fault.fix


@pytest.mark.parametrize(
    ("missing", "allowed"),
    [("name", "text of 1 to 12 characters"), ("colour", "one of red, green"), ("rate", "(0, 1]")],
)
def test_a_missing_key_is_answered_with_what_it_may_hold(file, missing, allowed):
    path = file("".join(f"{line}\n" for line in GOOD.splitlines() if not line.startswith(missing)))
    (fault,) = faults(path)
    assert fault.place == f"{path}: {missing}"
    assert fault.rule == "is missing"
    assert allowed in fault.fix


def test_all_faults_of_a_file_are_reported_at_once(file):
    path = file(
        'name = 1\nrate = 4711\nshade = "canary-4711"\ncount = 0\n[inner]\nlabel = ""\n[[rows]]\ndepth = 9\n[[rows]]\n'
    )
    places = [fault.place.removeprefix(f"{path}: ") for fault in faults(path)]
    expected = ["name", "colour", "rate", "shade", "count", "inner.label", "inner.depth", "rows[0].depth"]
    assert sorted(places) == sorted([*expected, "rows[1].depth"])
    with pytest.raises(FileFault) as caught:
        read(Outer, path)
    assert len(str(caught.value).splitlines()) == len(places)


def test_a_mapping_that_is_no_table_is_a_fault():
    for value in ([], "canary-4711", None, 4711):
        with pytest.raises(FileFault) as caught:
            parse(Outer, value, place="plan")
        assert [fault.place for fault in caught.value.faults] == ["plan"]
        assert "4711" not in str(caught.value)


def test_places_in_a_message_that_is_no_file_are_joined_by_dots():
    with pytest.raises(FileFault) as caught:
        parse(Outer, {"name": "n", "colour": "red", "rate": 0.5, "inner": {"depth": 9}}, place="plan")
    assert [fault.place for fault in caught.value.faults] == ["plan.inner.depth"]


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b'name = "canary-4711',
        b"canary-4711",
        b"name = 'a'\nname = 'canary-4711'\n",
        b"until = 2031-02-30\n",
        b"count = 4711" + b"0" * 5000 + b"\n",
        b"edges = " + b"[" * 20_000 + b"]" * 20_000,
        b'name = "canary-4711\xff"\n',
    ],
    ids=["open text", "no key", "twice", "no such day", "endless number", "endless nesting", "not UTF-8"],
)
def test_what_is_not_toml_is_one_fault_that_names_the_file(file, content):
    path = file(content)
    (fault,) = faults(path)
    assert fault.place == str(path)


def test_a_file_that_cannot_be_read_is_a_fault_that_names_it(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "none" / "a.toml"):
        (fault,) = faults(path)
        assert "cannot be read" in fault.rule
