"""Reaching the coordinator before the first study: servers with every fault, and the real ones."""

import contextlib
import datetime
import email.utils
import itertools
import socket
import ssl
import threading
import time

import httpx
import pytest

from coterie.clients.preflight import run_checks
from coterie.clients.running.reaching import checks_there
from coterie.privacy.clock import now
from coterie.privacy.joining.certificates import Pair, expiry, issue_server, make_authority
from coterie.processes.held import hold, running
from coterie.server.books import Books
from coterie.server.running.operator import operator
from coterie.simulations.deployment import started
from coterie.tests.clients.joinedsite import admitted, copied, joined_site

DAY = datetime.timedelta(days=1)
PATIENCE = 90.0  # seconds


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return joined_site(tmp_path_factory.mktemp("reaching") / "site")


@pytest.fixture
def bank(site, tmp_path):
    return copied(site, tmp_path / "bank")


def found(workspace, clock=now):
    return {check.name: check for check in run_checks(checks_there(workspace, clock))}


def request(secure):
    """Read a whole request; a server that leaves some of it unread resets the connection."""
    stream = secure.makefile("rb")
    first = stream.readline()
    lines = list(itertools.takewhile(bytes.strip, stream))
    lengths = [int(line.partition(b":")[2]) for line in lines if line.lower().startswith(b"content-length:")]
    stream.read(sum(lengths))
    return first


def answer(listening, context, said):
    """Answer requests, one connection after another, until the socket is closed."""
    while True:
        try:
            raw, _ = listening.accept()
        except OSError:
            return
        with contextlib.suppress(OSError), raw, context.wrap_socket(raw, server_side=True) as secure:
            if (asked := request(secure)).startswith(b"GET /health "):
                secure.sendall(said())
            elif asked:
                secure.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


def dated():
    date = email.utils.format_datetime(now(), usegmt=True)
    return f"HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()


def undated():
    return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@contextlib.contextmanager
def server(folder, shown: Pair, said=dated):
    """A server on loopback with a certificate; yields its port."""
    (folder / "shown.pem").write_bytes(shown.certificate)
    (folder / "shown.key").write_bytes(shown.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "shown.pem", folder / "shown.key")
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=answer, args=(listening, context, said), daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(timeout=10)


@contextlib.contextmanager
def elsewhere(site, bank, folder, *, issued, said=dated):
    """A server that the partner's admission names, with a certificate of that age."""
    authority = make_authority("ministry", issued)
    with server(folder, issue_server(authority, "localhost", issued), said) as port:
        admitted(site, bank, address=f"localhost:{port}", authority=authority.certificate.decode())
        yield


def test_a_sound_server_passes_and_what_is_no_superlink_is_named(site, bank, tmp_path):
    with elsewhere(site, bank, tmp_path, issued=now()):
        checks = found(bank)
    assert list(checks) == ["coordinator", "clock", "node"]
    assert checks["coordinator"].fine
    assert "TLSv1.3" in checks["coordinator"].said
    assert f"certificate until {(now() + 365 * DAY).date()}" in checks["coordinator"].said
    assert checks["clock"].fine
    assert not checks["node"].fine
    assert "is not taken by the coordinator (status 403). Fix: ask the coordinator to look" in checks["node"].said


def test_a_proxy_of_the_environment_is_not_asked_for_the_time(site, bank, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy, elsewhere(site, bank, tmp_path, issued=now()):
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        check = dict(checks_there(bank, now))["clock"]
        assert "of the coordinator's" in check()


def test_a_closed_port_is_named(site, bank):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    admitted(site, bank, address=f"localhost:{port}")
    checks = found(bank)
    assert not [name for name, check in checks.items() if check.fine]
    said = f"localhost:{port}: cannot be reached (Connection refused). Fix: check network and firewall"
    assert said in checks["coordinator"].said
    assert "Fix: ask whether its gateway runs" in checks["clock"].said
    assert "Fix: see the checks before this one" in checks["node"].said


def test_the_certificate_of_another_authority_is_named(site, bank, tmp_path):
    stranger = issue_server(make_authority("ministry", now()), "localhost", now())
    with server(tmp_path, stranger) as port:
        admitted(site, bank, address=f"localhost:{port}")
        checks = found(bank)
    assert not [name for name, check in checks.items() if check.fine]
    assert "a certificate that is not accepted (" in checks["coordinator"].said
    assert "Fix: ask the coordinator to renew it" in checks["coordinator"].said


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (400 * DAY, "a certificate that is not accepted (certificate has expired). Fix: ask the coordinator to renew"),
        (360 * DAY, "a certificate that ends on "),
    ],
)
def test_a_certificate_that_has_ended_or_soon_will_is_named(site, bank, tmp_path, age, said):
    with elsewhere(site, bank, tmp_path, issued=now() - age):
        check = found(bank)["coordinator"]
    assert not check.fine
    assert said in check.said
    assert "Fix: ask the coordinator to renew it" in check.said


