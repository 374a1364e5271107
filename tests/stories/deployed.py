"""A federation of real processes for the stories: a coordinator, three partners with known noise, and an outsider.

The processes are those of the shipped commands but for the partners' workers (`seeded.py`). Every one of them, and
every process that it starts, writes down the names that it looks up and the programs that it runs (`RECORDER`), and
looks up none but this machine's own.
"""

import ast
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from coterie.clients.joined import joined
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.ledger import Ledger
from coterie.privacy.signed import sign
from coterie.processes import leash
from coterie.server.bookrows import ENDED
from coterie.server.books import Books
from coterie.server.registry import Registry
from coterie.server.running.operator import LinkFault, operator
from coterie.simulations.deployment import Site, await_health, found, join, process
from coterie.simulations.partners import partner_folders
from coterie.tests.clients.federation import NAMES, secure_study, study, table_of, with_cells

OUTSIDER = "fig"
"""A partner that is admitted, and in no plan."""

WORDS = {"customer": "canary-id-7f3a91c4", "spend": 271.8281828}
"""What lies in one row of a partner's table, and nowhere else."""

SEEDED = (sys.executable, str(Path(__file__).with_name("seeded.py")), "partner")
COMMAND = (sys.executable, "-m", "coterie.cli.main")

# uvloop resolves in C, past the audit; without it everything is asked of Python's own functions.
RECORDER = """
import os, sys
sys.modules["uvloop"] = None
_NAMES = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
_RUNS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}
_OWN = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}
def _write(kind, what):
    handle = os.open(%r, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, (kind + "\\t" + what.replace("\\n", " ") + "\\n").encode())
    os.close(handle)
def _hear(event, details):
    if event in _NAMES:
        name = details[0][0] if isinstance(details[0], tuple) else details[0]
        name = name.decode() if isinstance(name, bytes) else name or ""
        _write("name", name)
        if name not in _OWN:
            raise OSError("this is a test: nothing is looked up")
    elif event in _RUNS:
        _write("runs", repr((str(details[0]),)))
sys.addaudithook(_hear)
_write("process", " ".join(sys.orig_argv))
"""


