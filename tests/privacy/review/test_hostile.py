"""Bundles that were made to hurt the reviewer: every one ends in a verdict, and nothing raw reaches a terminal.

The partner signs whatever it likes, so every text, number and shape in a bundle is a stranger's.
"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coterie.cli.main import app
from coterie.privacy.calibration import calibrate
from coterie.privacy.canonical import canonical
from coterie.privacy.events import event_to_dict
from coterie.privacy.plan import Tuning
from coterie.privacy.review.bundle import BundleFault
from coterie.tests.clients.federation import CONTRACT
from coterie.tests.privacy.review.bundles import (
    KINDS,
    NOWHERE,
    Story,
    failing,
    made,
    opened,
    resigned,
    verdict_of,
    wanting,
)

ROOT = Path(__file__).parents[3]
NASTY = "<script>alert(1)</script>[bold red]\x1b[2J\x1b]0;owned\x07\u202e\u2066\x00\x9b31m\r\n\u2028{{ 7*7 }}%s"
TEXTS = {
    "html": "<img src=x onerror=alert(1)>",
    "terminal": "\x1b[31mVERIFIED\x1b[0m\r\x1b[2K",
    "reversed": "\u202eelbadaer",
    "nul": "a\x00b",
    "everything": NASTY,
    "surrogate pair": "\U0001f600" * 20,
    "long": "x" * 10**6,
}
NUMBERS = [
    *("1" + "0" * 400, "1" + "0" * 5000, "1e308", "-1e308", "1e400", "-0", "-0.0", "0.0", "1.0", "1E5", "NaN"),
    *("Infinity", "-Infinity", "9007199254740991", "9007199254740992", "9999999999999999", "5e-324", "1e-300"),
    *("0.30000000000000004", "true", "null", '"1"', "[]", "2147483648", "1e+21", "1e21", "-1", "0"),
]


def places(value, path=()):
    """Every place in a JSON value with what stands there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key), item
        yield from places(item, (*path, key))


def whole():
    """A bundle with a line of every kind, taken apart."""
    story = Story()
    plan = story.plan(contract__columns=CONTRACT.columns[:2])
    story.consent(plan)
    story.receive(plan, story.steps(plan))
    story.say("refusal", {"release": NOWHERE, "plan": "", "codes": ["budget"]})
    return story


def put(shown, path, value):
    """Let another value stand at a place of a bundle: (kind, which, ...)."""
    where = {"header": [shown.header], **shown.parts}
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value


def everywhere(story, kinds=("header", *KINDS)):
    """Every place in a bundle: its path, and what stands there."""
    shown = story.opened()
    for kind in kinds:
        for number, value in enumerate([shown.header] if kind == "header" else shown.parts[kind]):
            yield (kind, number), value
            yield from places(value, (kind, number))


def judged(bundle, **options):
    """What a review says, in one word; anything but a verdict or a fault is the test's to show."""
    try:
        return verdict_of(bundle, **options).status
    except BundleFault as fault:
        return "fault" if str(fault).isprintable() else f"raw fault {fault!r}"


def raw(shown, story, token):
    """Sign a bundle in which a token stands where the text "@@" stood."""
    return resigned(shown, story.partner, write=lambda value: canonical(value).replace(b'"@@"', token))


# --- texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_hostile_text_in_any_field_ends_in_a_verdict(text):
    story, said = whole(), []
    for path, value in everywhere(story):
        if isinstance(value, str):
            shown = story.opened()
            put(shown, path, text)
            said.append(judged(resigned(shown, story.partner)))
    assert len(said) > 100
    assert set(said) <= {"fails", "fault", "open", "holds"}
    assert said.count("fails") > len(said) / 2