@pytest.mark.parametrize("minutes", [-3, 3])
def test_clocks_that_differ_are_named(site, bank, tmp_path, minutes):
    with elsewhere(site, bank, tmp_path, issued=now()):
        near = found(bank, lambda: now() + datetime.timedelta(seconds=20 * minutes))["clock"]
        far = found(bank, lambda: now() + datetime.timedelta(minutes=minutes))["clock"]
    assert near.fine
    assert not far.fine
    assert "this machine's clock: differs from the coordinator's by 1" in far.said
    assert "more than 120. Fix: synchronise both clocks (NTP)" in far.said


def test_a_server_that_tells_no_time_is_named(site, bank, tmp_path):
    with elsewhere(site, bank, tmp_path, issued=now(), said=undated):
        check = found(bank)["clock"]
    assert not check.fine
    assert "does not tell its time (KeyError). Fix: ask whether its gateway runs" in check.said


def test_a_node_that_runs_is_not_shown_twice(bank):
    with hold(bank.run, clock=now) as held:
        held.tell({"health": 1})
        check = found(bank)["node"]
    assert check.fine
    assert "coterie partner status" in check.said


@pytest.fixture(scope="module")
def live(site):
    """The coordinator as its command starts it, and no partner."""
    with started(site, []):
        yield site


def awaited(workspace, wanted):
    """Check the node until it is found so, or time is up; return what was said last."""
    end = time.monotonic() + PATIENCE
    while not wanted(check := found(workspace)["node"]) and time.monotonic() < end:
        time.sleep(0.2)
    return check


def online(site):
    with operator(site.office.settings.superlink_port, site.office.loopback_authority) as at:
        return {node.name for node in at.nodes() if node.online}


def metrics(site):
    """What the coordinator's service tells Prometheus."""
    port = running(site.office.run).ports["health"]
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


@pytest.mark.slow
def test_a_real_coordinator_knows_the_partners_that_it_admitted_until_they_are_revoked(live, tmp_path):
    amber, birch = copied(live, tmp_path / "amber"), copied(live, tmp_path / "birch", "birch")
    # Nodes are registered a moment after the start.
    for workspace in (amber, birch):
        known = awaited(workspace, lambda check: check.fine)
        assert known.fine, known.said
    assert {name: check.said for name, check in found(amber).items() if not check.fine} == {}
    assert "amber" not in online(live)  # it was shown, and taken back: the node can start
    with Books(live.office.books_url, now) as books:
        books.revoke("birch")
    gone = awaited(birch, lambda check: not check.fine)
    assert "this node's key: is not taken by the coordinator (status 401). Fix: ask whether the admission" in gone.said
    assert found(amber)["node"].fine
    expected = {'coterie_requests_total{outcome="passed"}', 'coterie_requests_total{outcome="refused"}'}
    expected |= {'coterie_bytes_total{direction="sent"}', "coterie_nodes"}
    end = time.monotonic() + PATIENCE
    while expected - set(measured := metrics(live)) and time.monotonic() < end:
        time.sleep(0.2)
    assert expected <= set(measured)
    assert measured["coterie_nodes"] == 0.0
    ends = measured['coterie_certificate_expiry_seconds{certificate="gateway"}']
    assert ends == expiry(live.office.certificate.read_bytes()).timestamp()
