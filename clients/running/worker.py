"""A partner's worker: one process for all of a study's messages, running the installed coterie and nothing else.

    python -m coterie.clients.running.worker WORKSPACE

Flower would start a process for every message, and in it whatever the coordinator shipped. This one asks the SuperNode
for work over its Runtime API, never looks at the bundle, and answers with `clients/app.py`, behind the door.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from coterie.clients.app import client_app
from coterie.clients.bundle import bundle_digest
from coterie.clients.door import ERROR_CODE, KNOWN
from coterie.clients.folding import WireFault, fold, soon, unfold
from coterie.clients.running.runtime import Bell, Meeting, meeting
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.randomness import OsSource
from coterie.processes.logs import event, hush, json_log
from coterie.processes.tally import Tally

__all__ = ["Answered", "app", "deployed", "main", "serve", "work"]

_log = logging.getLogger("coterie.worker")
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_POLL = 0.5  # seconds between questions where the bell does not ring
_SILENCE = 10.0  # seconds; Flower takes a task for dead after sixty


@dataclass(frozen=True)
class Answered:
    """What is known of an answer without looking into it.

    Args:
        kind: The question's message type.
        code: The data-free word that left in place of a release; "" for a release.
        seconds: How long the app took.
    """

    kind: str
    code: str
    seconds: float


class _Pass:
    """The right to the next call: the secret when asking for a task, the task's token afterwards."""

    def __init__(self, secret: str) -> None:
        self._asking = SuperExecAuthHttpInterceptor(master_secret=secret.encode(), protected_methods={_ACQUIRE})
        self.token: RuntimeTokenHttpInterceptor | None = None

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add what proves the right."""
        if context.rpc_method == _ACQUIRE or self.token is None:
            return self._asking.intercept(context, call_next)
        return self.token.intercept(context, call_next)


class _Runtime:
    """The SuperNode's Runtime API, as the worker uses it."""

    def __init__(self, met: Meeting) -> None:
        self._pass = _Pass(met.secret)
        interceptors: list[ProtobufClientInterceptor] = [
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            self._pass,
        ]
        self.client = RuntimeHttpClient.from_server_address(
            server_address=f"127.0.0.1:{met.port}", insecure=True, root_certificates=None, interceptors=interceptors
        )

    def acquire(self) -> bool:
        """Ask for a task; return whether there is one."""
        got = self.client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        if not got.token:
            return False
        self._pass.token = RuntimeTokenHttpInterceptor(got.token)
        return True


def work(runtime: _Runtime, client: ClientApp) -> Answered:
    """Answer the message of the task that was acquired.

    Args:
        runtime: With a task.
        client: The partner's app; exceptions do not come out of it, since the door is its outermost part.
    """
    # A long training must not look like a dead process; most answers are there before the first sign of life is due.
    beating = HeartbeatSender(make_task_heartbeat_fn_http(runtime.client))
    late = threading.Timer(_SILENCE, beating.start)
    late.daemon = True
    late.start()
    context: Context | None = None
    status = SubStatus.FAILED
    try:
        message, context, _, fab = pull_task_input(runtime.client)
        began = time.monotonic()
        # The SuperNode has refused every other bundle; here it is a second look, before a row is opened.
        reply = _answer(message, context, client) if fab.hash_str == bundle_digest() else _refusal(message)
        seconds = time.monotonic() - began
        kind, code = message.metadata.message_type, (reply.error.reason or "") if reply.has_error() else ""
        push_message(runtime.client, reply, context)
        status = SubStatus.COMPLETED
    finally:
        late.cancel()
        push_task_output(runtime.client, None, status, "")
        if beating.is_running:
            beating.stop()
    return Answered(kind, code, seconds)


def _answer(message: Message, context: Context, client: ClientApp) -> Message:
    try:
        if not message.has_content():
            return _refusal(message)
        message.content = unfold(message.content)
    except WireFault:
        return _refusal(message)
    reply = client(message, context)
    if not reply.has_error():
        reply.content = fold(reply.content)
    return reply


def _refusal(message: Message) -> Message:
    event(_log, "refused", level=logging.WARNING, asked="a message", code="fault")
    return Message(Error(code=ERROR_CODE["fault"], reason="fault"), reply_to=message)


def serve(
    folder: Path, client: ClientApp, *, stop: threading.Event, told: Callable[[Answered], None] = lambda _: None
) -> None:
    """Take tasks one after another until told to stop.

    A task whose message cannot be read or whose answer cannot be handed over ends the worker: Flower's SuperNode waits
    for that answer without end, and is started anew together with its worker.

    Args:
        folder: The workspace's `run` folder.
        client: The partner's app.
        stop: Set to end after the task at work.
        told: Called with what is known of each answer.
    """
    at: Meeting | None = None
    runtime: _Runtime | None = None
    bell: Bell | None = None
    while not stop.is_set():
        met = meeting(folder)
        if met is None:
            stop.wait(0.2)
            continue
        if met != at or bell is None:  # a SuperNode that was started again listens elsewhere
            if bell is not None:
                bell.close()
            at, runtime, bell = met, None, Bell(met)
        runtime = runtime or _Runtime(met)
        try:
            acquired = runtime.acquire()
        except (httpx.HTTPError, RuntimeError, ValueError) as error:
            event(_log, "supernode-unreachable", level=logging.WARNING, error=type(error).__name__)
            runtime = None
            stop.wait(0.5)
            continue
        if acquired:
            told(work(runtime, client))  # what fails in here ends the worker
        else:
            bell.wait(_POLL)
    if bell is not None:
        bell.close()


def app() -> ClientApp:
    """Refuse to be started by Flower: a partner runs `coterie partner start`."""
    raise RuntimeError("start a partner with: coterie partner start FOLDER")


def deployed(folder: Path) -> ClientApp:
    """Return the app of a workspace: its secret randomness is the operating system's.

    Args:
        folder: The workspace.
    """
    return client_app(lambda _: folder, random=OsSource())


def main(folder: Path, client: ClientApp) -> None:
    """Run the worker of a workspace until it is told to stop.

    Args:
        folder: The workspace.
        client: The partner's app.
    """
    workspace = Workspace(folder)
    hush(json_log(workspace.logs / "worker.log", component="worker", clock=now))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    event(_log, "started")
    soon()
    serve(workspace.run, client, stop=stop, told=_telling(Tally(workspace.run, "worker")))
    event(_log, "stopped")


def _telling(tally: Tally) -> Callable[[Answered], None]:
    """Return what writes an answer into the log and the counts."""

    def told(answered: Answered) -> None:
        kind = answered.kind if answered.kind in KNOWN else "other"  # a peer's word, unless it is one of ours
        event(_log, "answered", kind=kind, code=answered.code, seconds=round(answered.seconds, 3))
        tally.count("coterie_messages", kind=kind)
        if answered.code:
            tally.count("coterie_refusals", code=answered.code)
        tally.write()

    return told


if __name__ == "__main__":
    _folder = Path(sys.argv[1])
    main(_folder, deployed(_folder))