@pytest.mark.parametrize("name", ["verify --quick", "budget", "explain"])
def test_nothing_hostile_is_printed_raw_from_any_field(tmp_path, name):
    story, path = whole(), tmp_path / "hostile.bundle"
    command, *options = name.split()
    printed = 0
    for place, value in everywhere(story):
        if not isinstance(value, str):
            continue
        shown = story.opened()
        put(shown, place, NASTY[:60] if len(place) > 2 else NASTY)
        path.write_bytes(resigned(shown, story.partner))
        done = CliRunner().invoke(app, ["audit", command, *options, str(path)])
        raised = done.exception if not isinstance(done.exception, SystemExit) else None
        assert raised is None or isinstance(raised, BundleFault), (place, raised)
        assert all(c == "\n" or c.isprintable() for c in done.output), (place, done.output)
        printed += raised is None
    assert printed > 50


def hostile_story():
    """A study in which every name that a partner or a coordinator may choose is hostile, and every rule is kept."""
    name, second, customer = "<b>alert(1)[red]{{7*7}}%s\u2028\u202e\u2066", "\U000e0041[/]", "\u202eid"
    columns = tuple(
        type(column)(**{**vars(column), "name": new})
        for column, new in zip(CONTRACT.columns[:2], (name, second), strict=True)
    )
    story = Story(purposes=[name], columns=[name, second], labels=["\u202ebought"], customer=customer)
    plan = story.plan(
        name=name,
        purpose=name,
        contract__columns=columns,
        contract__label="\u202ebought",
        contract__customer=customer,
        tuning=Tuning(configurations=3, data=name),
    )
    story.consent(plan)
    story.receive(plan, story.steps(plan))
    return story


def ran(*arguments):
    """Run the real command."""
    command = [sys.executable, "-c", "from coterie.cli.main import main; main()", "audit", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "PYTHONUTF8": "1"}
    return subprocess.run(command, capture_output=True, check=False, env=environment, stdin=subprocess.DEVNULL)


def clean(data):
    """Whether bytes are text of which a terminal does nothing but show it."""
    return all(character == "\n" or character.isprintable() for character in data.decode())


@pytest.mark.parametrize("command", ["verify", "explain", "budget", "diff", "verify --json", "explain --json"])
def test_the_command_shows_hostile_names_and_a_terminal_does_nothing_of_what_they_say(tmp_path, command):
    path = tmp_path / "hostile.bundle"
    story = hostile_story()
    shown = story.opened()
    shown.header |= {"software": NASTY, "made": NASTY}
    path.write_bytes(resigned(shown, story.partner, story.coordinator))
    name, *options = command.split()
    done = ran(name, *options, path, *([path] if name == "diff" else []))
    assert done.returncode == 0, done.stderr.decode()
    assert clean(done.stdout)
    assert clean(done.stderr)
    if options:
        json.loads(done.stdout, parse_constant=pytest.fail)
    else:
        assert b"alert(1)" in done.stdout or name in {"diff", "budget"}


# --- numbers, shapes and sizes --------------------------------------------------------------------------


@pytest.mark.parametrize("token", NUMBERS, ids=[number[:20] for number in NUMBERS])
def test_a_hostile_number_in_any_field_ends_in_a_verdict(token):
    story, said = whole(), []
    for path, value in everywhere(story):
        if isinstance(value, int | float) and path[2:4] != ("body", "update_curve"):
            shown = story.opened()
            put(shown, path, "@@")
            said.append(judged(raw(shown, story, token.encode())))
    assert len(said) > 60
    assert set(said) <= {"fails", "fault", "open", "holds"}


@pytest.mark.parametrize("field", ["updates", "histograms"])
@pytest.mark.parametrize("many", [10**5, 10**9, 2**53 - 1])
def test_a_consent_that_declares_very_many_charges_is_refused_and_not_counted_out(field, many):
    story = Story()
    plan = story.plan()
    story.consent(plan, **{field: many})
    verdict = verdict_of(story.bundle(), accounting=True)
    assert failing(verdict)["consents"] == 3


