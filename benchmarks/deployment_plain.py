"""The peer of `deployment.py`: a plain Flower app on the same SuperLink, everything else by Flower's defaults.

SuperLink and executor are started as coterie's coordinator starts them (TLS, node authentication, SQLite, loopback),
without a gateway before them. The SuperNodes are Flower's own, with a process for every message.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flwr.cli.build import build_fab_from_files
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from footprint import Relay, relayed, spent, used

from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.joining.nodekey import make_node_key, public_of
from coterie.processes.logs import json_log
from coterie.processes.quiet import quiet_environment
from coterie.processes.supervise import Child, Supervisor
from coterie.server.office import Office
from coterie.server.running.operator import LinkFault, node_bytes, operator
from coterie.server.running.service import children

PEER = Path(__file__).with_name("deployment_peer")
_LONGEST = 300.0  # seconds to start, and for one round


@dataclass(frozen=True)
class Rounds:
    """What rounds cost.

    Args:
        seconds: Of each round but the first.
        up: Bytes from the nodes a round.
        down: Bytes to the nodes a round.
        cpu: Seconds of processor time a round, by process.
        answering: Seconds that a client's own work took, in the middle; None where it is not told.
    """

    seconds: tuple[float, ...]
    up: float
    down: float
    cpu: dict[str, float]
    answering: float | None = field(default=None)


@dataclass(frozen=True)
class Plain:
    """A stack that runs: its coordinator's folder, how many nodes it has, and what counts their bytes."""

    office: Office
    nodes: int
    relay: Relay


@contextmanager
def plain_stack(root: Path, nodes: int) -> Iterator[Plain]:
    """Start a SuperLink and SuperNodes, and stop them at the end."""
    public, link, health, *runtimes = free_ports(3 + nodes)
    address = f"127.0.0.1:{public}"
    office = Office.create(root / "coordinator", name="coordinator", address=address, clock=now)
    path = office.root / "coterie.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition(" ")[0] not in ("superlink_port", "health_port")]
    write_durably(path, "\n".join([*kept, f"superlink_port = {link}", f"health_port = {health}\n"]).encode())
    keys = [root / f"node{i}" for i in range(nodes)]
    started = list(children(office, quiet_environment(os.environ, office.superlink))[:2])
    for i, key in enumerate(keys):
        write_durably(key, make_node_key())
        started.append(_node(office, i, key, (address, runtimes[i])))
    supervisor = Supervisor(
        started, log=json_log(root / "plain.log", component="plain", clock=now), monotonic=time.monotonic
    )
    stop = threading.Event()
    with relayed(public, link) as relay:
        running = threading.Thread(target=supervisor.run, args=(stop,))
        running.start()
        try:
            _register(office, keys)
            yield Plain(office, nodes, relay)
        finally:
            stop.set()
            running.join()


def _node(office: Office, number: int, key: Path, ports: tuple[str, int]) -> Child:
    address, runtime = ports
    command = ("flower-supernode", "--superlink", address, "--root-certificates", str(office.loopback_authority))
    private = ("--auth-supernode-private-key", str(key), "--port", str(runtime))
    home = key.with_name(f"home{number}")
    home.mkdir()
    return Child(f"node{number}", (*command, *private), quiet_environment(os.environ, home), home / "node.out")


def _register(office: Office, keys: list[Path]) -> None:
    """Wait for the SuperLink and register the nodes; Flower's own SuperNode gives up where it is not known."""
    end = time.monotonic() + _LONGEST
    with operator(office.settings.superlink_port, office.loopback_authority) as hand:
        for key in keys:
            while True:
                try:
                    hand.register(node_bytes(public_of(key.read_bytes())), key.name)
                    break
                except LinkFault:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.2)


def plain_rounds(stack: Plain, numbers: int, rounds: int, *, client: str) -> Rounds:
    """Run an app for some rounds and return what all of them but the first cost.

    Args:
        stack: Running.
        numbers: Of the array.
        rounds: How many.
        client: The client's module: "client", or "learning" for one that imports torch.
    """
    told = stack.office.root / f"{client}-{numbers}.txt"
    told.touch()
    _start(stack, client, {"numbers": numbers, "rounds": rounds, "nodes": stack.nodes, "seconds": str(told)})
    _await(told, 1)
    up, down, before = stack.relay.up, stack.relay.down, used(os.getpid())
    _await(told, rounds)
    after = spent(before, used(os.getpid()))
    count = rounds - 1
    seconds = tuple(float(line) for line in told.read_text(encoding="utf-8").splitlines())
    return Rounds(
        seconds[1:],
        (stack.relay.up - up) / count,
        (stack.relay.down - down) / count,
        {name: cpu / count for name, cpu in after.items() if name != "other"},
    )


def _start(stack: Plain, client: str, config: dict[str, object]) -> None:
    files = {path.relative_to(PEER).as_posix(): path.read_bytes() for path in sorted(PEER.rglob("*.py"))}
    project = (PEER / "pyproject.toml").read_bytes()
    files["pyproject.toml"] = project.replace(b"peer.client:app", f"peer.{client}:app".encode())
    content, _ = build_fab_from_files(files)
    port, authority = stack.office.settings.superlink_port, stack.office.loopback_authority.read_bytes()
    version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
    hand = ControlHttpClient.from_server_address(f"127.0.0.1:{port}", False, authority, [version])  # noqa: FBT003
    request = StartRunRequest(fab=Fab(content=content), override_config=user_config_to_proto(config))
    if not hand.StartRun(request).run_id:
        raise RuntimeError("the SuperLink did not start the run")
    hand.close()


def _await(told: Path, lines: int) -> None:
    end = time.monotonic() + lines * _LONGEST
    while told.read_text(encoding="utf-8").count("\n") < lines:
        if time.monotonic() > end:
            raise RuntimeError(f"no round within {_LONGEST:g} seconds; read {told.parent / 'logs'}")
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
