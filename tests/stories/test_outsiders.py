"""A partner at the coordinator's public port: whatever is not its own node's call is refused and logged.

A study runs all the while, and ends as if nobody had tried.
"""

import contextlib
import http.client
import ssl
from pathlib import Path

import httpx
import pytest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.runtime import RuntimeHttpClient

from coterie.clients.joined import joined
from coterie.clients.workspace import Workspace
from coterie.server.bookrows import FINISHED
from coterie.server.running.operator import operator
from coterie.tests.clients.federation import NAMES
from coterie.tests.stories.deployed import OUTSIDER, until
from coterie.tests.stories.outsiders import IDENTITY, METHODS, OPERATOR, PATHS, Attacker, gigabyte, node_key

REFUSED = {401, 403}
MEGABYTE = 1 << 20
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


@pytest.fixture(scope="module")
def attacked(founded):
    """The federation with a study at work, which nobody waits for."""
    founded.start_all()
    plan = founded.named("attacked")
    founded.submit(plan)
    return founded, plan


@pytest.fixture(scope="module")
def attacker(attacked):
    """The first partner, who turned."""
    live, _ = attacked
    settings = live.site.office.settings
    with operator(settings.superlink_port, live.site.office.loopback_authority) as link:
        nodes = {node.name: node for node in link.nodes()}
    others = NAMES[1:]
    workspace = Workspace(live.folders[NAMES[0]])
    return Attacker(
        address=live.address(),
        authority=joined(workspace).authority.encode(),
        key=node_key(workspace.node_key),
        number=nodes[NAMES[0]].number,
        victim=nodes[others[0]].number,
        others=tuple(
            public_key_to_bytes(node_key(Workspace(live.folders[name]).node_key).public_key()) for name in others
        ),
    )


@pytest.fixture
def refusals(attacked):
    """A function that returns what the gateway refused since the test began."""
    live, _ = attacked

    def refused():
        return [line for line in live.log("coordinator", "gateway.log") if line["event"] == "refused"]

    before = len(refused())

    def since():
        until(lambda: len(refused()) > before, 10, "a line of the refusal")
        return refused()[before:]

    return since


def test_the_attackers_own_call_is_answered(attacker):
    assert attacker.heartbeat(attacker.headers()) == 200  # what is refused below is not refused for a clumsy client


@pytest.mark.parametrize("attack", OPERATOR)
def test_a_partner_is_no_operator(attack, attacker, refusals):
    assert OPERATOR[attack](attacker) == 403
    assert refusals()[-1]["why"] == "not a call of a node"


@pytest.mark.parametrize("trick", PATHS)
def test_no_way_of_writing_a_path_leads_elsewhere(trick, attacker, refusals):
    assert attacker.raw("POST", PATHS[trick]) == 403
    assert refusals()[-1]["why"] == "not a call of a node"


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_a_call_is_answered(method, attacker, refusals):
    assert attacker.raw(method, "/v1/fleet/pull-messages") == 403
    assert refusals()[-1]["path"] == "/v1/fleet/pull-messages"


def test_a_connection_is_not_upgraded(attacker, refusals):
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "sec-websocket-version": "13",
    }
    assert attacker.raw("GET", "/v1/control/stream-logs", headers=upgrade) == 403
    assert refusals()[-1]["path"] == "/v1/control/stream-logs"


@pytest.mark.parametrize("attack", IDENTITY)
def test_a_partner_speaks_for_no_other(attack, attacker, refusals):
    assert IDENTITY[attack](attacker) == 401
    assert refusals()[-1]["why"] in ("not an admitted node", "by Flower")


def test_who_claims_another_key_is_stopped_by_flowers_signature(attacker, refusals):
    assert IDENTITY["names another's key and signs with its own"](attacker) == 401
    assert refusals()[-1]["why"] == "by Flower"


def memory_of(live, word):
    """The most memory that a process of the coordinator ever had, in bytes."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            command = status.with_name("cmdline").read_bytes().decode(errors="replace")
            if word in command and str(live.site.office.root.absolute()) in command and "leash" not in command:
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
                return int(lines["VmHWM"].split()[0]) * 1024
    raise AssertionError(f"{word} does not run")


def test_a_gigabyte_is_not_taken_in(attacked, attacker, refusals):
    live, _ = attacked
    before = memory_of(live, "server.running.gateway")
    # The answer comes before the body has gone; a client that goes on writing finds the connection closed.
    with contextlib.suppress(OSError, ssl.SSLError, http.client.HTTPException):
        assert attacker.raw("POST", "/v1/fleet/push-object", gigabyte()) == 413
    assert refusals()[-1]["why"] == "too large, or too slow"
    assert memory_of(live, "server.running.gateway") - before < 150 * MEGABYTE


def test_the_coordinators_task_needs_its_secret_on_loopback_too(attacked):
    live, _ = attacked
    office = live.site.office
    for guess in (None, b"0" * 64):
        shown = SuperExecAuthHttpInterceptor(master_secret=guess or b"", protected_methods={ACQUIRE})
        with RuntimeHttpClient.from_server_address(
            f"127.0.0.1:{office.settings.superlink_port}",
            insecure=False,
            root_certificates=office.loopback_authority.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-superexec"), *([shown] if guess else [])],
        ) as client:
            with pytest.raises(httpx.HTTPStatusError) as refused:
                client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            assert refused.value.response.status_code in REFUSED


def test_the_study_of_all_the_while_is_unharmed(attacked):
    live, plan = attacked
    ended = live.ended(plan.digest())
    assert (ended.status, ended.reason) == (FINISHED, "")
    with live.books() as books:
        rounds, refused = books.rounds(plan.digest()), books.refusals(plan.digest())
    assert [one.cohort for one in rounds] == [tuple(sorted(NAMES))] * 2
    assert refused == ()
    for name in NAMES:
        assert len(live.charges(name, plan)) == 4


def test_a_revoked_node_is_not_served_any_more_and_says_so(attacked):
    live, _ = attacked
    live.start(OUTSIDER)
    until(lambda: "SuperNode ID" in live.output(OUTSIDER, "supernode.out"), 90, "the outsider's node")
    key = node_key(live.outsider.node_key)
    with operator(live.site.office.settings.superlink_port, live.site.office.loopback_authority) as link:
        number = {node.name: node.number for node in link.nodes()}[OUTSIDER]
    authority = joined(live.outsider).authority.encode()
    revoked = Attacker(live.address(), authority, key, number, number, ())
    assert revoked.heartbeat(revoked.headers()) == 200
    with live.books() as books:
        books.revoke(OUTSIDER)
    until(lambda: revoked.heartbeat(revoked.headers()) == 401, 10, "the end of service")
    until(lambda: "does not take this node" in live.output(OUTSIDER, "supernode.out"), 60, "the node's own word")
    assert "was revoked" in live.output(OUTSIDER, "supernode.out")
    until(lambda: OUTSIDER in _unregistered(live), 30, "the end of its registration")
    assert not _unregistered(live) & set(NAMES)
    live.stop(OUTSIDER)


def _unregistered(live):
    return {line["partner"] for line in live.log("coordinator", "service.log") if line["event"] == "node-unregistered"}
