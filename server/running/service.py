"""`coterie coordinator start`: SuperLink, its executor and the gateway, kept alive, and studies dispatched to them."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.joining.certificates import expiry
from coterie.privacy.joining.forms import JoinFault
from coterie.processes.health import serve
from coterie.processes.held import hold
from coterie.processes.logs import event, json_log
from coterie.processes.metrics import ChildMetrics, Metrics
from coterie.processes.quiet import quiet_environment
from coterie.processes.supervise import Child, Supervisor
from coterie.processes.tally import counts
from coterie.server.bookrows import RUNNING
from coterie.server.books import Books
from coterie.server.certified import check_certificates
from coterie.server.office import Office
from coterie.server.running.deployed import OFFICE
from coterie.server.running.dispatch import Dispatcher
from coterie.server.running.operator import LinkFault, Operator, operator

__all__ = ["children", "run"]

_log = logging.getLogger("coterie.service")
_TICK = 1.0
_MEASURING = 10.0  # seconds between two looks for the metrics


def children(office: Office, environment: dict[str, str]) -> tuple[Child, ...]:
    """Return the processes of a coordinator.

    Args:
        office: The coordinator's folder.
        environment: What they are started with.
    """
    root, port = office.root.absolute(), office.settings.superlink_port
    link = Office(root)
    superlink = (
        *("flower-superlink", "--host", "127.0.0.1", "--port", str(port), "--isolation", "process"),
        *("--ssl-ca-certfile", str(link.loopback_authority), "--ssl-certfile", str(link.loopback_certificate)),
        *("--ssl-keyfile", str(link.loopback_key), "--enable-supernode-auth"),
        *("--database", str(link.superlink / "state.db"), "--disable-runtime-dependency-installation"),
        *("--superexec-auth-secret-file", str(link.secret)),
    )
    superexec = (
        *("flower-superexec", "--runtime-api-address", f"127.0.0.1:{port}"),
        *("--root-certificates", str(link.loopback_authority), "--superexec-auth-secret-file", str(link.secret)),
    )
    gateway = (sys.executable, "-m", "coterie.server.running.gateway", str(root))
    conducting = {**environment, OFFICE: str(root), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
    return (
        Child("superlink", superlink, environment, link.logs / "superlink.out"),
        Child("superexec", superexec, conducting, link.logs / "superexec.out"),
        Child("gateway", gateway, environment, link.logs / "gateway.out"),
    )


def run(folder: Path, *, stop: threading.Event, ready: Callable[[int], None]) -> None:
    """Run a coordinator's service until told to stop.

    Args:
        folder: The coordinator's folder.
        stop: Set to end.
        ready: Called with the health port once the processes are being started.

    Raises:
        FileFault: There is no coordinator's folder.
        JoinFault: A certificate has expired.
        CoterieError: The service runs already, the health port is taken, or it failed in looking after studies.
    """
    office = Office(folder)
    check_certificates(office, now())
    environment = quiet_environment(os.environ, office.root.absolute() / "superlink")
    log = json_log(office.logs / "service.log", component="service", clock=now)
    supervisor = Supervisor(children(office, environment), log=log, monotonic=time.monotonic)

    def status() -> dict[str, object]:
        states = supervisor.status()
        return {
            "ok": all(state.running for state in states.values()),
            "name": office.settings.name,
            "address": office.settings.address,
            "processes": {name: {"running": s.running, "restarts": s.restarts} for name, s in states.items()},
        }

    metrics = ChildMetrics(supervisor.status, lambda child: counts(office.run, child))
    with (
        hold(office.run, clock=now) as held,
        Books(office.books_url, now) as books,
        serve("127.0.0.1", office.settings.health_port, metrics=metrics, status=status) as health,
    ):
        held.tell({"health": health.port})
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        ended = threading.Event()

        def dispatch() -> None:
            _dispatch(office, books, metrics, stop)
            ended.set()

        dispatching = threading.Thread(target=dispatch, daemon=True)
        dispatching.start()
        ready(health.port)
        supervisor.run(stop)
        dispatching.join(timeout=5)
        if not dispatching.is_alive() and not ended.is_set():
            raise CoterieError(Fault("the service", "failed in looking after studies", "read logs/service.log"))
    event(log, "ended")


def _dispatch(office: Office, books: Books, metrics: Metrics, stop: threading.Event) -> None:
    """Look after nodes and studies until told to stop."""
    dispatcher = Dispatcher(office, books, time.monotonic)
    port, authority, measured = office.settings.superlink_port, office.loopback_authority, float("-inf")
    try:
        while not stop.wait(_TICK):
            # The SuperLink may be starting, or be started again; what is to be done is in the books.
            try:
                with operator(port, authority) as flower:
                    while not stop.wait(_TICK):
                        dispatcher.tick(flower)
                        if (at := time.monotonic()) - measured > _MEASURING:
                            _measure(office, books, flower, metrics)
                            measured = at
            except LinkFault:
                continue
            except CoterieError as error:  # the database is away, or a folder cannot be read: it may come back
                event(_log, "not-dispatching", level=logging.ERROR, error=type(error).__name__)
    finally:
        stop.set()  # a service that looks after no studies must not look healthy


def _measure(office: Office, books: Books, flower: Operator, metrics: Metrics) -> None:
    """Set what the metrics say of nodes, of the study at work, and of the gateway's certificate."""
    metrics.set("coterie_nodes", sum(node.online for node in flower.nodes()))
    with contextlib.suppress(OSError, JoinFault):  # the gateway's log says so
        ends = expiry(office.certificate.read_bytes()).timestamp()
        metrics.set("coterie_certificate_expiry_seconds", ends, certificate="gateway")
    for study in books.studies():
        if study.status == RUNNING:
            metrics.set("coterie_last_round", len(books.rounds(study.digest)))
