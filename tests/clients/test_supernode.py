"""The seams of Flower that the SuperNode and the worker use: private to it, pinned, and looked at here.

Another version of flwr that moves one of them must not pass unseen: what is replaced there would guard nothing.
"""

import ast
import hashlib
import importlib.metadata
import inspect
import os
import signal
import typing
from contextlib import contextmanager

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore import heartbeat
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.retry import http_retry
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal as flower
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.runtime import run_clientapp

from coterie.clients.bundle import bundle, bundle_digest
from coterie.clients.running import supernode
from coterie.clients.running.supernode import Pace, guard
from coterie.privacy.joining.forms import JoinFault

RUN, NODE = 7, 5
EVIL = b"PK\x03\x04 what a coordinator would like to be run"


def names(function):
    return list(inspect.signature(function).parameters)


def test_flower_is_the_version_whose_private_names_are_known():
    assert importlib.metadata.version("flwr").rpartition(".")[0] == "1.41"


def test_the_connection_is_made_where_it_is_replaced():
    assert names(flower._init_connection) == [
        "server_address",
        "insecure",
        "root_certificates",
        "authentication_keys",
        "max_retries",
        "max_wait_time",
    ]
    (parts,) = typing.get_args(typing.get_type_hints(flower._init_connection)["return"])
    assert len(typing.get_args(parts)) == 8  # node, receive, send, get_run, get_fab, and three more
    source = inspect.getsource(flower.start_client_internal)
    assert "with _init_connection(" in source
    (taken,) = [
        [name.id for name in node.targets[0].elts]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id == "conn"
    ]
    assert taken[:5] == ["node_id", "receive", "send", "get_run", "get_fab"]
    assert len(taken) == 8


def test_a_bundle_is_judged_where_it_is_replaced():
    assert names(flower._verify_fab) == ["fab", "trusted_entities"]
    assert "register_signal_handlers(" in inspect.getsource(flower.start_client_internal)
    source = inspect.getsource(flower._pull_and_store_message)
    judged, stored = source.index("_verify_fab("), source.index("store_fab(")
    assert source.index("get_fab(") < judged < source.index("get_fused_config_from_fab(") < stored


def test_flower_takes_nothing_but_sleep_from_what_paces_it():
    tree = ast.parse(inspect.getsource(flower))
    taken = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
    }
    assert taken == {"sleep"}


def test_the_start_takes_what_it_is_given():
    given = {
        "state_factory",
        "server_address",
        "node_config",
        "root_certificates",
        "insecure",
        "authentication_keys",
        "isolation",
        "runtime_api_address",
        "trusted_entities",
        "superexec_auth_secret",
    }
    assert given <= set(names(flower.start_client_internal))
    assert {"state_factory", "superexec_auth_secret"} <= set(names(create_app))
    assert inspect.signature(flower.start_client_internal).parameters["runtime_dependency_install"].default is False


def test_the_worker_finds_what_it_uses():
    assert names(run_clientapp.pull_task_input) == ["client"]
    assert names(run_clientapp.push_message) == ["client", "message", "context"]
    assert names(run_clientapp.push_task_output) == ["client", "context", "sub_status", "details"]
    assert names(heartbeat.make_task_heartbeat_fn_http)[:1] == ["client"]
    assert {"start", "stop", "is_running"} <= set(dir(heartbeat.HeartbeatSender))
    assert names(RuntimeTokenHttpInterceptor) == ["token"]
    assert {"master_secret", "protected_methods"} <= set(names(SuperExecAuthHttpInterceptor))
    assert '"/flwr.proto.Runtime/AcquireTask"' in inspect.getsource(RuntimeHttpClient.AcquireTask)
    assert (SubStatus.COMPLETED, SubStatus.FAILED) == ("completed", "failed")
    assert TaskType.CLIENT_APP != TaskType.AGENT_APP


def test_where_flower_ends_itself_without_a_word_there_is_one():
    assert "os.kill(os.getpid(), signal.SIGINT)" in inspect.getsource(http_retry)  # at 401
    before = signal.getsignal(signal.SIGINT)
    called = []
    try:
        supernode._refusable(lambda **given: called.append(given))(event_type="leave")
        with pytest.raises(JoinFault, match="does not take this node"):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert called == [{"event_type": "leave"}]


