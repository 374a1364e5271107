"""The gateway: in front of a stub of the SuperLink it lets a node's calls pass, and nothing and nobody else."""

import asyncio
import base64
import json
import socket
import ssl
import threading
import time

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.joining.certificates import Pair, issue_server, make_authority
from coterie.processes.logs import json_log
from coterie.server.office import Office
from coterie.server.running import gateway as running
from coterie.server.running.gateway import CALLS, Limits, gateway

CALL = "/v1/fleet/pull-messages"
CANARY = b"canary-bytes-of-an-update"
KEY = b"amber's public key"
SHOWN = base64.b64encode(KEY).decode()


class Stub:
    """Stands in for the SuperLink, and keeps what came to it."""

    def __init__(self):
        self.seen, self.answer = [], Response(b"answer")
        self.app = Starlette(
            routes=[Route("/{path:path}", self._take, methods=["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])]
        )

    async def _take(self, request):
        self.seen.append((request.method, request.url.path, dict(request.headers), await request.body()))
        return self.answer


class Door:
    """The gateway before the stub, without sockets."""

    def __init__(self, log):
        self.stub, self.log, self.at = Stub(), log, 0.0
        self.keys = {KEY: "amber"}
        self.limits = Limits(body=1000, rate=10.0, burst=5.0, seconds=0.3)
        self.transport = httpx.ASGITransport(self.stub.app)

    def ask(self, path=CALL, method="POST", key=SHOWN, *, many=1, **request):
        """Ask at the gateway; return the last answer."""
        headers = dict(request.pop("headers", {})) | ({"flwr-public-key": key} if key is not None else {})

        async def asked():
            async with httpx.AsyncClient(transport=self.transport, base_url="https://superlink") as upstream:
                app = gateway(upstream, lambda: self.keys, limits=self.limits, monotonic=lambda: self.at)
                async with httpx.AsyncClient(
                    transport=httpx.ASGITransport(app, client=("192.0.2.7", 1)), base_url="https://gate"
                ) as client:
                    url = httpx.URL("https://gate").copy_with(raw_path=path.encode())
                    return [await client.request(method, url, headers=headers, **request) for _ in range(many)]

        return asyncio.run(asked())

    def status(self, *args, **kwargs):
        return [answer.status_code for answer in self.ask(*args, **kwargs)][-1]

    def logged(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "gateway.log"
    logger = json_log(path, component="gateway", clock=now)
    yield path
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture
def door(log):
    return Door(log)


# --- what passes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CALLS))
def test_each_call_of_a_node_reaches_the_stub_of_the_superlink_and_its_answer_comes_back(door, path):
    (answer,) = door.ask(path, content=CANARY)
    assert (answer.status_code, answer.content) == (200, b"answer")
    ((method, seen, _, body),) = door.stub.seen
    assert (method, seen, body) == ("POST", path, CANARY)
    assert door.logged() == []


def test_the_calls_are_ten_of_the_fleet_and_none_that_registers():
    assert len(CALLS) == 10
    assert all(path.startswith("/v1/fleet/") and "register" not in path for path in CALLS)


def test_flowers_headers_pass_both_ways_and_others_stay_outside(door):
    door.stub.answer = Response(
        b"x", 418, {"flwr-version": "1", "content-type": "application/protobuf", "set-cookie": "a=b", "server": "s"}
    )
    flowers = {"flwr-signature": "s", "flwr-timestamp": "t", "content-type": "application/protobuf"}
    hops = {"connection": "keep-alive, flwr-signature", "te": "trailers", "upgrade": "websocket", "keep-alive": "9"}
    others = {"x-forwarded-for": "10.0.0.1", "forwarded": "for=10.0.0.1", "authorization": "Bearer x", "cookie": "a=b"}
    sent = flowers | hops | others | {"host": "other", "proxy-authorization": "x"}
    (answer,) = door.ask(headers=sent)
    ((_, _, headers, _),) = door.stub.seen
    own = {"host", "user-agent", "content-length", "connection", "accept", "accept-encoding"}
    assert set(headers) - own == {"flwr-signature", "flwr-timestamp", "flwr-public-key", "content-type"}
    assert headers["host"] == "superlink"
    assert headers["connection"] == "keep-alive"
    assert answer.status_code == 418
    assert {"flwr-version", "content-type"} <= set(answer.headers)
    assert not {"set-cookie", "server"} & set(answer.headers)


def test_health_says_ok_and_nothing_of_what_stands_behind(door):
    (answer,) = door.ask("/health", "GET", key=None)
    assert (answer.status_code, answer.content, door.stub.seen) == (200, b"ok\n", [])


# --- what does not --------------------------------------------------------------------------------------------

FORBIDDEN = [
    *(f"/v1/control/{name}" for name in ("list-runs", "start-run", "stop-run", "register-node", "list-nodes")),
    *(f"/v1/runtime/{name}" for name in ("acquire-task", "pull-task-input", "get-nodes", "push-object")),
    *("/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet", "/v1/fleet/", "/", "", "/docs"),
    *("/openapi.json", "/metrics", f"/{CALL}", f"{CALL}/", f"{CALL}/x", CALL.upper(), f"{CALL}?x=1", f"{CALL}%20"),
    *("/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs", "/v1/fleet/pull-messages/../../control"),
    *("/v1/fleet/..%2fcontrol/list-runs", "/v1//fleet/pull-messages", "/v1/fleet/pull-messages%00", "/v1/./fleet"),
    *("/v1/fleet/pull-messages;x", "/v1\\fleet\\pull-messages", "/%76%31/control/list-runs"),
]


@pytest.mark.parametrize("path", FORBIDDEN)
def test_anything_else_is_refused_before_the_stub_hears_of_it_though_the_caller_is_admitted(door, path):
    assert door.status(path, content=CANARY) == 403
    assert door.stub.seen == []
    assert [(line["event"], line["why"]) for line in door.logged()] == [("refused", "not a call of a node")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_a_call_by_another_method_is_refused_and_in_the_log(door, method):
    assert door.status(method=method) == 403
    assert (door.stub.seen, len(door.logged())) == ([], 1)


@pytest.mark.parametrize(
    "key",
    [None, "", base64.b64encode(b"somebody").decode(), "%%%", "@" + SHOWN, "\xff".encode("latin-1"), SHOWN + "!"],
    ids=["absent", "empty", "unknown", "no base64", "with more before", "no ascii", "with more after"],
)
def test_who_is_not_admitted_is_refused_before_the_stub_hears_of_it(door, key):
    assert door.status(key=key, content=CANARY) == 401
    assert door.stub.seen == []
    assert [line["why"] for line in door.logged()] == ["not an admitted node"]


def test_a_refusal_is_in_the_log_with_its_reason_path_and_peer_and_without_what_was_sent(door):
    door.status("/v1/control/start-run", content=CANARY)
    door.status(key="c3RyYW5nZXI=", content=CANARY)
    told = [(line["why"], line["path"], line["peer"], line["level"]) for line in door.logged()]
    assert told == [
        ("not a call of a node", "/v1/control/start-run", "192.0.2.7", "warning"),
        ("not an admitted node", CALL, "192.0.2.7", "warning"),
    ]
    text = door.log.read_text()
    assert CANARY.decode() not in text
    assert "c3RyYW5nZXI" not in text


def test_a_path_of_control_characters_and_of_any_length_makes_one_short_line(door):
    door.status("/%0a%1b[31m" + "x" * 5000)
    (line,) = door.log.read_text().splitlines()
    assert len(line) < 500
    assert "\x1b" not in line


# --- limits ---------------------------------------------------------------------------------------------------


def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(door):
    assert door.status(content=b"x" * 1000) == 200
    assert door.status(content=b"x" * 1001) == 413
    assert len(door.stub.seen) == 1


def test_a_body_without_a_length_is_cut_off_at_the_limit(door):
    given = []

    async def pieces():
        for _ in range(100):
            given.append(1)
            yield b"x" * 300

    assert door.status(content=pieces()) == 413
    assert len(given) < 100
    assert door.stub.seen == []


def test_a_body_that_does_not_come_is_given_up(door):
    async def never():
        yield b"x"
        await asyncio.sleep(60)

    began = time.monotonic()
    assert door.status(content=never()) == 413
    assert time.monotonic() - began < 10
    assert door.stub.seen == []


def test_too_many_requests_are_refused_and_served_again_by_the_clock(door):
    assert [answer.status_code for answer in door.ask(many=8)] == [200] * 5 + [429] * 3


def test_the_bucket_fills_by_the_clock_and_no_further_than_its_size(log):
    rates = running._Rates(Limits(rate=10.0, burst=5.0), lambda: clock[0])
    clock = [0.0]
    assert [rates.admit("a") for _ in range(6)] == [True] * 5 + [False]
    clock[0] = 0.1
    assert [rates.admit("a") for _ in range(2)] == [True, False]
    clock[0] = 1000.0
    assert [rates.admit("a") for _ in range(6)] == [True] * 5 + [False]


def test_one_caller_does_not_use_up_anothers_requests():
    rates = running._Rates(Limits(rate=1.0, burst=1.0), lambda: 0.0)
    assert [rates.admit(name) for name in ("a", "a", "b", "b")] == [True, False, True, False]


def test_what_is_kept_of_callers_is_bounded_and_those_at_work_stay():
    rates = running._Rates(Limits(rate=0.0, burst=2.0), lambda: 0.0)
    for number in range(running._MOST_CALLERS + 50):
        rates.admit(f"stranger {number}")
        if number % 1000 == 0:
            rates.admit("amber")
    assert len(rates._left) == running._MOST_CALLERS
    assert not rates.admit("amber")  # it had used up its two, and was not forgotten


def test_a_superlink_that_is_not_there_is_503_and_in_the_log(door):
    class Gone(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            raise httpx.ConnectError("canary-text")

    door.transport = Gone()
    assert door.status() == 503
    assert [(line["event"], line["error"]) for line in door.logged()] == [("superlink-silent", "ConnectError")]
    assert "canary-text" not in door.log.read_text()


# --- on a socket, with TLS ------------------------------------------------------------------------------------


@pytest.fixture
def office(tmp_path):
    return Office.create(tmp_path / "office", name="coordinator", address="localhost:4711", clock=now)


@pytest.fixture
def served(office, log):
    """The gateway as it is run, on a port of its own; returns the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    stub, loop = Stub(), asyncio.new_event_loop()
    upstream = httpx.AsyncClient(transport=httpx.ASGITransport(stub.app), base_url="https://superlink")
    config = running._config(gateway(upstream, dict), office)
    server = uvicorn.Server(config)

    async def both():
        task = asyncio.create_task(running._renew(config, office, 0.05))
        await server.serve(sockets=[listening])
        task.cancel()

    thread = threading.Thread(target=lambda: loop.run_until_complete(both()), daemon=True)
    thread.start()
    until(lambda: server.started)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()
    loop.close()


def until(condition):
    """Wait until something is there and return it."""
    end = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
    return found


def shown(port, authority):
    """Return the certificate that the gateway shows to one who trusts an authority."""
    trusting = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True)


def renewed(office):
    """Return another certificate by the office's authority, with its key."""
    authority = Pair(key=office.authority_key.read_bytes(), certificate=office.loopback_authority.read_bytes())
    return issue_server(authority, "localhost", now())


def test_a_renewed_certificate_is_shown_to_whoever_connects_next(served, office):
    old = shown(served, office.loopback_authority)
    assert shown(served, office.loopback_authority) == old
    fresh = renewed(office)
    write_durably(office.loopback_key, fresh.key)
    write_durably(office.loopback_certificate, fresh.certificate)
    until(lambda: shown(served, office.loopback_authority) != old)


def test_a_certificate_whose_key_is_not_there_yet_leaves_the_old_one_at_work(served, office, log):
    old = shown(served, office.loopback_authority)
    fresh = renewed(office)
    write_durably(office.loopback_certificate, fresh.certificate)  # the key comes a moment later
    until(lambda: "certificate-unusable" in log.read_text())
    assert shown(served, office.loopback_authority) == old
    write_durably(office.loopback_key, fresh.key)
    until(lambda: shown(served, office.loopback_authority) != old)


def test_who_does_not_know_the_authority_does_not_talk_to_it(served, office, tmp_path):
    other = make_authority("coordinator", now())
    (tmp_path / "other.pem").write_bytes(other.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(served, tmp_path / "other.pem")


@pytest.mark.parametrize("status", [401, 403])
def test_what_flower_refuses_comes_back_and_is_in_the_log_under_the_partners_name(door, status):
    door.stub.answer = Response(b"", status)
    assert door.status() == status
    assert [(line["event"], line["why"], line["partner"]) for line in door.logged()] == [
        ("refused", "by Flower", "amber")
    ]
