"""The worker against a real Runtime API of Flower's SuperNode, in a thread of this process."""

import hashlib
import itertools
import json
import socket
import threading
import time

import pytest
import uvicorn
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from coterie.clients.bundle import bundle, bundle_digest
from coterie.clients.folding import fold, unfold
from coterie.clients.running import worker as working
from coterie.clients.running.runtime import Bell, Meeting, announce, meeting, ring
from coterie.clients.running.worker import serve
from coterie.privacy.clock import now
from coterie.processes.logs import json_log

RUN, NODE, SERVER = 5, 7, 1
PATIENCE = 20.0


def until(condition):
    """Wait until something is there and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
    return found


class SuperNode:
    """Flower's Runtime API and what stands behind it; the test plays the coordinator's side."""

    def __init__(self, folder, *, secret=None):
        self.states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
        self.state = self.states.state()
        self.state.set_node_id(NODE)
        self.socket = socket.create_server(("127.0.0.1", 0))
        met = announce(folder, self.socket.getsockname()[1])
        app = create_app(state_factory=self.states, superexec_auth_secret=(secret or met.secret).encode())
        self.server = uvicorn.Server(uvicorn.Config(app=app, log_level="critical", access_log=False))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        until(lambda: self.server.started)

    def run(self, content=None, *, number=RUN):
        """Put a run of a bundle into the state."""
        content = bundle() if content is None else content
        run = Run.create_empty(number)
        run.fab_hash, run.series_id = hashlib.sha256(content).hexdigest(), number
        self.state.store_run(run)
        self.state.store_fab(Fab(run.fab_hash, content, {}))
        self.state.set_run_series_context(number, Context(number, NODE, {}, RecordDict(), {}, series_id=number))
        return run

    def ask(self, run, content, *, kind="train"):
        """Put a message and its task into the state, as Flower's loop does; return the message's number."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run.run_id, SERVER, 1
        message = Message(content, dst_node_id=NODE, message_type=kind)
        objects = {number: one.deflate() for number, one in get_all_nested_objects(message).items()}
        return self.put(run, get_object_tree(message), objects, kind)

    def put(self, run, tree, objects, kind="train"):
        """Put a message into the state by the pieces that it is made of."""
        self.state.object_store.preregister(run.run_id, tree)
        for number, piece in objects.items():
            self.state.object_store.put(number, piece)
        bare = Message(RecordDict(), dst_node_id=NODE, message_type=kind)
        bare.metadata.__dict__["_message_id"] = tree.object_id
        self.state.store_message(bare)
        self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=run.run_id, fab_hash=run.fab_hash)
        return tree.object_id

    def reply(self):
        """Wait for a reply and return it whole."""
        (bare,) = until(lambda: self.state.get_messages_legacy(is_reply=True))
        store = self.state.object_store
        tree = store.get_object_tree(bare.metadata.message_id)
        pieces = [tree]
        for one in pieces:
            pieces.extend(one.children)
        contents = {one.object_id: until(lambda i=one.object_id: store.get(i)) for one in pieces}
        return inflate_object_from_contents(tree.object_id, contents)

    def ends(self):
        """Return how the tasks ended, in Flower's words."""
        return [task.status.sub_status for task in self.state.get_tasks()]

    def stop(self):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def start(folder):
    """Return a function that starts a SuperNode; all end with the test."""
    nodes = []

    def begin(**kwargs):
        nodes.append(SuperNode(folder, **kwargs))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.stop()


class Worker:
    """`serve` in a thread, with an app that answers with what it was asked, once more."""

    def __init__(self, folder):
        self.called, self.answered, self.stop = [], [], threading.Event()
        self.hold, self.error = threading.Event(), None
        self.hold.set()
        self.thread = threading.Thread(target=self._serve, args=(folder,))
        self.thread.start()

    def _serve(self, folder):
        try:
            serve(folder, self._answer, stop=self.stop, told=self.answered.append)
        except Exception as error:  # noqa: BLE001 - what ends a worker is what some tests ask for
            self.error = error

    def _answer(self, message, context):
        self.called.append(message)
        assert self.hold.wait(PATIENCE)
        if message.metadata.message_type == "query.refuse":
            return Message(Error(code=101, reason="budget"), reply_to=message)
        return Message(RecordDict({"echo": ConfigRecord({"of": message.content["x"]["y"]})}), reply_to=message)

    def end(self):
        began = time.monotonic()
        self.hold.set()
        self.stop.set()
        self.thread.join(PATIENCE)
        return time.monotonic() - began


