"""Nodes in this process: the app behind its door, reached through Flower's wire form, with real workspaces beneath.

Imported as `coterie.tests.stories.inprocess`.
"""

import dataclasses
import datetime
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Proto
from flwr.supercore.task_identity import TaskIdentity

from coterie.clients.door import Answering
from coterie.privacy.charges import Entry
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.tests.clients.federation import Federation, changed, secure_study, table_of, today
from coterie.tests.clients.matching import Matched, cards_of, match_plan
from coterie.tests.stories.attacks import Hostile
from coterie.tests.stories.plan_attacks import column
from coterie.tests.stories.test_mute import LENIENT, WORDS, planted

SECRETS = ("canary-purpose", "canary-column", "canary-label")
"""Words of the partners' policies that no plan uses."""


def lenient(plan: Plan) -> Plan:
    """A plan whose contract lets every canary pass, with a special column."""
    return changed(plan, contract=column(LENIENT, "region", sensitivity="special"))


OWN_PLAN = lenient(changed(LENIENT, metrics__rounds=(2,)))
MATCH_PLAN = match_plan(3, "rows")
COUNT_PLAN = match_plan(2, "counts")
SUM_PLAN = lenient(secure_study(training__rounds=1, metrics__rounds=(1,)))


def prepared(root: Path, plan: Plan, *, clock: Callable[[], datetime.datetime] = today) -> Federation:
    """A federation whose operators approved the plan by hand, with canaries in tables and policies."""
    tables = {partner.name: planted(table_of(partner.name)) for partner in plan.partners}
    federation = Federation(root, plan, tables)
    federation.clock = clock
    for name in federation.names:
        federation.propose(name)
        with Ledger(federation.workspace(name).ledger, federation.clock) as ledger:
            ledger.record("approval", {"plan": federation.digest, "decision": "approved", "by": "operator"})
        limits = {"budget__lifetime_epsilon": plan.privacy.epsilon * 1.4, "approval": {"automatic_epsilon": 1e-9}}
        words = {"purposes": [plan.purpose, SECRETS[0]], "labels": [plan.contract.label, SECRETS[2]]}
        columns = [*(c.name for c in plan.contract.columns), SECRETS[1]]
        federation.policy(name, **limits, **words, columns=columns)
        federation.propose(name)  # consent under these rules
    return federation


def matching(root: Path, plan: Plan) -> Matched:
    """A federation that matches customers, as `prepared`: the canaries are numbers that two partners have."""
    cards = cards_of(len(plan.partners), 20)
    for name in list(cards)[:2]:
        cards[name] |= {WORDS["customer"], WORDS["region"]}
    federation = Matched(root, plan, cards).consented()
    for name in federation.names:
        with Ledger(federation.workspace(name).ledger, federation.clock) as ledger:
            ledger.record("approval", {"plan": federation.digest, "decision": "approved", "by": "operator"})
        words = {"purposes": [plan.purpose, SECRETS[0]], "columns": [SECRETS[1]], "labels": [SECRETS[2]]}
        federation.policy(name, approval={"automatic_epsilon": 1e-9}, **words)
    return federation.consented()


class Node:
    """A `Target` in this process.

    Args:
        federation: Where it belongs.
        name: Whose it is.
        log: What "coterie" logs.
    """

    def __init__(self, federation: Federation, name: str, log: io.StringIO) -> None:
        self._federation, self._name, self._log = federation, name, log
        self._app = Answering(federation.app())
        self._number = 1000 + federation.names.index(name)
        config = {"partition-id": federation.names.index(name), "num-partitions": len(federation.names)}
        self._context = Context(1, self._number, config, RecordDict(), {})

    def ask(self, message_type: str, content: RecordDict) -> Message:
        """Send one message, and return the answer as it came."""
        return self.ask_bytes(self.wire(message_type, content))

    def wire(self, message_type: str, content: RecordDict) -> bytes:
        """Return a message's bytes."""
        # Flower checks types where a message is made; an attacker's makes none of these checks.
        message = Message(content, dst_node_id=self._number, message_type="train")
        proto = message_to_proto(message)
        proto.metadata.message_type = message_type
        proto.metadata.message_id = "0" * 64
        return bytes(proto.SerializeToString())

    def ask_bytes(self, data: bytes) -> Message:
        """Send bytes that are a message, and return the answer as it came."""
        return self.answer(self.read(data))

    def read(self, data: bytes) -> Message:
        """Return the message in bytes; raises what Flower raises where there is none, before the app sees anything."""
        return message_from_proto(Proto.FromString(data))

    def answer(self, message: Message) -> Message:
        """Let the app answer, and return the answer as it came."""
        reply = self._app(message, self._context)
        return message_from_proto(Proto.FromString(message_to_proto(reply).SerializeToString()))

    def ledger(self) -> list[Entry]:
        """Every entry of the partner's ledger."""
        with Ledger(self._federation.workspace(self._name).ledger, self._federation.clock) as ledger:
            return list(ledger.entries())

    def reports(self) -> str:
        """All that the partner's reports say."""
        folder = self._federation.folders[self._name] / "reports"
        return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.log")))

    def log(self) -> str:
        """All that was logged in this process."""
        return self._log.getvalue()


@contextmanager
def overheard() -> Iterator[io.StringIO]:
    """Collect what "coterie" logs, as text."""
    logger, heard = logging.getLogger("coterie"), io.StringIO()
    handler = logging.StreamHandler(heard)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def hostile(federation: Federation, log: io.StringIO) -> Hostile:
    """A hostile coordinator of a federation, with the keys of its partners but the first."""
    # Flower stamps every message with the identity of the task that makes it.
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    peers = {name: federation.workspace(name).identity for name in federation.names[1:]}
    nodes = {name: Node(federation, name, log) for name in federation.names}
    return Hostile(federation.coordinator, federation.signed, nodes, peers)


def copied(federation: Federation, folder: Path) -> Federation:
    """Another federation that stands where this one stands."""
    if isinstance(federation, Matched):
        return federation.copied(folder)
    other = Federation(shutil.copytree(federation.root, folder), dataclasses.replace(federation.plan))
    other.clock = federation.clock
    return other
