"""The coordinator's hand at a real SuperLink of Flower's, with TLS, on the loopback interface."""

import os
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.processes.quiet import quiet_environment
from coterie.server.office import Office
from coterie.server.running.members import reconcile
from coterie.server.running.operator import LinkFault, LinkRefused, RunStanding, node_bytes, operator
from coterie.server.running.service import children
from coterie.tests.server.bookwriters import member

PLAN = f"sha256:{7:064x}"
STARTING = 90.0


def node_key():
    """Return a fresh node key in OpenSSH's form."""
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def answers(port, authority, process):
    """Return whether the SuperLink does, and fail where it ended."""
    assert process.poll() is None, "flower-superlink ended at its start"
    try:
        with operator(port, authority) as flower:
            flower.nodes()
    except LinkFault:
        return False
    return True


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    office = Office.create(tmp_path_factory.mktemp("operator") / "office", name="c", address="localhost:1", clock=now)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = office.root / "coterie.toml"
    text = settings.read_text().replace("superlink_port = 39092", f"superlink_port = {port}")
    write_durably(settings, text.encode())
    assert office.settings.superlink_port == port
    return office


@pytest.fixture(scope="module")
def superlink(office):
    """The SuperLink exactly as the service starts it; nothing starts the processes of runs."""
    environment = quiet_environment(os.environ, office.superlink)
    child = next(child for child in children(office, environment) if child.name == "superlink")
    log = (office.logs / "superlink.out").open("wb")
    process = subprocess.Popen(child.command, env=dict(child.env), stdout=log, stderr=log, process_group=0)
    end = time.monotonic() + STARTING
    try:
        while not answers(office.settings.superlink_port, office.loopback_authority, process):
            assert time.monotonic() < end, "flower-superlink was not up in time"
            time.sleep(0.1)
        yield office
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture
def flower(superlink):
    with operator(superlink.settings.superlink_port, superlink.loopback_authority) as hand:
        yield hand
        for node in hand.nodes():
            hand.unregister(node.number)


def test_a_node_is_registered_listed_and_taken_back(flower):
    key = node_bytes(node_key())
    number = flower.register(key, "amber")
    (node,) = flower.nodes()
    assert (node.number, node.key, node.name, node.online) == (number, key, "amber", False)
    flower.unregister(number)
    assert flower.nodes() == ()


def test_a_key_is_registered_once_and_one_that_was_taken_back_never_again(flower):
    key = node_bytes(node_key())
    number = flower.register(key, "amber")
    with pytest.raises(LinkRefused, match="would not register a node"):
        flower.register(key, "birch")
    flower.unregister(number)
    with pytest.raises(LinkRefused, match="would not register a node"):
        flower.register(key, "amber")


def test_a_run_of_our_bundle_is_started_stands_and_is_stopped(flower):
    number = flower.start(PLAN)
    assert flower.standing(number) == RunStanding("pending", "")
    assert not flower.standing(number).over
    flower.stop(number)
    assert flower.standing(number) == RunStanding("finished", "stopped")
    assert flower.standing(number).over


def test_runs_have_numbers_of_their_own_and_one_is_stopped_without_the_other(flower):
    first, second = flower.start(PLAN), flower.start(PLAN)
    assert first != second
    flower.stop(first)
    assert (flower.standing(first).over, flower.standing(second).over) == (True, False)
    flower.stop(second)


def test_a_run_that_is_over_cannot_be_stopped_again(flower):
    number = flower.start(PLAN)
    flower.stop(number)
    with pytest.raises(LinkRefused, match="would not stop a run"):
        flower.stop(number)


def test_a_run_that_superlink_does_not_know_is_a_fault(flower):
    with pytest.raises(LinkFault):
        flower.standing(12345)
    with pytest.raises(LinkFault):
        flower.stop(12345)


PAST, LATER = "2020-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"


def partner(name, **changes):
    return member(name, **{"node": node_key(), "admitted": PAST, "expires": LATER} | changes)


def test_the_registered_nodes_become_those_of_the_books(flower):
    amber, birch = partner("amber"), partner("birch")
    there = (amber, birch, partner("cedar", expires=PAST))
    assert reconcile(flower, there, now()) == (["amber", "birch"], [], [])
    assert reconcile(flower, there, now()) == ([], [], [])
    renewed = replace(birch, node=node_key())
    assert reconcile(flower, (replace(amber, revoked=PAST), renewed), now()) == (["birch"], ["amber", "birch"], [])
    (node,) = flower.nodes()
    assert (node.name, node.key) == ("birch", node_bytes(renewed.node))


def test_whose_time_is_past_is_registered_still_and_may_be_admitted_anew_with_the_same_key(flower):
    amber = partner("amber")
    reconcile(flower, (amber,), now())
    assert reconcile(flower, (replace(amber, expires=PAST),), now()) == ([], [], [])
    assert reconcile(flower, (amber,), now()) == ([], [], [])
    assert [node.name for node in flower.nodes()] == ["amber"]


def test_a_key_that_superlink_never_takes_again_is_told_and_keeps_nobody_else_out(flower):
    amber, birch = partner("amber"), partner("birch")
    reconcile(flower, (amber,), now())
    reconcile(flower, (), now())
    assert reconcile(flower, (amber, birch), now()) == (["birch"], [], ["amber"])


def test_at_a_port_where_nobody_answers_the_fault_names_the_command(office):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with operator(port, office.loopback_authority) as flower, pytest.raises(LinkFault) as error:
        flower.nodes()
    (fault,) = error.value.faults
    assert fault.rule == "could not be asked to list the nodes (ConnectError)"
    assert fault.fix == "start it with: coterie coordinator start FOLDER"


def test_a_superlink_that_another_authority_vouches_for_is_not_talked_to(superlink, tmp_path):
    other = Office.create(tmp_path / "other", name="c", address="localhost:1", clock=now)
    port = superlink.settings.superlink_port
    with operator(port, other.loopback_authority) as flower, pytest.raises(LinkFault, match="ConnectError"):
        flower.start(PLAN)


def test_the_superlink_listens_on_the_loopback_interface_alone(superlink):
    """By the kernel's own table: no listener of the port on any other address."""
    port = superlink.settings.superlink_port
    table = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    listeners = [line.split()[1] for line in table if line.split()[3] == "0A"]
    assert [address for address in listeners if int(address.split(":")[1], 16) == port] == [f"0100007F:{port:04X}"]


def test_a_task_of_the_superlink_is_had_with_the_secret_and_not_without(superlink, flower):
    number = flower.start(PLAN)
    asked = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    for secret in (None, "f" * 64, superlink.secret.read_text()):
        interceptors = [RuntimeVersionHttpInterceptor(component_name="flower-superexec")]
        if secret is not None:
            asking = {"/flwr.proto.Runtime/AcquireTask"}
            interceptors.append(SuperExecAuthHttpInterceptor(master_secret=secret.encode(), protected_methods=asking))
        address, authority = f"127.0.0.1:{superlink.settings.superlink_port}", superlink.loopback_authority.read_bytes()
        with RuntimeHttpClient.from_server_address(
            address, insecure=False, root_certificates=authority, interceptors=interceptors
        ) as client:
            if secret == superlink.secret.read_text():
                assert client.AcquireTask(asked).token
            else:
                with pytest.raises(httpx.HTTPStatusError) as error:
                    client.AcquireTask(asked)
                assert error.value.response.status_code == 401
                assert flower.standing(number).status == "pending"
    assert flower.standing(number).status == "starting"
    flower.stop(number)
