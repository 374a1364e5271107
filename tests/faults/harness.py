"""One federation of real processes for a whole suite of faults, and what is seen of its studies meanwhile."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import CoterieError
from coterie.privacy.plan import Metrics, Plan
from coterie.privacy.signed import sign
from coterie.privacy.study import read_study
from coterie.processes.held import running
from coterie.server.bookrows import ENDED, FINISHED, Round, Study
from coterie.server.books import Books
from coterie.server.running.operator import node_bytes
from coterie.server.submitting import resume
from coterie.simulations import sources, studies
from coterie.simulations.deployment import Site, found
from coterie.tests.faults.machine import MOVED, Service
from coterie.tests.faults.middle import Middle
from coterie.tests.faults.network import Link, small_disk

NAMES = ("books", "electronics", "grocer", "travel")
LINKED = "travel"
"""The partner with a machine of its own; all others speak through the middle."""
DEADLINE = float(os.environ.get("FAULTS_DEADLINE", "20"))
"""Seconds that partners have for one answer; more where a machine is busy with other things."""
_LONG = 900.0


@dataclass
class Watch:
    """What the books say of the studies, one after another.

    Args:
        books: The coordinator's, open.
        plans: Signed with `site`'s identity when their turn comes.
        site: The federation.
        resumed: How often a study that had ended early was resumed, as an operator would, and why.
    """

    books: Books
    site: Site
    plans: list[Plan]
    resumed: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    _before: int = 0
    current: str = ""

    def turn(self) -> None:
        """Submit the next study where none is at work, and resume one that ended early."""
        if self.current:
            study = self.study()
            if study.status not in ENDED:
                return
            if study.status != FINISHED:
                self.resumed.append(f"{study.name}: {study.status}: {study.reason}")
                resume(self.books, study.digest)
                return
            self._before += len(self.books.rounds(self.current))
            self.done.append(self.current)
            self.current = ""
        if self.plans:
            self.current = self.books.submit(sign(self.plans.pop(0), self.site.office.identity)).digest

    def study(self) -> Study:
        """Return the study at work."""
        return self.books.study(self.current)

    def published(self) -> int:
        """Return the rounds that were published, of all studies; locked books are asked again."""
        with contextlib.suppress(CoterieError):
            self.turn()
        return self._before + (len(self.books.rounds(self.current)) if self.current else 0)

    def over(self) -> bool:
        """Return whether all studies are finished."""
        self.published()
        return not self.current and not self.plans

    def last(self) -> Round | None:
        """Return the newest round."""
        rounds = self.books.rounds(self.current) if self.current else ()
        return rounds[-1] if rounds else None

    def further(self, before: int, count: int, seconds: float) -> bool:
        """Wait until so many rounds more than `before` are published; return whether they were in time."""
        end = time.monotonic() + seconds
        while self.published() < before + count and not self.over():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def absences(self) -> set[tuple[str, str, str, int, str]]:
        """Return who was named, in all studies, for what."""
        found: set[tuple[str, str, str, int, str]] = set()
        for digest in (*self.done, *([self.current] if self.current else [])):
            found |= {
                (digest, one.partner, one.step, one.round, one.why or one.code) for one in self.books.refusals(digest)
            }
        return found


@dataclass
class World:
    """The federation, with everything that faults are done to.

    Args:
        site: Folders and plan.
        partners: Their services by name.
        coordinator: Its service.
        middle: The proxy between partners and the gateway.
        watch: What the books say.
        link: The link of `LINKED`; None where it has no machine of its own.
        clocks: Files with the seconds by which partners' clocks are moved.
    """

    site: Site
    partners: dict[str, Service]
    coordinator: Service
    middle: Middle
    watch: Watch
    link: Link | None
    clocks: dict[str, Path]


def faulty_plan(name: str, rounds: int, **changes: object) -> Plan:
    """Return a plan of many short rounds.

    Args:
        name: Of the study.
        rounds: How many.
        changes: Of its privacy.
    """
    plan = read_study(studies.path("synthetic")).plan
    return dataclasses.replace(
        plan,
        name=name,
        partners=tuple(partner for partner in plan.partners if partner.name in NAMES),
        training=dataclasses.replace(
            plan.training, rounds=rounds, local_steps=1, sample_rate=0.05, learning_rate=1.0, spare=40
        ),
        metrics=Metrics(rounds=tuple(sorted({max(1, rounds // 2), rounds}))),
        privacy=dataclasses.replace(plan.privacy, epsilon=4.0, **{"trust": "local", "threshold": 2, **changes}),
    )


@contextmanager
def world(root: Path, plans: list[Plan], *, disks: bool, number: int | None) -> Iterator[World]:
    """Set up a federation, start its processes, and stop just these at the end.

    Args:
        root: An empty folder.
        plans: The studies, without keys, in their order.
        disks: Whether every folder is to be on a small disk of its own; needs root.
        number: Of the namespace of `LINKED`; None for none. Needs root.
    """
    tables = {name: table for name, table in sources.load("synthetic").items() if name in NAMES}
    site = found(root, plans[0], tables, seed=0, settings={"deadline": str(DEADLINE)})
    port = int(site.office.settings.address.rpartition(":")[2])
    listen = _listen(site, port, everywhere=number is not None)
    keyed = {partner.name: partner for partner in site.plan.partners}
    for plan in plans[1:]:
        _allow(site, plan)
    ready = [dataclasses.replace(plan, partners=tuple(keyed[p.name] for p in plan.partners)) for plan in plans]
    pair = (root / "middle.pem", root / "middle.key")
    pair[0].write_bytes(site.office.loopback_certificate.read_bytes())
    pair[1].write_bytes(site.office.loopback_key.read_bytes())
    clocks = {name: root / f"{name}.clock" for name in site.workspaces}
    (root / "moved").mkdir()
    (root / "moved" / "sitecustomize.py").write_text(MOVED)
    with ExitStack() as stack:
        if disks:
            for folder in site.workspaces.values():
                stack.enter_context(small_disk(folder, 64))
            stack.enter_context(small_disk(site.office.root, 512))
        link = stack.enter_context(Link(number, port, listen).up()) if number is not None else None
        books = stack.enter_context(Books(site.office.books_url, now))
        keys = {node_bytes(member.node): member.name for member in books.members()}
        middle = stack.enter_context(Middle(port, listen, pair, keys))
        environment = {"OMP_NUM_THREADS": "1"}
        coordinator = Service("coordinator", site.office.root, (), environment)
        moved = {"PYTHONPATH": os.pathsep.join([str(root / "moved"), os.environ.get("PYTHONPATH", "")])}
        partners = {
            name: Service(
                "partner",
                folder,
                link.inside(()) if link is not None and name == LINKED else (),
                {**environment, **moved, "FAULTS_CLOCK": str(clocks[name])},
            )
            for name, folder in site.workspaces.items()
        }
        for service in (coordinator, *partners.values()):
            stack.callback(service.stop)
            service.start()
        _await(site, [coordinator, *partners.values()])
        yield World(site, partners, coordinator, middle, Watch(books, site, ready), link, clocks)


def _await(site: Site, services: list[Service]) -> None:
    """Wait until every service is there, by the lock of its folder."""
    folders = [site.office.root, *site.workspaces.values()]
    end = time.monotonic() + 400
    while not all(running(folder / "run") is not None for folder in folders):
        if time.monotonic() > end or not all(service.alive() for service in services):
            raise RuntimeError(f"a service did not start: see the files that end in .out below {site.root}")
        time.sleep(0.2)


def _listen(site: Site, port: int, *, everywhere: bool) -> int:
    """Let the gateway listen elsewhere than where partners connect, and return its port."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        chosen = int(free.getsockname()[1])
    path = site.office.root / "coterie.toml"
    host = "0.0.0.0" if everywhere else "127.0.0.1"  # noqa: S104 - the namespace's link is an interface of its own
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("listen ")]
    write_durably(path, "\n".join([*lines, f'listen = "{host}:{chosen}"', ""]).encode())
    return chosen


def _allow(site: Site, plan: Plan) -> None:
    """Let the partners' policies permit a further study."""
    for folder in site.workspaces.values():
        workspace = Workspace(folder)
        text = workspace.policy.read_text(encoding="utf-8")
        trust = f'"{plan.privacy.trust}"'
        lines = [
            f"{line[:-1]}, {trust}]" if line.startswith("trust = ") and trust not in line else line
            for line in text.splitlines()
        ]
        lines = [f"lifetime_epsilon = {_LONG}" if line.startswith("lifetime_epsilon") else line for line in lines]
        write_durably(workspace.policy, ("\n".join(lines) + "\n").encode())
