"""A hostile coordinator on the other side of a real wire: Flower's SuperLink, the gateway, and one partner's processes.

The coordinator is the harness itself. It registers the node and starts a run of the honest bundle, and then takes the
task that Flower meant for the study's own app: from there on it says whatever it likes. The partner is a workspace
that joined, served by `coterie partner start`. Between two attacks the workspace's content is exchanged beneath the
running node, which opens it anew for every message; the processes, their logs and their connection stay.

Imported as `coterie.tests.stories.wire`.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto, run_from_proto
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushAppMessagesRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from coterie.clients.folding import WireFault, fold, soon, unfold
from coterie.clients.workspace import Workspace
from coterie.privacy.charges import Entry
from coterie.privacy.clock import now
from coterie.privacy.ledger import Ledger
from coterie.processes.held import running
from coterie.processes.quiet import quiet_environment
from coterie.server.books import Books
from coterie.server.office import Office
from coterie.server.running.members import reconcile
from coterie.server.running.operator import LinkFault, Operator, operator
from coterie.server.running.service import children
from coterie.simulations.deployment import await_health, join, process
from coterie.tests.clients.federation import Federation
from coterie.tests.stories.attacks import Hostile, spoken
from coterie.tests.stories.deployed import COMMAND, until
from coterie.tests.stories.inprocess import Node, hostile

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_STAYS = {"run", "logs", "federation", "supernode", "lock"}  # of a workspace, while its content is exchanged
_STAYS_KEY = {"node", "node.pub"}
SOON = 120.0
"""Seconds that an answer may take: a machine may be busy with other things."""


class Wire:
    """A line to every node of a run, as the run's own app would have it.

    Args:
        office: The coordinator's folder.
        token: Of the task that was taken.
    """

    def __init__(self, office: Office, token: str) -> None:
        self.grid = HttpGrid(
            runtime_api_address=f"127.0.0.1:{office.settings.superlink_port}",
            root_certificates=office.loopback_authority.read_bytes(),
            token=token,
        )
        soon()
        self.grid._check_message = lambda _: None  # an attacker's own makes no checks
        self.client = self.grid._runtime_client
        got = self.client.PullTaskInput(PullTaskInputRequest())
        self.grid.set_run(run_from_proto(got.run))
        self.identity = (got.run.run_id, got.context.node_id, got.task_id)
        self.beating = HeartbeatSender(make_task_heartbeat_fn_http(self.client))
        self.beating.start()

    def close(self) -> None:
        """Give the line up; the run ends for want of a sign of life."""
        self.beating.stop()
        self.grid.close()

    def message(self, node: int, kind: str, content: Any, **metadata: Any) -> Message:
        """Make a message that says whatever it likes about itself."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = self.identity
        message = Message(content, dst_node_id=node, message_type="train")
        for name, value in {"message_type": kind, **metadata}.items():
            message.metadata.__dict__[f"_{name}"] = value
        return message

    def push(self, messages: Sequence[Message]) -> list[str | None]:
        """Send messages; None in place of a number for each that the SuperLink does not take."""
        try:
            return list(self.grid.push_messages(messages))
        except httpx.HTTPStatusError:
            return [None] * len(messages)

    def push_pieces(self, message: Message, tree: ObjectTree, pieces: Mapping[str, bytes]) -> None:
        """Announce a message as made of a tree of pieces, and send some pieces, whatever they are."""
        proto = message_to_proto(remove_content_from_message(message))
        proto.metadata.message_id = tree.object_id
        told = self.client.PushMessages(PushAppMessagesRequest(messages_list=[proto], message_object_trees=[tree]))
        assert list(told.message_ids) == [tree.object_id], "the SuperLink did not take it"
        for number in pieces.keys() & set(told.objects_to_push):  # the others it has
            asked = PushObjectRequest(
                node=self.grid.node,
                run_id=self.identity[0],
                object_id=number,
                object_content=pieces[number],
                session_id=told.session_id,
            )
            assert self.client.PushObject(asked).stored, "the SuperLink did not take a piece"

    def pull(self, numbers: Sequence[str | None], seconds: float = SOON) -> list[Message]:
        """Wait for the answers to messages, and return them in their order."""
        wanted = [number for number in numbers if number]
        found: dict[str, Message] = {}

        def whole() -> bool:
            for reply in self.grid.pull_messages(set(wanted) - found.keys()):
                found[reply.metadata.reply_to_message_id] = reply
            return len(found) == len(wanted)

        end, pause = time.monotonic() + seconds, 0.05
        while not whole():
            assert time.monotonic() < end, f"{len(found)} of {len(wanted)} answers within {seconds:g} seconds"
            time.sleep(pause)
            pause = min(0.5, 1.3 * pause)  # every look costs the SuperLink more than the answer costs the node
        return [found[number] for number in wanted]


