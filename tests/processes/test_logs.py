"""What a log says, and what it cannot be made to say."""

import datetime
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coterie.processes.logs import KeptFile, event, hush, json_log

ROOT = Path(__file__).parents[2]
CANARY = "canary-7f3a91"
MOMENT = datetime.datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=datetime.UTC)


@pytest.fixture
def log(tmp_path):
    logger = json_log(tmp_path / "log", component="worker", clock=lambda: MOMENT)
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


def lines(folder):
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_an_event_is_one_line_of_json_for_its_owner_alone(log, tmp_path):
    event(log, "answered", round=3, seconds=0.25, partner="bank", first=True, of=None, steps=[1, "b", (2,)])
    assert (tmp_path / "log").read_text() == (
        '{"at": "2026-03-01T12:00:00.250+00:00", "level": "info", "component": "worker", "event": "answered", '
        '"round": 3, "seconds": 0.25, "partner": "bank", "first": true, "of": null, "steps": [1, "b", "<tuple>"]}\n'
    )
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_no_field_can_pose_as_the_line_itself(log, tmp_path):
    event(log, "answered", at="never", component="other", event="nothing")
    (line,) = lines(tmp_path)
    assert (line["event"], line["component"], line["at_"], line["event_"]) == ("answered", "worker", "never", "nothing")


class Row:
    def __repr__(self):
        return CANARY

    __str__ = __repr__


def raised():
    try:
        raise ValueError(CANARY) from KeyError(CANARY)
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (raised(), "<ValueError>"),
        (Row(), "<Row>"),
        ({CANARY: 1}, "<dict>"),
        (CANARY.encode(), "<bytes>"),
        (np.float64(0.731_313), "<float64>"),
        (np.array([0.731_313]), "<ndarray>"),
        ([raised(), Row()], ["<ValueError>", "<Row>"]),
        ([0.5] * 65, "<list>"),
        (float("nan"), "not finite"),
        ("a" * 201, "a" * 197 + "..."),
        ("two\nlines \x1b[31m", "two?lines ?[31m"),
    ],
)
def test_of_anything_but_numbers_and_short_strings_the_type_alone_is_written(log, tmp_path, value, written):
    event(log, "answered", what=value)
    (line,) = lines(tmp_path)
    assert line["what"] == written
    assert CANARY not in (tmp_path / "log").read_text()
    assert "731313" not in (tmp_path / "log").read_text()


def test_ordinary_logging_leaves_no_text(log, tmp_path, capfd):
    log.getChild("deep").warning("row %s", CANARY)
    log.error(CANARY)
    # A fault of the caller's; the ordinary way prints the arguments. Not by the logger: pytest listens there.
    log.handlers[0].handle(logging.LogRecord("coterie", logging.ERROR, "x.py", 1, "%d", (CANARY,), None))
    event(log, CANARY.upper())
    try:
        raise ValueError(CANARY)
    except ValueError:
        log.exception("failed: %s", CANARY)
    text = (tmp_path / "log").read_text()
    assert CANARY not in text.lower()
    assert "Traceback" not in text
    assert [line["event"] for line in lines(tmp_path)] == ["unnamed"] * 5
    assert lines(tmp_path)[-1]["error"] == "ValueError"
    assert lines(tmp_path)[0]["where"].startswith("test_logs:")
    captured = capfd.readouterr()
    assert CANARY not in (captured.out + captured.err).lower()


CRASHES = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from coterie.privacy.clock import now
from coterie.processes.logs import hush, json_log
hush(json_log(Path(sys.argv[2]), component="worker", clock=now))
def fail(): raise ValueError({canary!r})
class Unseen:
    def __del__(self): fail()
thread = threading.Thread(target=fail); thread.start(); thread.join()
unseen = Unseen(); del unseen
fail()
"""


def test_a_crash_is_logged_by_its_type_and_printed_nowhere(tmp_path):
    code = CRASHES.replace("{canary!r}", repr(CANARY))
    command = [sys.executable, "-c", code, ROOT / ".dev", tmp_path / "log"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (done.stdout, done.stderr) == ("", "")
    assert [(line["event"], line["error"]) for line in lines(tmp_path)] == [
        ("thread-crashed", "ValueError"),
        ("crashed-unseen", "ValueError"),
        ("crashed", "ValueError"),
    ]
    assert CANARY not in (tmp_path / "log").read_text()


def test_the_hooks_are_there_before_anything_fails(log, monkeypatch):
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr("threading.excepthook", None)
    before = sys.excepthook
    hush(log)
    assert sys.excepthook is not before


def test_a_file_is_rotated_by_size_and_never_more_than_six_are_kept(tmp_path):
    file = KeptFile(tmp_path / "log", size=1000)
    for number in range(900):
        file.handle(logging.LogRecord("x", logging.INFO, "", 0, f"{number:09}", None, None))
    file.close()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["log", "log.1", "log.2", "log.3", "log.4", "log.5"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    text = "".join((tmp_path / name).read_text() for name in ("log.5", "log.4", "log.3", "log.2", "log.1", "log"))
    numbers = [int(line) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 900))
    assert len(numbers) > 500


def test_a_full_disk_loses_lines_and_stops_nobody(capfd):
    """/dev/full answers every write with "no space left on device"."""
    file = KeptFile(Path("/dev/full"), size=0)
    file.handle(logging.LogRecord("x", logging.INFO, "", 0, CANARY, None, None))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_setting_up_again_lets_the_old_file_go(tmp_path):
    for name in ("first", "second"):
        event(json_log(tmp_path / name, component=name, clock=lambda: MOMENT), "started")
    assert len((tmp_path / "first").read_text().splitlines()) == 1
    assert len(logging.getLogger("coterie").handlers) == 1


def test_a_file_that_others_could_read_is_its_owners_from_then_on(tmp_path):
    (tmp_path / "log").touch()
    (tmp_path / "log").chmod(0o644)
    KeptFile(tmp_path / "log").close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
