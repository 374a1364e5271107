"""Counts of a child process: written for the supervisor, taken over by its metrics, and never in the way."""

import json
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coterie.processes.metrics import ChildMetrics
from coterie.processes.supervise import State
from coterie.processes.tally import Tally, counts


def read(metrics):
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def counted(folder):
    return {(one.name, tuple(one.labels.values())): one.total for one in counts(folder, "worker")}


def test_what_was_counted_is_read_once_it_is_written(tmp_path):
    tally = Tally(tmp_path, "worker")
    tally.count("coterie_messages", kind="train")
    tally.count("coterie_messages", 2, kind="train")
    tally.count("coterie_refusals", code="awaiting")
    assert counted(tmp_path) == {}
    tally.write()
    assert counted(tmp_path) == {("coterie_messages", ("train",)): 3.0, ("coterie_refusals", ("awaiting",)): 1.0}
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(counts(tmp_path, "gateway")) == []


def test_metrics_go_on_where_a_child_starts_again_from_nothing(tmp_path):
    metrics = ChildMetrics(lambda: {"worker": State(1, 0, 0.0)}, lambda child: counts(tmp_path, child))
    first = Tally(tmp_path, "worker")
    first.count("coterie_messages", 5, kind="train")
    first.write()
    assert read(metrics)["coterie_messages_total", ("train",)] == 5.0
    assert read(metrics)["coterie_messages_total", ("train",)] == 5.0
    second = Tally(tmp_path, "worker")
    second.count("coterie_messages", 2, kind="train")
    second.write()
    assert read(metrics)["coterie_messages_total", ("train",)] == 7.0


NEGATIVE = b'[{"name": "coterie_messages", "labels": {"kind": "train"}, "total": -1}]'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"7",
        b"[7]",
        b'[{"name": 1}]',
        b'[{"name": "x", "labels": [], "total": "y"}]',
        b"\xff" * 9,
        NEGATIVE,
        b"[" * 9999,
    ],
)
def test_a_damaged_file_counts_nothing(tmp_path, content):
    Tally(tmp_path, "worker").write()
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert counted(tmp_path) == {}


def test_what_no_metric_is_called_is_left_out(tmp_path):
    rows = [
        {"name": "coterie_rows", "labels": {}, "total": 7},
        {"name": "coterie_messages", "labels": {"customer": "x"}, "total": 7},
        {"name": "coterie_nodes", "labels": {}, "total": 7},
        {"name": "coterie_messages", "labels": {"kind": "train"}, "total": 1},
    ]
    Tally(tmp_path, "worker").write()
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps(rows))
    metrics = ChildMetrics(lambda: {"worker": State(1, 0, 0.0)}, lambda child: counts(tmp_path, child))
    assert {key: value for key, value in read(metrics).items() if value in (7.0, 1.0)} == {
        ("coterie_up", ("worker",)): 1.0,
        ("coterie_messages_total", ("train",)): 1.0,
    }


def test_where_nothing_can_be_written_the_work_goes_on(tmp_path):
    tally = Tally(tmp_path / "missing", "worker")
    tally.count("coterie_messages", kind="train")
    tally.write()
    assert not (tmp_path / "missing").exists()