class WireNode:
    """A `Target` on the other side of the wire.

    Args:
        wire: The line.
        number: Flower's, of the node.
        workspace: What the judge may look into; the coordinator never does.
    """

    def __init__(self, wire: Wire, number: int, workspace: Workspace) -> None:
        self.wire, self.number, self.workspace = wire, number, workspace
        self.raw: list[bytes] = []
        """The answers as they came, before anything was unfolded."""

    def ask(self, message_type: str, content: RecordDict) -> Message:
        """Send one message as the shipped coordinator would, folded where it is small, and return the answer."""
        return self.ask_all([(message_type, fold(content))])[0]

    def ask_all(self, questions: Sequence[tuple[str, RecordDict]]) -> list[Message]:
        """Send messages at once, as they are, and return the answers."""
        made = [self.wire.message(self.number, kind, content) for kind, content in questions]
        numbers = self.wire.push(made)
        assert None not in numbers, "the SuperLink did not take it"
        return self.read(self.wire.pull(numbers, SOON + 5 * len(numbers)))

    def read(self, replies: Sequence[Message]) -> list[Message]:
        """Keep answers as they came, and unfold them."""
        for reply in replies:
            self.raw.append(message_to_proto(reply).SerializeToString())
            if reply.has_content():
                try:
                    reply.content = unfold(reply.content)
                except WireFault as error:
                    raise AssertionError("an answer that cannot be unfolded") from error
        return list(replies)

    def ledger(self) -> list[Entry]:
        """Every entry of the partner's ledger."""
        with Ledger(self.workspace.ledger, now) as ledger:
            return list(ledger.entries())

    def reports(self) -> str:
        """All that the partner's reports say."""
        folder = self.workspace.root / "reports"
        return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.log")))

    def log(self) -> str:
        """All that the partner's worker has logged."""
        path = self.workspace.logs / "worker.log"
        return spoken(path.read_text(encoding="utf-8").splitlines())