class Link:
    """What a coordinator ships to a SuperNode: one message of a run, and a bundle for it."""

    def __init__(self, fab: Fab) -> None:
        self.told = []
        self.fab = fab
        self.states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
        self.state, self.store = self.states.state(), self.states.objectstore_factory.store()
        self.state.set_node_id(NODE)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 1, 1
        self.message = Message(RecordDict({"config": ConfigRecord({})}), dst_node_id=NODE, message_type="train")
        self.tree = get_object_tree(self.message)
        self.pieces = {number: one.deflate() for number, one in get_all_nested_objects(self.message).items()}
        self.message.metadata.__dict__["_message_id"] = self.tree.object_id
        self.happened = []

    def receive(self):
        return self.message, self.tree

    def send(self, _message, _tree, seconds):
        self.told.append(seconds)
        return set(), ""

    def run(self, run_id):
        run = Run.create_empty(run_id)
        run.fab_hash = self.fab.hash_str
        return run

    @contextmanager
    def connect(self, **_):
        yield NODE, self.receive, self.send, self.run, lambda _hash, _run: self.fab, self.pull, None, self.confirm

    def pull(self, _run, number):
        self.happened.append("pulled")
        return self.pieces[number]

    def confirm(self, *_):
        self.happened.append("confirmed")

    def deliver(self):
        """Let Flower's SuperNode take the message; return the replies that it has of its own."""
        with flower._init_connection() as (_, receive, _, get_run, get_fab, pull_object, _, confirm):
            flower._pull_and_store_message(
                state=self.state,
                object_store=self.store,
                node_config={},
                receive=receive,
                get_run=get_run,
                get_fab=get_fab,
                pull_object=pull_object,
                confirm_message_received=confirm,
                trusted_entities={"coterie": "the installed bundle"},
            )
        return self.state.get_messages_legacy(is_reply=True)


@pytest.fixture
def guarded(monkeypatch):
    """A function that puts the guard before a coordinator, and takes it away after the test."""

    def put(link):
        for name in ("_init_connection", "_verify_fab", "time"):
            monkeypatch.setattr(flower, name, getattr(flower, name))
        monkeypatch.setattr(flower, "_init_connection", link.connect)
        nodes = []
        guard(Pace(), nodes.append, lambda: link.happened.append("woken"))
        return nodes

    return put


@pytest.mark.parametrize(
    "fab",
    [
        Fab(hashlib.sha256(EVIL).hexdigest(), EVIL, {}),
        Fab(bundle_digest(), EVIL, {}),  # under the digest of ours
        Fab(hashlib.sha256(EVIL).hexdigest(), EVIL, {"valid_license": "Valid", "coterie": "{}"}),
        Fab(bundle_digest(), b"", {}),
        Fab(bundle_digest(), bundle() + b"\x00", {}),
    ],
    ids=["another", "another under our digest", "another that is vouched for", "nothing", "ours and more"],
)
def test_another_bundle_is_neither_read_nor_stored(fab, guarded, monkeypatch):
    link = Link(fab)
    nodes = guarded(link)
    monkeypatch.setattr(flower, "get_fused_config_from_fab", lambda *_: pytest.fail("the bundle was opened"))
    (reply,) = link.deliver()
    assert (reply.error.code, reply.error.reason) == (ErrorCode.INVALID_FAB, "The FAB could not be verified.")
    assert link.state.get_run(RUN) is None
    assert link.state.get_fab(fab.hash_str) is None
    assert nodes == [NODE]


def test_the_installed_bundle_is_taken(guarded):
    link = Link(Fab(bundle_digest(), bundle(), {}))
    guarded(link)
    assert link.deliver() == []
    assert link.state.get_run(RUN) is not None
    assert link.happened == ["pulled"] * len(link.pieces) + [
        "confirmed",
        "woken",
    ]  # the worker is woken once there is all that it needs
    assert link.state.get_fab(bundle_digest()).content == bundle()


@pytest.mark.parametrize("call", ["pull", "confirm"])
def test_of_a_run_that_ends_while_its_message_is_fetched_nothing_is_left_that_the_worker_would_wait_for(guarded, call):
    link = Link(Fab(bundle_digest(), bundle(), {}))
    guarded(link)

    def over(*_):
        raise RunNotRunningException

    setattr(link, call, over)
    assert link.deliver() == []
    assert link.state.get_messages_legacy(is_reply=False) == []
    assert link.store.get(link.tree.object_id) is None


def test_how_long_the_app_took_is_not_told_to_the_coordinator(guarded):
    link = Link(Fab(bundle_digest(), bundle(), {}))
    guarded(link)
    with flower._init_connection() as (_, _, send, *_):
        send(None, None, 1.234567)
    assert link.told == [0.0]
