"""A small federation in a temporary folder: real workspaces, ledgers, apps and messages, and no network.

Imported as `coterie.tests.clients.federation`, so that the tests of every folder build theirs the same way.
"""

import ctypes
import dataclasses
import datetime
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto

from coterie.clients.app import client_app
from coterie.clients.keeping import Record, keeping_of
from coterie.clients.node import open_node
from coterie.clients.sealing import stage
from coterie.clients.tables.table import whole
from coterie.clients.task import Task, encoding_of
from coterie.clients.vault import CUSTOMERS, open_vault
from coterie.clients.wire import encode_plan, encode_task, split_head, with_head
from coterie.clients.workspace import Workspace
from coterie.models import propensity
from coterie.privacy.calibration import calibrate
from coterie.privacy.contract import Column, Contract
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Cohort, Metrics, Model, Partner, Plan, Privacy, Training
from coterie.privacy.randomness import SeededSource
from coterie.privacy.signed import SignedPlan, sign
from coterie.server.coordinator import Patience, run_study
from coterie.server.registry import Registry
from coterie.server.witness import Witness
from coterie.simulations.engines.local import LocalGrid
from coterie.simulations.engines.ray import node_configs
from coterie.simulations.partners import partner_folders, provision, workspace_of

NAMES = ("amber", "birch", "cedar")
MORE = (*NAMES, "damson", "elder", "fig")
TODAY = datetime.datetime(2031, 5, 4, 12, tzinfo=datetime.UTC)
REGIONS = ("north", "south", "east")
SEEDED = SeededSource(b"tests")
BOOKKEEPING = ("opened", "policy", "model", "vault")
AT_ONCE = Patience(seconds=0.0, poll=0.0)  # a reply that is not there at the first look is not waited for

CONTRACT = Contract(
    customer="customer",
    label="bought",
    columns=(
        Column(name="age", kind="numeric", low=18, high=90),
        Column(name="spend", kind="numeric", low=0, high=500, edges=(50, 150)),
        Column(name="region", kind="categorical", values=REGIONS),
    ),
)


def today() -> datetime.datetime:
    return TODAY


def study(**changes) -> Plan:
    """A plan of three partners and two rounds; `changes` replace fields, "privacy__epsilon" those of a part."""
    plan = Plan(
        name="spring",
        purpose="coupons",
        task="propensity",
        expires=datetime.date(2031, 12, 31),
        contract=CONTRACT,
        model=Model(family="logistic"),
        training=Training(rounds=2, local_steps=2, sample_rate=0.3, learning_rate=0.5, clip=1.0),
        privacy=Privacy(
            unit="customer of one partner", epsilon=4.0, delta=1e-5, trust="local", threshold=2, colluders=1
        ),
        metrics=Metrics(rounds=(1, 2), bins=8),
        cohort=Cohort(minimum_customers=10),
        partners=tuple(Partner(name=name, customers=120) for name in NAMES),
    )
    return changed(plan, **changes)


def secure_study(names: tuple[str, ...] = MORE[:4], **changes) -> Plan:
    """A plan of secure sums: two rounds of two steps, opened over at least three of four partners."""
    least = len(names) * 2 // 3 + 1
    plan = study(
        partners=tuple(Partner(name=name, customers=120) for name in names),
        privacy__trust="secure-aggregation",
        privacy__threshold=max(3, least),
    )
    return changed(plan, **changes)


def changed(plan: Plan, **changes) -> Plan:
    """Replace fields of a plan, or of a part of it: `changed(plan, privacy__epsilon=2.0)`."""
    for key, value in changes.items():
        part, _, name = key.partition("__")
        inner = dataclasses.replace(getattr(plan, part), **{name: value}) if name else value
        plan = dataclasses.replace(plan, **{part: inner})
    return plan


