"""A federation of real processes on this machine: a coordinator and partners, each as an operator would run it.

Everything is set up through what the commands do (requests, admissions, installed certificates), and every process is
started by its command. What differs from the real thing: all keys lie on one machine, and nobody telephones.
"""

import dataclasses
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from coterie.clients import joined
from coterie.clients.bundle import bundle_digest
from coterie.clients.workspace import Workspace
from coterie.models.catalogue import Catalogue
from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.plan import Plan
from coterie.processes.held import running
from coterie.server import admitting
from coterie.server.office import Office
from coterie.simulations.partners import equip, folder_of

__all__ = ["Site", "StartFault", "await_health", "found", "join", "narrowed", "process", "started"]

_STARTING = 120.0  # seconds that a process has to say that it is there


class StartFault(CoterieError):
    """A process of the federation did not start."""


@dataclass(frozen=True)
class Site:
    """Where a federation of processes lives.

    Args:
        root: Its folder.
        plan: The study, with the partners' keys.
    """

    root: Path
    plan: Plan

    @property
    def office(self) -> Office:
        """The coordinator's folder."""
        return Office(self.root / "coordinator")

    @property
    def workspaces(self) -> dict[str, Path]:
        """The partners' workspaces by name."""
        return {partner.name: self.root / "partners" / folder_of(partner.name) for partner in self.plan.partners}


def found(  # noqa: PLR0913 - all of it is the edge of the program
    root: Path,
    plan: Plan,
    tables: Mapping[str, pa.Table],
    *,
    seed: int,
    catalogue: Catalogue | None = None,
    identifiers: Mapping[str, pa.Table] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Site:
    """Make a coordinator and partners that have joined it.

    Args:
        root: A folder that is missing or empty.
        plan: The study, without keys.
        tables: The partners' tables by name.
        seed: Decides which customers are held out.
        catalogue: The items of a plan that recommends.
        identifiers: The partners' tables of identifiers by name, for a plan that matches.
        settings: Values of the coordinator's coterie.toml, as TOML, that replace those of this module.

    Raises:
        FileFault: The folder is not empty.
    """
    ports = _free_ports(3)
    office = Office.create(
        root / "coordinator",
        name="coordinator",
        address=f"localhost:{ports[0]}",
        clock=now,
        listen=f"127.0.0.1:{ports[0]}",
    )
    chosen = {"superlink_port": str(ports[1]), "health_port": str(ports[2]), "deadline": "120", **(settings or {})}
    lines = (office.root / "coterie.toml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition(" ")[0] not in chosen]
    text = "\n".join([*kept, *(f"{key} = {value}" for key, value in chosen.items())]) + "\n"
    write_durably(office.root / "coterie.toml", text.encode())
    public = office.identity.public
    keyed = equip(root, plan, tables, seed=seed, catalogue=catalogue, identifiers=identifiers, coordinator=public)
    site = Site(root, keyed)
    for folder in site.workspaces.values():
        join(office, Workspace(folder))
    return site


def join(office: Office, workspace: Workspace) -> None:
    """Take a partner through request, admission and installation.

    Args:
        office: The coordinator's folder.
        workspace: The partner's.
    """
    request = joined.first_request(workspace, version=importlib.metadata.version("coterie"), now=now())
    bundle = f"sha256:{bundle_digest()}"
    asked = admitting.consider(office, request, clock=now)
    admission = admitting.admit(office, asked, bundle=bundle, days=30, clock=now)
    joined.install(workspace, admission, bundle=bundle, now=now())


@contextmanager
def started(site: Site, partners: Sequence[str] | None = None) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """Start the coordinator and partners by their commands, and stop just these at the end.

    Args:
        site: The federation.
        partners: Whom to start; all when None.

    Yields:
        The processes: "coordinator", and each partner by name.

    Raises:
        StartFault: One of them did not start.
    """
    names = list(site.workspaces) if partners is None else list(partners)
    with ExitStack() as stack:
        processes = {"coordinator": stack.enter_context(process(_command("coordinator"), site.office.root))}
        for name in names:
            processes[name] = stack.enter_context(process(_command("partner"), site.workspaces[name]))
        for name, one in processes.items():
            await_health(one, site.office.root if name == "coordinator" else site.workspaces[name])
        yield processes


@contextmanager
def process(
    command: Sequence[str], folder: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a service of a folder until the block ends.

    Args:
        command: What is run; the folder is put behind it.
        folder: A workspace, or a coordinator's folder.
        environment: Of the process; this one's when None.
    """
    (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    with (folder / "logs" / "start.out").open("ab") as output:
        # A group of its own: a Ctrl-C at the terminal is for the caller, who stops things in their order.
        one = subprocess.Popen(  # noqa: S603 - the caller's own command
            [*command, str(folder)],
            stdout=output,
            stderr=output,
            env=dict(os.environ if environment is None else environment),
            process_group=0,
        )
    try:
        yield one
    finally:
        if one.poll() is None:
            one.send_signal(signal.SIGTERM)
        one.wait(timeout=60)


def await_health(service: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait until a service says that it is healthy.

    Args:
        service: The process.
        folder: The workspace, or the coordinator's folder, that it serves.

    Raises:
        StartFault: It ended, or was not up in time.
    """
    end = time.monotonic() + _STARTING
    while time.monotonic() < end:
        if service.poll() is not None:
            raise StartFault(Fault(folder.name, "ended at its start", f"read {folder / 'logs' / 'start.out'}"))
        holder = running(folder / "run")
        if holder is not None and "health" in holder.ports and _healthy(holder.ports["health"]):
            return
        time.sleep(0.2)
    raise StartFault(Fault(folder.name, f"was not up within {_STARTING:g} seconds", f"read {folder / 'logs'}"))


def _command(door: str) -> list[str]:
    return [sys.executable, "-m", "coterie.cli.main", door, "start"]


def _healthy(port: int) -> bool:
    try:
        # Without a proxy: what is asked is this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def narrowed(plan: Plan, names: Sequence[str]) -> Plan:
    """Return a plan for some of its partners, with the least threshold that secure sums have; a match needs them all.

    Args:
        plan: The study.
        names: Of the partners that stay.

    Raises:
        FileFault: So few partners cannot have this study.
    """
    stay = tuple(partner for partner in plan.partners if partner.name in names)
    threshold = len(stay) if plan.matches else min(max(2, 2 * len(stay) // 3 + 1), len(stay))
    parts = plan.privacy.partners_per_person
    privacy = dataclasses.replace(
        plan.privacy, threshold=threshold, partners_per_person=None if parts is None else min(parts, len(stay))
    )
    matching = plan.matching
    if matching is not None and matching.teller not in {"", *names}:
        matching = dataclasses.replace(matching, teller="")
    fewer = dataclasses.replace(plan, partners=stay, privacy=privacy, matching=matching)
    fewer.check("the study of fewer partners")
    return fewer