class Live:
    """A federation of processes; what is asked for is started, and all of it is stopped in the end.

    Args:
        root: A folder that is missing or empty.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.local = study(name="openly", privacy__epsilon=2.0)
        tables = {name: table_of(name) for name in NAMES}
        tables["birch"] = with_cells(tables["birch"], "customer", {3: WORDS["customer"]})
        tables["birch"] = with_cells(tables["birch"], "spend", {3: WORDS["spend"]})
        self.site: Site = found(root / "site", self.local, tables, seed=7, settings={"deadline": "60"})
        self.local = self.site.plan
        secure = secure_study(NAMES, name="securely", privacy__epsilon=2.0)
        self.secure = dataclasses.replace(secure, partners=self.local.partners)
        for folder in self.site.workspaces.values():
            _permit(Workspace(folder).policy)
        self.outsider = Workspace.create(root / "outsider", OUTSIDER)
        shutil.copy(Workspace(self.folders["amber"]).policy, self.outsider.policy)
        join(self.site.office, self.outsider)
        shutil.copytree(root / "site" / "partners", root / "before")
        self.heard = root / "heard.txt"
        (root / "recorder").mkdir()
        (root / "recorder" / "sitecustomize.py").write_text(RECORDER % str(self.heard), encoding="utf-8")
        self._up: dict[str, tuple] = {}
        self._stack = ExitStack()

    # --- processes ----------------------------------------------------------------------------------------

    @property
    def folders(self) -> dict[str, Path]:
        """Every folder that a service runs in."""
        partners = {name: self.root / "site" / "partners" / name for name in NAMES}
        return {"coordinator": self.site.office.root, **partners, OUTSIDER: self.root / "outsider"}

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root / "recorder")}

    def start(self, *names: str) -> None:
        """Start what does not run yet, and wait until it does."""
        started = []
        for name in names:
            if name in self._up and self._up[name][0].poll() is None:
                continue
            command = (*COMMAND, "coordinator", "start") if name == "coordinator" else SEEDED
            # Should the tests be killed, nothing of this goes on.
            command = (sys.executable, "-I", "-S", str(leash.__file__), str(os.getpid()), *command)
            stack = ExitStack()
            one = stack.enter_context(process(command, self.folders[name], environment=self.environment))
            self._up[name] = (one, stack)
            started.append((one, name))
        for one, name in started:
            await_health(one, self.folders[name])

    def start_all(self) -> None:
        """Start the coordinator and the plan's partners."""
        self.start("coordinator", *NAMES)
        until(lambda: set(NAMES) <= self.online(), 120, "every partner's node")

    def online(self) -> set[str]:
        """Whose nodes the SuperLink takes to be there."""
        office = self.site.office
        try:
            with operator(office.settings.superlink_port, office.loopback_authority) as link:
                return {node.name for node in link.nodes() if node.online}
        except LinkFault:
            return set()

    def service(self, name: str):
        """The process of a service."""
        return self._up[name][0]

    def stop(self, *names: str) -> None:
        """Stop services, as at their end."""
        for name in names:
            self._up.pop(name)[1].close()

    def close(self) -> None:
        """Stop whatever runs; partners first."""
        self.stop(*sorted(self._up, key=lambda name: name == "coordinator"))

    # --- studies ------------------------------------------------------------------------------------------

    def books(self) -> Books:
        return Books(self.site.office.books_url, now)

    def submit(self, plan) -> str:
        with self.books() as books:
            return books.submit(sign(plan, self.site.office.identity)).digest

    def ended(self, digest: str, seconds: float = 240.0):
        """Wait for a study's end and return it."""
        with self.books() as books:
            until(lambda: books.study(digest).status in ENDED, seconds, f"the end of {digest}")
            return books.study(digest)

    def run(self, plan):
        """Run a study to its end."""
        return self.ended(self.submit(plan))

    def named(self, name: str, **changes):
        """A study like the others, under a name of its own."""
        return dataclasses.replace(self.local, name=name, **changes)

    def progress(self, plan):
        """The last published state of a study."""
        return Registry(self.site.office.study(plan.digest())).resume(plan.digest())

    def twin(self, plan) -> Path:
        """A folder in which a study can be simulated among the same partners as they were before the first start."""
        root = self.root / f"twin-{plan.name}"
        shutil.copytree(self.root / "before", root / "partners")
        (root / "coordinator").mkdir()
        shutil.copy(self.site.office.identity_file, root / "coordinator" / "identity.pem")
        (root / "coordinator" / "plan.json").write_bytes(sign(plan, self.site.office.identity).to_bytes())
        return root

    # --- what is to be seen -------------------------------------------------------------------------------

    def charges(self, name: str, plan) -> dict[str, str]:
        """The digests of a partner's releases by what paid for them."""
        return charges_of(self.folders[name], plan)

    def log(self, name: str, file: str) -> list[dict]:
        """Lines of a JSON log."""
        path = self.folders[name] / "logs" / file
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def output(self, name: str, file: str) -> str:
        """What a child process printed."""
        path = self.folders[name] / "logs" / file
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def address(self) -> tuple[str, int]:
        """The public address of the coordinator."""
        host, _, port = joined(self.outsider).address.rpartition(":")
        return host, int(port)

    def heard_of(self, kind: str) -> list[str]:
        """What the processes wrote down of one kind: "process", "name" or "runs"."""
        lines = self.heard.read_text(encoding="utf-8", errors="replace").splitlines()
        return [what for sort, _, what in (line.partition("\t") for line in lines) if sort == kind]


def programs(runs: list[str]) -> set[str]:
    """Return the names of the programs that were run, from what the processes wrote down."""
    return {Path(os.fsdecode(ast.literal_eval(one)[0])).name for one in runs}


def charges_of(folder: Path, plan) -> dict[str, str]:
    """Return the digests of releases by what paid for them, from a workspace's ledger."""
    with Ledger(Workspace(folder).ledger, now) as ledger:
        return {one.charge.key: one.settled for one in ledger.charges_of(plan.digest())}


def twin_folders(root: Path, plan) -> dict[str, Path]:
    """Return the workspaces of a simulation by partner."""
    return dict(zip(NAMES, partner_folders(root, plan), strict=True))


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} seconds"
        time.sleep(0.1)


def _permit(policy: Path) -> None:
    """Let a partner's policy permit every study of the stories."""
    text = policy.read_text(encoding="utf-8")
    for old, new in (
        ('trust = ["local"]', 'trust = ["local", "secure-aggregation"]'),
        ("lifetime_epsilon = 12.0", "lifetime_epsilon = 60.0"),
    ):
        assert old in text
        text = text.replace(old, new)
    policy.write_text(text, encoding="utf-8")