def table_of(name: str = "amber", count: int = 150) -> pa.Table:
    """Customers of a partner, one row each."""
    draw = np.random.default_rng([MORE.index(name), count])
    age = draw.integers(18, 91, count)
    spend = draw.uniform(0, 500, count).round(2)
    return pa.table(
        {
            "customer": [f"{name}-{index:05d}" for index in range(count)],
            "age": age,
            "spend": spend,
            "region": draw.choice(REGIONS, count),
            "bought": (draw.uniform(size=count) < 1 / (1 + np.exp(2 - spend / 150))).astype(np.int64),
        }
    )


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    """A table with one column in another's place."""
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def with_cells(table: pa.Table, name: str, cells: dict[int, object]) -> pa.Table:
    """A table with some cells of a column in others' place."""
    values = table[name].to_pylist()
    for row, value in cells.items():
        values[row] = value
    return with_column(table, name, values)


class Recorder(LocalGrid):
    """A grid that keeps the bytes of all that passes it, as Flower would send them."""

    def __init__(self, client, nodes) -> None:
        super().__init__(client, nodes)
        self.passed: list[bytes] = []
        self.deaf: set[int] = set()  # nodes that never answer

    def pull_messages(self, message_ids):
        sent = [self._sent[i] for i in message_ids if i in self._sent]
        self.passed += [message_to_proto(message).SerializeToString() for message in sent]
        for message_id in [m.metadata.message_id for m in sent if m.metadata.dst_node_id not in self.deaf]:
            for reply in super().pull_messages([message_id]):
                self.passed.append(message_to_proto(reply).SerializeToString())
                yield reply