@pytest.fixture
def work(folder):
    workers = []

    def begin():
        workers.append(Worker(folder))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.end()


@pytest.fixture
def log(tmp_path):
    """Return a function that reads the events of the worker's log."""
    path = tmp_path / "worker.log"
    logger = json_log(path, component="worker", clock=now)
    yield lambda: [json.loads(line)["event"] for line in path.read_text().splitlines()]
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


def question(number=1):
    return RecordDict({"x": ConfigRecord({"y": number})})


# --- answers --------------------------------------------------------------------------------------------------


def test_a_folded_question_reaches_the_app_unfolded_and_its_answer_goes_folded(start, work):
    node, worker = start(), work()
    asked = node.ask(node.run(), fold(question(42)))
    reply = node.reply()
    assert reply.metadata.reply_to_message_id == asked
    assert list(reply.content) == ["folded"]
    assert unfold(reply.content)["echo"]["of"] == 42
    assert [list(message.content) for message in worker.called] == [["x"]]
    (answered,) = until(lambda: worker.answered)
    assert (answered.kind, answered.code) == ("train", "")
    assert node.ends() == ["completed"]


def test_one_worker_answers_question_after_question_of_several_runs(start, work):
    node, worker = start(), work()
    runs = [node.run(number=number) for number in (5, 6)]
    for number, run in zip(itertools.count(), runs * 2):
        node.ask(run, fold(question(number)))
        assert unfold(node.reply().content)["echo"]["of"] == number
    assert len(worker.called) == 4


def test_a_refusal_of_the_app_leaves_as_the_word_that_it_is(start, work):
    node, worker = start(), work()
    node.ask(node.run(), question(), kind="query.refuse")
    reply = node.reply()
    assert (reply.error.code, reply.error.reason) == (101, "budget")
    assert [one.code for one in until(lambda: worker.answered)] == ["budget"]


@pytest.mark.parametrize("what", ["no zip at all", "a zip that would do harm"])
def test_under_another_bundle_the_answer_is_fault_and_the_app_is_not_called(start, work, what):
    node, worker = start(), work()
    node.ask(node.run(content=what.encode()), fold(question()))
    assert node.reply().error.reason == "fault"
    assert worker.called == []


def test_a_bundle_that_lies_about_its_name_is_never_looked_into(start, work):
    """The SuperNode keeps bundles by the digest of their bytes; the worker goes by that name and opens nothing."""
    node, worker = start(), work()
    run = node.run()
    node.state.get_fab(bundle_digest()).content = b"import os; os.abort()"
    node.ask(run, fold(question(3)))
    assert unfold(node.reply().content)["echo"]["of"] == 3
    assert len(worker.called) == 1


def test_a_question_that_only_looks_folded_is_answered_with_fault(start, work):
    node, worker = start(), work()
    node.ask(node.run(), RecordDict({"folded": ConfigRecord({"bytes": b"\xff" * 9})}))
    assert node.reply().error.reason == "fault"
    assert worker.called == []


# --- the SuperNode that is not there --------------------------------------------------------------------------


def test_without_a_supernode_it_waits_and_answers_once_there_is_one(folder, start, work):
    assert meeting(folder) is None
    worker = work()
    node = start()
    node.ask(node.run(), fold(question(8)))
    assert unfold(node.reply().content)["echo"]["of"] == 8
    assert len(worker.called) == 1


def test_with_the_wrong_secret_it_gets_no_task_and_goes_on_asking(start, work, log):
    node = start(secret="f" * 64)
    node.ask(node.run(), fold(question()))
    worker = work()
    until(lambda: log().count("supernode-unreachable") >= 3)
    assert worker.called == []
    assert node.ends() == [""]
    assert worker.thread.is_alive()


