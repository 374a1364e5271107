"""Health, metrics and status over HTTP, to this machine alone."""

import http.client
import json
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coterie.privacy.errors import CoterieError
from coterie.processes import health as health_module
from coterie.processes.health import serve
from coterie.processes.metrics import Metrics

CANARY = "canary-7f3a91"


def get(port, path, *, method="GET", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.fixture
def state():
    return {"ok": True, "children": {"worker": {"pid": 7, "restarts": 0}}}


@pytest.fixture
def health(state):
    metrics = Metrics()
    metrics.count("coterie_refusals", code="policy")
    with serve("127.0.0.1", 0, metrics=metrics, status=lambda: state) as listening:
        yield listening


def test_metrics_parse_and_say_which_version_of_the_format_they_are(health):
    answer, body = get(health.port, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    (sample,) = [s for s in families["coterie_refusals"].samples if s.name == "coterie_refusals_total"]
    assert (sample.labels, sample.value) == ({"code": "policy"}, 1.0)


def test_health_follows_the_status(health, state):
    answer, body = get(health.port, "/health")
    assert (answer.status, json.loads(body)) == (200, {"ok": True})
    for ok in (False, None, 1, "yes"):
        state["ok"] = ok
        answer, body = get(health.port, "/health")
        assert (answer.status, json.loads(body)) == (503, {"ok": False})
    del state["ok"]
    assert get(health.port, "/health")[0].status == 503


def test_the_status_is_told_as_json(health, state):
    answer, body = get(health.port, "/status")
    assert (answer.status, json.loads(body)) == (200, state)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "example.com", "127.0.0.1.example.com"])  # noqa: S104
def test_only_a_loopback_address_is_listened_on(host):
    with pytest.raises(CoterieError, match="no loopback address"):
        serve(host, 0, metrics=Metrics(), status=dict)


def test_localhost_is_not_looked_up(monkeypatch):
    """A hosts file may say something else."""
    hosts, make = [], health_module._Server

    def server(host, *rest):
        hosts.append(host)
        return make(host, *rest)

    monkeypatch.setattr(health_module, "_Server", server)
    with serve("localhost", 0, metrics=Metrics(), status=dict) as listening:
        assert listening._server.socket.getsockname()[0] == "127.0.0.1"
    assert hosts == ["127.0.0.1"]


def test_a_port_that_is_taken_is_a_fault_with_its_fix(health):
    with pytest.raises(CoterieError, match="choose another port"):
        serve("127.0.0.1", health.port, metrics=Metrics(), status=dict)


@pytest.mark.parametrize(
    ("method", "path", "headers", "code"),
    [
        ("GET", f"/{CANARY}", {}, 404),
        ("GET", "/status?x", {}, 404),
        ("POST", "/health", {}, 405),
        ("GET", "/status", {"Host": "rebound.example.com"}, 421),
        ("GET", "/status", {"Host": "192.0.2.7:80"}, 421),
    ],
)
def test_anything_else_is_refused_in_fixed_words(health, method, path, headers, code):
    answer, body = get(health.port, path, method=method, headers=headers)
    assert answer.status == code
    assert CANARY.encode() not in body
    assert "children" not in body.decode()


def test_a_status_that_fails_tells_the_caller_nothing(capfd):
    def fails():
        raise ValueError(CANARY)

    with serve("127.0.0.1", 0, metrics=Metrics(), status=fails) as listening:
        with pytest.raises(http.client.RemoteDisconnected):
            get(listening.port, "/health")
        assert get(listening.port, "/metrics")[0].status == 200
    captured = capfd.readouterr()
    assert CANARY not in captured.out + captured.err


def test_after_its_end_nobody_listens():
    listening = serve("127.0.0.1", 0, metrics=Metrics(), status=dict)
    listening.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listening.port), timeout=5)
