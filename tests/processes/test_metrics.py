"""Metrics: what may be counted, and how it reads."""

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coterie.privacy.errors import CoterieError
from coterie.processes.metrics import METRICS, ChildMetrics, Metrics
from coterie.processes.supervise import State


def read(metrics):
    """Return {(sample, labels): value}, by the library's own parser of the format."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_counters_and_gauges_read_as_they_were_set():
    metrics = Metrics()
    metrics.count("coterie_messages", kind="train")
    metrics.count("coterie_messages", 2, kind="train")
    metrics.count("coterie_refusals", code="unavailable")
    metrics.set("coterie_last_round", 7)
    metrics.set("coterie_certificate_expiry_seconds", 1_800_000_000.0, certificate="node")
    assert read(metrics) == {
        ("coterie_messages_total", (("kind", "train"),)): 3.0,
        ("coterie_refusals_total", (("code", "unavailable"),)): 1.0,
        ("coterie_last_round", ()): 7.0,
        ("coterie_certificate_expiry_seconds", (("certificate", "node"),)): 1_800_000_000.0,
    }


def test_what_a_supervisor_knows_is_taken_over_and_counters_never_fall():
    metrics = Metrics()
    metrics.watch({"worker": State(11, 3, 0.5), "supernode": State(None, 0, None)})
    metrics.watch({"worker": State(12, 4, 0.5), "supernode": State(13, 0, 0.5)})
    metrics.total("coterie_bytes", 1000, direction="sent")
    metrics.total("coterie_bytes", 200, direction="sent")  # whoever counts began anew
    found = read(metrics)
    assert found["coterie_restarts_total", (("process", "worker"),)] == 4.0
    assert found["coterie_up", (("process", "supernode"),)] == 1.0
    assert found["coterie_bytes_total", (("direction", "sent"),)] == 1200.0


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("coterie_rows", {}),
        ("coterie_last_round", {}),  # a gauge
        ("coterie_messages", {}),
        ("coterie_messages", {"kind": "train", "customer": "4711"}),
    ],
)
def test_nothing_is_counted_that_is_not_listed(name, labels):
    with pytest.raises(CoterieError, match="no counter with these labels"):
        Metrics().count(name, **labels)
    with pytest.raises(CoterieError):
        Metrics().set("coterie_messages", 1.0, kind="train")


def test_a_label_is_a_short_word_or_other_and_there_are_few():
    metrics = Metrics()
    for kind in ("canary@example.com\n", "A B", "x" * 65, ""):
        metrics.count("coterie_messages", kind=kind)
    for number in range(500):
        metrics.count("coterie_messages", kind=f"kind-{number}")
    found = read(metrics)
    assert len(found) < 110
    assert sum(found.values()) == 504
    assert "canary" not in metrics.text().decode()


def test_the_listed_labels_are_of_code_and_never_of_data():
    """Whoever lists another label has to think of it here."""
    assert {label for metric in METRICS.values() for label in metric.labels} == {
        "process",
        "kind",
        "code",
        "outcome",
        "direction",
        "certificate",
    }


def test_threads_lose_no_count():
    metrics = Metrics()
    threads = [
        threading.Thread(target=lambda: [metrics.count("coterie_messages", kind="train") for _ in range(500)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(metrics)["coterie_messages_total", (("kind", "train"),)] == 4000.0


def test_a_supervisors_children_are_looked_up_whenever_metrics_are_asked_for():
    states = {"worker": State(11, 0, 0.5)}
    metrics = ChildMetrics(lambda: states)
    assert read(metrics)["coterie_up", (("process", "worker"),)] == 1.0
    states["worker"] = State(None, 2, 0.5)
    found = read(metrics)
    assert found["coterie_up", (("process", "worker"),)] == 0.0
    assert found["coterie_restarts_total", (("process", "worker"),)] == 2.0