@pytest.mark.parametrize("value", [1e-300, 1e-6, 1e-3, 1e9, 1e308])
@pytest.mark.parametrize("kind", ["update", "histogram"])
def test_a_consent_to_an_absurd_mechanism_ends_in_a_verdict_of_the_accountants_too(kind, value):
    story = Story()
    plan = story.plan()
    event = event_to_dict(getattr(calibrate(plan), kind))
    place = story.consent(plan, **{kind: {**event, "noise_multiplier" if kind == "update" else "sigma": value}})
    del story.parts["entry"][place - 1]["body"][f"{kind}_curve"]
    judged_with = judged(story.bundle(), accounting=True)
    assert judged_with == ("fails" if value < 1 else judged_with)


@pytest.mark.parametrize("depth", [20, 100, 300, 400, 480, 490, 500, 600, 900, 980, 990, 10**5])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "tables"])
def test_values_within_values_without_end_end_in_a_verdict(depth, pair):
    story, said = whole(), []
    token = pair[0] * depth + b"1" + pair[1] * depth
    for path, value in everywhere(story):
        if isinstance(value, dict | list) and (len(path) < 5 or path[0] in {"plan", "record", "card"}):
            shown = story.opened()
            inside = {"entry": ("body",), "header": ("parts",)}.get(path[0], ()) if len(path) == 2 else ()
            put(shown, (*path, *inside), "@@")
            said.append(judged(raw(shown, story, token), accounting=True))
    assert len(said) > 30
    assert set(said) <= {"fails", "fault", "open", "holds"}


def test_a_flag_is_not_a_number():
    story = Story()
    lines = story.bundle().splitlines()
    shown = story.opened()
    signed = resigned(shown, story.partner, write=lambda value: canonical(value).replace(b'"seq":1}', b'"seq":true}'))
    assert signed.splitlines()[-4:-1] != lines[-4:-1]
    assert judged(signed) in {"fails", "fault"}


def test_a_budget_of_next_to_nothing_has_no_share_that_json_cannot_say(tmp_path):
    story = Story(budget__lifetime_epsilon=1e-9)
    plan = story.plan()
    story.consent(plan)
    story.charge(plan)
    path = tmp_path / "poor.bundle"
    path.write_bytes(story.bundle())
    for command in (["verify", "--quick", "--json"], ["budget", "--json"], ["budget"]):
        done = CliRunner().invoke(app, ["audit", *command, str(path)])
        assert done.exit_code == 1, done.exception
        if "--json" in command:
            json.loads(done.output, parse_constant=pytest.fail)


