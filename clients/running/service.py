"""`coterie partner start`: the SuperNode and the worker of one workspace, kept alive until told to stop."""

import datetime
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coterie.clients.joined import joined
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.fields.sources.settings import secret_variables
from coterie.processes.health import serve
from coterie.processes.held import hold
from coterie.processes.logs import json_log
from coterie.processes.metrics import ChildMetrics
from coterie.processes.quiet import quiet_environment
from coterie.processes.supervise import Child, Supervisor
from coterie.processes.tally import counts

__all__ = ["children", "run"]

_SUPERNODE, _WORKER = "supernode", "worker"


def children(workspace: Workspace, environment: dict[str, str]) -> tuple[Child, ...]:
    """Return the processes of a partner.

    Args:
        workspace: The partner's.
        environment: What they are started with; what leads to the vault's keys is the worker's alone.

    Raises:
        FileFault: The workspace's settings are wrong.
    """
    room, secret = "coterie.clients.running", secret_variables(workspace.key_settings)
    public = {name: value for name, value in environment.items() if name not in secret}
    return tuple(
        Child(
            name,
            (sys.executable, "-m", f"{room}.{name}", str(workspace.root.absolute())),
            given,
            workspace.logs / f"{name}.out",
        )
        for name, given in ((_SUPERNODE, public), (_WORKER, environment))
    )


def run(folder: Path, *, health_port: int, stop: threading.Event, ready: Callable[[int], None]) -> None:
    """Run a partner's node until told to stop.

    Args:
        folder: The workspace.
        health_port: On loopback, for health and metrics; 0 for any that is free.
        stop: Set to end.
        ready: Called with the health port once the processes are being started.

    Raises:
        FileFault: There is no workspace, or it has not joined.
        JoinFault: The admission has expired.
        CoterieError: The node runs already, or the health port is taken.
    """
    workspace = Workspace(folder)
    admission = joined(workspace)
    admission.check_dates(now())
    workspace.logs.mkdir(mode=0o700, exist_ok=True)
    workspace.run.mkdir(mode=0o700, exist_ok=True)
    environment = quiet_environment(os.environ, workspace.root.absolute() / "supernode")
    log = json_log(workspace.logs / "service.log", component="service", clock=now)
    supervisor = Supervisor(
        children(workspace, environment), log=log, monotonic=time.monotonic, together=frozenset({_SUPERNODE, _WORKER})
    )

    metrics = ChildMetrics(supervisor.status, lambda child: counts(workspace.run, child))
    ends = datetime.datetime.fromisoformat(admission.expires).timestamp()
    metrics.set("coterie_certificate_expiry_seconds", ends, certificate="admission")

    def status() -> dict[str, object]:
        states = supervisor.status()
        return {
            "ok": all(state.running for state in states.values()),
            "name": admission.name,
            "coordinator": admission.address,
            "processes": {name: {"running": s.running, "restarts": s.restarts} for name, s in states.items()},
        }

    with (
        hold(workspace.run, clock=now) as held,
        serve("127.0.0.1", health_port, metrics=metrics, status=status) as health,
    ):
        held.tell({"health": health.port})
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        ready(health.port)
        supervisor.run(stop)