class Federation:
    """Three partners and a coordinator under `root`."""

    def __init__(self, root: Path, plan: Plan | None = None, tables: dict[str, pa.Table] | None = None) -> None:
        plan = plan or study()
        self.root = root
        self.names = tuple(partner.name for partner in plan.partners)
        self.signed = provision(root, plan, tables or {name: table_of(name) for name in self.names}, seed=7)
        self.plan = self.signed.plan
        self.digest = self.plan.digest()
        self.folders = dict(zip(self.names, partner_folders(root, self.plan), strict=True))
        self.coordinator = Identity.load(root / "coordinator" / "identity.pem")
        self.random = SEEDED
        self.clock: Callable[[], datetime.datetime] = today

    # --- one partner, without Flower ----------------------------------------------------------------------

    def workspace(self, name: str = "amber") -> Workspace:
        return Workspace(self.folders[name])

    @contextmanager
    def node(self, name: str = "amber"):
        with open_node(self.folders[name], random=self.random, clock=self.clock) as node:
            yield node

    def propose(self, name: str = "amber", signed: bytes | None = None):
        with self.node(name) as node:
            return node.propose(self.signed.to_bytes() if signed is None else signed)

    def task(self, round_: int = 1, attempt: int = 1, *, weights=None, plan: str | None = None) -> Task:
        return Task(plan or self.digest, round_, attempt, self.weights() if weights is None else weights)

    def train(self, name: str = "amber", *args, **kwargs):
        with self.node(name) as node:
            return node.train(self.task(*args, **kwargs))

    def measure(self, name: str = "amber", *args, **kwargs):
        with self.node(name) as node:
            return node.measure(self.task(*args, **kwargs))

    def weights(self, shift: float = 0.0) -> propensity.Weights:
        model = self.plan.model
        start = propensity.initial(model.family, encoding_of(self.plan.contract).width, model.hidden, seed=0)
        return tuple((array + np.float32(shift)).astype(np.float32) for array in start)

    # --- what a partner keeps -----------------------------------------------------------------------------

    def everything(self, name: str = "amber") -> list:
        """Every entry of a partner's ledger."""
        with Ledger(self.workspace(name).ledger, self.clock) as ledger:
            return list(ledger.entries())

    def entries(self, name: str = "amber") -> list:
        """The entries about studies, without what the ledger says of the partner itself."""
        return [entry for entry in self.everything(name) if entry.kind not in BOOKKEEPING]

    def kinds(self, name: str = "amber") -> list[str]:
        return [entry.kind for entry in self.entries(name)]

    def reservations(self, name: str = "amber") -> tuple:
        with Ledger(self.workspace(name).ledger, self.clock) as ledger:
            return ledger.reservations()

    def report(self, name: str = "amber", file: str = "refusals.log") -> str:
        path = self.folders[name] / "reports" / file
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def kept(self, name: str = "amber") -> dict[str, Record]:
        """The sealed counts of what was opened, by the commitments to them."""
        with self.workspace(name).lock():
            return {record.commitment: record for record in keeping_of(self.workspace(name)).read_all()}

    def noted(self, name: str = "amber") -> set[str]:
        """Every count that was kept of what was opened, in words."""
        return {f"{what}: {count}" for record in self.kept(name).values() for what, count in record.counts.items()}

    def put(self, table: pa.Table, name: str = "amber") -> None:
        """Put a table into a vault as it is, past the checks of the intake."""
        with open_vault(self.folders[name], self.clock) as vault:
            stage(vault, CUSTOMERS, table.to_batches(), schema=table.schema, customer="customer").commit("sealed")

    @contextmanager
    def sealed(self, name: str = "amber", dataset: str = CUSTOMERS):
        """A partner's sealed table, while nobody else holds its workspace."""
        with open_vault(self.folders[name], self.clock) as vault:
            yield vault.table(dataset)

    def rows(self, name: str = "amber") -> pa.Table:
        """What a partner's vault holds."""
        with self.sealed(name) as table:
            return whole(table, table.schema.names)

    def streams(self, name: str = "amber") -> Path:
        """The folder of a partner's sealed columns."""
        return self.workspace(name).vault / CUSTOMERS / "streams"

    def lose(self, name: str = "amber") -> None:
        """Take the sealed columns away."""
        self.streams(name).rename(self.streams(name).with_name("away"))

    def find(self, name: str = "amber") -> None:
        """Bring back what `lose` took."""
        self.streams(name).with_name("away").rename(self.streams(name))

    def policy(self, name: str = "amber", **changes) -> None:
        """Change a partner's policy; "budget__delta" for a key of the budget."""
        path = self.workspace(name).policy
        rules = tomllib.loads(path.read_text(encoding="utf-8"))
        for key, value in changes.items():
            part, _, inner = key.partition("__")
            (rules[part] if inner else rules)[inner or part] = value
        elsewhere, red_lines = rules.pop("consent", {}).get("elsewhere", {}), rules.pop("red_lines", {})
        if not {"consent", "consent__elsewhere"} & set(changes):  # a study asks for no consents but where a test does
            elsewhere = {**dict.fromkeys(rules["purposes"], "tests: made-up customers"), **elsewhere}
        budget, segments, peers = rules.pop("budget"), rules.pop("segments", None), rules.pop("peers", {})
        approval, matching = rules.pop("approval", None), rules.pop("matching", None)
        purposes = budget.pop("purposes", {})
        lines = [f"{key} = {json.dumps(value)}" for key, value in rules.items()]
        if segments is not None:
            lines += ["[segments]", *(f"{key} = {json.dumps(value)}" for key, value in segments.items())]
        if approval is not None:
            lines += ["[approval]", *(f"{key} = {json.dumps(value)}" for key, value in approval.items())]
        if matching is not None:
            lines += ["[matching]", *(f"{key} = {json.dumps(value)}" for key, value in matching.items())]
        lines += ["[budget]", *(f"{key} = {value!r}" for key, value in budget.items())]
        lines += ["[peers]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in peers.items())]
        lines += ["[budget.purposes]", *(f"{json.dumps(key)} = {value!r}" for key, value in purposes.items())]
        lines += ["[consent.elsewhere]", *(f"{json.dumps(key)} = {json.dumps(why)}" for key, why in elsewhere.items())]
        if red_lines:
            lines += ["[red_lines]", f"audits = {json.dumps(red_lines.pop('audits', []))}"]
        for key, named in red_lines.items():
            lines += [f"[red_lines.{key}]", *(f"{json.dumps(name)} = {json.dumps(why)}" for name, why in named.items())]
        path.write_text("\n".join(lines), encoding="utf-8")

    def sign(self, **changes) -> SignedPlan:
        """Another plan of the same coordinator, among the same partners, its contract approved by all of them."""
        plan = changed(self.plan, **changes)
        for folder in self.folders.values():
            Workspace(folder).approve(plan.contract)
        return sign(plan, self.coordinator)

    # --- the whole federation, through Flower's messages ---------------------------------------------------

    def app(self):
        folders = tuple(self.folders.values())
        return client_app(lambda context: workspace_of(folders, context), random=self.random, clock=self.clock)

    def grid(self, client=None) -> Recorder:
        return Recorder(client or self.app(), node_configs(self.names))

    def node_id(self, grid: LocalGrid, name: str = "amber") -> int:
        return grid.get_node_ids()[self.names.index(name)]

    def ask(self, grid: LocalGrid, message_type: str, content: RecordDict, name: str = "amber") -> Message:
        """Send one message and return its reply."""
        message = Message(content, dst_node_id=self.node_id(grid, name), message_type=message_type)
        (reply,) = grid.send_and_receive([message])
        return reply

    def ask_plan(self, grid: LocalGrid, name: str = "amber") -> Message:
        return self.ask(grid, "query.propose", encode_plan(self.signed.to_bytes()), name)

    def ask_task(self, grid: LocalGrid, message_type: str, task: Task | None = None, name: str = "amber") -> Message:
        return self.ask(grid, message_type, encode_task(task or self.task()), name)

    def witness(self) -> Witness:
        return Witness(self.root / "coordinator", self.coordinator, self.clock)

    def places(self) -> tuple[Registry, Witness]:
        return Registry(self.root / "coordinator"), self.witness()

    def run(self, grid: LocalGrid | None = None, *, stop=lambda: False, show=lambda _: None):
        """Run the study, or go on with it."""
        return run_study(grid or self.grid(), self.signed, self.places(), patience=AT_ONCE, show=show, stop=stop)


class Clients:
    """Apps by node: the one of a misbehaving partner beside the others'."""

    def __init__(self, honest, **others) -> None:
        self._honest = honest
        self._others = {MORE.index(name): app for name, app in others.items()}

    def __call__(self, message, context):
        app = self._others.get(int(context.node_config["partition-id"]), self._honest)
        return app(message, context)


def altered(app, change: Callable[[Message], object], kinds: tuple[str, ...] = ("train",)):
    """An app whose replies are changed behind its door: `change` returns a message, or what one is made of.

    The ledger's checkpoint stays beside the reply as the honest door put it there, out of sight of `change`.
    """

    def client(message, context):
        reply = app(message, context)
        if message.metadata.message_type not in kinds:
            return reply
        head = None
        if not reply.has_error():
            head, reply.content = split_head(reply.content)
        other = change(reply)
        if not isinstance(other, Message):
            other = Message(other, reply_to=message)
        if head is not None and not other.has_error():
            other.content = with_head(other.content, head)
        return other

    return client


def mechanisms():
    return calibrate(study())


def bare(wire: bytes) -> bytes:
    """A message's bytes without what differs from one sending to the next: identifiers and times."""
    from flwr.proto.message_pb2 import Message as Proto

    message = Proto.FromString(wire)
    for field in ("message_id", "reply_to_message_id", "created_at", "ttl"):
        message.metadata.ClearField(field)
    return message.SerializeToString(deterministic=True)


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Collect the names of files in a folder that anybody opens, by whatever library (Linux inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    assert handle >= 0
    opened: list[str] = []
    try:
        assert libc.inotify_add_watch(handle, os.fsencode(folder), 0x20) >= 0  # IN_OPEN
        yield opened
        try:
            data = os.read(handle, 1 << 20)
        except BlockingIOError:
            data = b""
        while data:
            length = int.from_bytes(data[12:16], "little")
            opened.append(data[16 : 16 + length].rstrip(b"\0").decode())
            data = data[16 + length :]
    finally:
        os.close(handle)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