def test_a_line_without_end_is_a_finding(tmp_path):
    story = Story()
    first, *_ = story.bundle().splitlines(keepends=True)
    path = tmp_path / "long.bundle"
    with path.open("wb") as file:
        file.write(first)
        file.writelines([b'{"checkpoint":"', *[b"x" * (1 << 20)] * 70, b'"}\n'])
    found = wanting(verdict_of(path.read_bytes()))
    assert found["form"] == ("fails", 0)
    path.write_bytes(b"{" + b" " * (70 << 20))
    with pytest.raises(BundleFault, match="longer than"):
        verdict_of(path.read_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_a_promise_of_a_thousand_million_lines_is_not_believed(kind):
    story = Story()
    lines = story.bundle().splitlines(keepends=True)
    header = json.loads(lines[0])
    header["parts"][kind] = 10**9
    found = wanting(verdict_of(b"".join([canonical(header) + b"\n", *lines[1:]])))
    assert found["form"][0] == "fails"
    header["parts"][kind] += 1
    with pytest.raises(BundleFault, match="out of range"):
        verdict_of(b"".join([canonical(header) + b"\n", *lines[1:]]))


# --- files and exit codes -------------------------------------------------------------------------------


def missing(path):
    pass


def folder(path):
    path.mkdir()


def empty(path):
    path.touch()


def binary(path):
    path.write_bytes(bytes(range(256)) * 4096)


def other_json(path):
    path.write_text('{"bundle":"coterie/bundle/v2"}\n')


def no_lines(path):
    path.write_bytes(b"\x1b[31m" * 100)


def link_to_itself(path):
    path.symlink_to(path)


@pytest.mark.parametrize("make", [missing, folder, empty, binary, other_json, no_lines, link_to_itself])
def test_what_is_no_bundle_is_said_to_be_none(tmp_path, make):
    path, whole_one = tmp_path / "it.bundle", tmp_path / "whole.bundle"
    make(path)
    whole_one.write_bytes(Story().bundle())
    earlier = CliRunner().invoke(app, ["audit", "verify", str(whole_one), "--earlier", str(path)])
    assert isinstance(earlier.exception, BundleFault) or earlier.exit_code == 1
    for command in (["verify", path], ["verify", whole_one, path], ["budget", path], ["explain", path]):
        done = CliRunner().invoke(app, ["audit", *map(str, command)])
        assert isinstance(done.exception, BundleFault), (command, done.exception, done.output)
        assert str(path) in str(done.exception)
        assert done.exception.faults[0].fix


def test_a_pipe_whose_writer_hangs_up_is_no_bundle(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: os.close(os.open(path, os.O_WRONLY)), daemon=True)
    writer.start()
    done = ran("verify", path)
    assert done.returncode == 2
    assert clean(done.stderr)
    assert b"Traceback" not in done.stderr
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # lets the writer go where nobody came
    writer.join()
    os.close(reader)


def holding(story, plan):
    pass


def broken(story, plan):
    story.charge(plan)


def undecided(story, plan):
    story.say("tomorrow", {})


@pytest.mark.parametrize(("change", "code"), [(holding, 0), (broken, 1), (undecided, 3), (None, 2)])
def test_the_exit_code_says_what_was_found(tmp_path, change, code):
    path = tmp_path / "it.bundle"
    if change is not None:
        story = whole()
        change(story, story.plan(contract__columns=CONTRACT.columns[:2]))
        path.write_bytes(story.bundle())
    done = ran("verify", "--json", path)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    if change is None:
        assert done.stdout == b""
        assert b"error: " in done.stderr
    else:
        told = json.loads(done.stdout)
        assert told["bundles"][0]["status"] == {0: "holds", 1: "fails", 3: "open"}[code]
        assert told["across"] is None


def test_a_bundle_that_fails_and_one_that_is_open_fail_together(tmp_path):
    paths = []
    for number, change in enumerate((undecided, broken)):
        story = Story()
        plan = story.plan()
        story.consent(plan)
        story.charge(plan)
        change(story, plan)
        paths.append(tmp_path / f"{number}.bundle")
        paths[-1].write_bytes(story.bundle())
    assert CliRunner().invoke(app, ["audit", "verify", "--quick", *map(str, paths)]).exit_code == 1


def test_partners_that_are_all_there_are_verified_together(tmp_path):
    known = made()
    paths = []
    for name, bundle in known.bundles.items():
        paths.append(tmp_path / f"{name}.bundle")
        paths[-1].write_bytes(bundle)
    done = CliRunner().invoke(app, ["audit", "verify", "--json", *map(str, paths)])
    assert done.exit_code == 0
    assert json.loads(done.output)["across"]["status"] == "holds"
    assert CliRunner().invoke(app, ["audit", "verify", "--quick", *map(str, paths[:2])]).exit_code == 3
    assert opened(known.bundle).header["partner"] == "amber"


# --- memory ---------------------------------------------------------------------------------------------

_PEAK = """
import resource, sys
from pathlib import Path
from coterie.privacy.review.verify import verify_bundle
verdict = verify_bundle(Path(sys.argv[1]), accounting=False)
assert verdict.status != "fails", verdict.line
print(verdict.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_ledger(tmp_path):
    spec = importlib.util.spec_from_file_location("long_bundles", ROOT / "benchmarks" / "ledger.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    peaks = {}
    for count in (30_000, 300_000):
        path = tmp_path / f"{count}.bundle"
        module.write_long(path, count)
        command = [sys.executable, "-c", _PEAK, str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / ".dev")}
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        size, peaks[count] = map(int, done.stdout.split())
        assert size == count
        path.unlink()
    # Ten times the entries: what is kept are a few words for each study and charge.
    assert peaks[300_000] < 2 * peaks[30_000]