def test_a_supernode_that_was_started_again_is_found_at_its_new_place(start, work, log):
    first, worker = start(), work()
    first.ask(first.run(), fold(question(1)))
    first.reply()
    first.stop()
    until(lambda: "supernode-unreachable" in log())
    second = start()
    second.ask(second.run(), fold(question(2)))
    assert unfold(second.reply().content)["echo"]["of"] == 2
    assert len(worker.called) == 2


def test_where_it_meets_the_worker_is_for_the_owner_alone_and_new_each_time(folder):
    one, other = announce(folder, 4711), announce(folder, 4711)
    assert one.secret != other.secret
    assert len(bytes.fromhex(other.secret)) == 32
    assert meeting(folder) == other
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 1}', '{"port": "x", "secret": "y"}', '{"port": null}'])
def test_a_meeting_place_that_cannot_be_read_is_none_yet(folder, text):
    folder.mkdir()
    (folder / "supernode.json").write_text(text)
    assert meeting(folder) is None


# --- the end --------------------------------------------------------------------------------------------------


def test_told_to_stop_while_idle_it_ends_within_a_second(start, work):
    start()
    worker = work()
    assert worker.end() < 1.0
    assert not worker.thread.is_alive()


def test_told_to_stop_at_work_it_hands_the_answer_over_first(start, work):
    node, worker = start(), work()
    worker.hold.clear()
    run = node.run()
    node.ask(run, fold(question(1)))
    until(lambda: worker.called)
    node.ask(run, fold(question(2)))
    worker.stop.set()
    assert worker.end() < 1.0
    assert unfold(node.reply().content)["echo"]["of"] == 1
    assert sorted(node.ends()) == ["", "completed"]  # what waited is left for the next start


@pytest.mark.parametrize("piece", [b"Message  3\0abc", b"Message  0\0", b"ConfigRecord  0\0", b"CustomDataClass  0\0"])
def test_a_question_that_cannot_be_read_ends_the_worker_so_that_both_are_started_anew(start, work, piece):
    """Flower's SuperNode waits without end for an answer to a question that nobody could read."""
    node, worker = start(), work()
    number = get_object_id(piece)
    run = node.run()
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run.run_id, SERVER, 1
    node.put(run, ObjectTree(object_id=number), {number: piece})
    until(lambda: not worker.thread.is_alive())
    assert worker.called == []
    assert worker.error is not None
    assert node.ends() == ["failed"]


# --- the bell -------------------------------------------------------------------------------------------------


def rung(bell, seconds):
    """Return whether the bell rings within so many seconds."""
    began = time.monotonic()
    bell.wait(seconds)
    return time.monotonic() - began < seconds


@pytest.fixture
def bell():
    met = Meeting(1, "a" * 64)
    one = Bell(met)
    yield met, one
    one.close()


def test_a_bell_that_rang_several_times_wakes_once(bell):
    met, one = bell
    for _ in range(3):
        ring(met)
    assert rung(one, PATIENCE)
    assert not rung(one, 0.05)


def test_a_bell_rings_for_those_alone_who_know_the_secret(bell):
    _, one = bell
    ring(Meeting(1, "b" * 64))
    assert not rung(one, 0.05)


def test_ringing_where_nobody_waits_is_no_error():
    ring(Meeting(1, "c" * 64))


def test_where_a_bell_hangs_already_a_second_one_waits_by_the_clock(bell):
    met, _ = bell
    second = Bell(met)
    ring(met)
    assert not rung(second, 0.05)
    second.close()


def test_the_bell_has_a_worker_ask_at_once(start, work, folder, monkeypatch):
    asked = []
    real = working._Runtime.acquire

    def acquire(self):
        asked.append(real(self))
        return asked[-1]

    monkeypatch.setattr(working._Runtime, "acquire", acquire)
    monkeypatch.setattr(working, "_POLL", PATIENCE)
    node, worker = start(), work()
    until(lambda: asked)  # it found nothing, and waits; what rings from now on is heard
    assert asked == [False]
    began = time.monotonic()
    node.ask(node.run(), fold(question(42)))
    ring(meeting(folder))
    until(lambda: worker.answered)
    assert time.monotonic() - began < PATIENCE / 2
    worker.stop.set()
    ring(meeting(folder))