class Besieged:
    """A partner's node in service, and the hostile coordinator that it is connected to.

    Args:
        root: A folder that is missing or empty.
        federation: Prepared; its first partner is the victim.
    """

    def __init__(self, root: Path, federation: Federation) -> None:
        self.root = root
        self._stack = ExitStack()
        ports = free_ports(3)
        self.office = Office.create(
            root / "office", name="coordinator", address=f"localhost:{ports[0]}", clock=now,
            listen=f"127.0.0.1:{ports[0]}",
        )  # fmt: skip
        settings = self.office.root / "coterie.toml"
        lines = settings.read_text(encoding="utf-8").replace("39092", str(ports[1])).replace("39093", str(ports[2]))
        settings.write_text(lines, encoding="utf-8")
        shutil.copy(federation.root / "coordinator" / "identity.pem", self.office.identity_file)
        self.folder = root / "victim"
        shutil.copytree(federation.folders[federation.names[0]], self.folder)
        self.workspace = Workspace(self.folder)
        join(self.office, self.workspace)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        environment = quiet_environment(os.environ, self.office.root.absolute() / "superlink")
        for child in children(self.office, environment):
            if child.name != "superexec":  # the harness takes its place
                self._stack.enter_context(_running(child.command, dict(child.env), child.log))
        flower = self._stack.enter_context(
            operator(self.office.settings.superlink_port, self.office.loopback_authority)
        )
        until(lambda: _answers(flower), 60, "the SuperLink")
        with Books(self.office.books_url, now) as books:
            reconcile(flower, books.members(), now())
        self.service = self._stack.enter_context(process((*COMMAND, "partner", "start"), self.folder))
        await_health(self.service, self.folder)
        until(lambda: any(node.online for node in flower.nodes()), 60, "the node")
        until(lambda: '"started"' in self.log(), 60, "the worker")
        (node,) = flower.nodes()
        self.number = node.number
        flower.start("sha256:" + "0" * 64)
        self.wire = Wire(self.office, self._take())
        self._stack.callback(self.wire.close)

    def _take(self) -> str:
        """Take the task of the run's own app, as Flower's executor does."""
        secret = self.office.secret.read_bytes().strip()
        client = RuntimeHttpClient.from_server_address(
            server_address=f"127.0.0.1:{self.office.settings.superlink_port}",
            insecure=False,
            root_certificates=self.office.loopback_authority.read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}),
            ],
        )
        asking = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        try:
            tokens: list[str] = []
            until(lambda: tokens.append(client.AcquireTask(asking).token) or tokens[-1], 60, "the run's task")
            return tokens[-1]
        finally:
            client.close()

    def against(self, federation: Federation, log: Any) -> Hostile:
        """A hostile coordinator of a federation whose first partner stands in the node's place.

        Args:
            federation: A fresh copy; the node gets the content of its first partner's workspace.
            log: Where the nodes of the others log, which are in this process.
        """
        victim, *others = federation.names
        exchange(federation.folders[victim], self.folder)
        made = hostile(federation, log)  # it stamps Flower's identity for nodes in this process
        nodes = {name: Node(federation, name, log) for name in others}
        target = WireNode(self.wire, self.number, self.workspace)
        return Hostile(made.identity, made.signed, {victim: target, **nodes}, made.peers)

    def log(self) -> str:
        """What the worker has logged."""
        path = self.folder / "logs" / "worker.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def healthy(self) -> bool:
        """Whether the node's own health says so."""
        holder = running(self.folder / "run")
        assert holder is not None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{holder.ports['health']}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def processes(self) -> dict[str, int]:
        """The process ids of the partner's SuperNode and worker."""
        found = {}
        for line in (self.folder / "logs" / "service.log").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["event"] == "started" and "child" in entry:
                found[entry["child"]] = entry["pid"]
        return found

    def memory(self) -> dict[str, int]:
        """The most memory that each of them has used, in bytes."""
        return {name: _peak(pid) for name, pid in self.processes().items()}


def exchange(source: Path, folder: Path) -> None:
    """Put one workspace's content into another's place; what belongs to the running node stays."""
    for path in folder.iterdir():
        if path.name not in _STAYS | {"keys"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in source.iterdir():
        if path.name == "keys":
            for key in path.iterdir():
                if key.name not in _STAYS_KEY:
                    shutil.copy2(key, folder / "keys" / key.name)
        elif path.name not in _STAYS:
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, folder / path.name)


@contextmanager
def _running(command: Sequence[str], environment: dict[str, str], output: Path) -> Iterator[None]:
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    with output.open("ab") as file:
        one = subprocess.Popen([program, *command[1:]], env=environment, stdout=file, stderr=file, process_group=0)
    try:
        yield
    finally:
        one.terminate()
        try:
            one.wait(timeout=20)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()


def _answers(flower: Operator) -> bool:
    try:
        flower.nodes()
    except LinkFault:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _peak(pid: int) -> int:
    """The most memory that a process has used, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
