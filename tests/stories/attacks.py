"""What a hostile coordinator may try on a partner's node: the catalogue, and the judge that believes no answer.

An attack is a function of a `Hostile`: the coordinator, with its true key, the approved plan, the keys of peers that
help it, and a line to every node. It says what it asks, never how: whether a `Target` is an app in this process or a
node on the other side of a wire is not its business. The judge looks at the bytes that came back, at the partner's
ledger, and at the partner's own reports and log.

Imported as `coterie.tests.stories.attacks`; `plan_attacks`, `task_attacks` and `sum_attacks` fill the catalogue.
"""

import fnmatch
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto

from coterie.clients.door import ERROR_CODE
from coterie.clients.task import Task, initial_weights
from coterie.clients.wire import EVALUATE, PROPOSE, TRAIN, decode_release, encode_plan, encode_task, split_head
from coterie.privacy.calibration import Mechanisms, calibrate
from coterie.privacy.canonical import canonical, digest
from coterie.privacy.charges import Entry
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, PoissonGaussian
from coterie.privacy.identity import Identity
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.release import CODES, Refused, Release, release_digest
from coterie.privacy.signed import SignedPlan, sign
from coterie.tests.clients.federation import changed

_OWN_BOOKS = ("opened", "policy")  # what a ledger says of the partner itself

MOST_SAID = 700
"""Bytes of a refusal on the wire, names of nodes and messages and an echoed message type included."""


class Target(Protocol):
    """A partner's node as an attacker reaches it, and what of the partner's own the judge sees."""

    def ask(self, message_type: str, content: RecordDict) -> Message:
        """Send one message, and return the answer as it came through Flower's wire form."""

    def ledger(self) -> list[Entry]:
        """Return every entry of the partner's ledger."""

    def reports(self) -> str:
        """Return all that the partner's reports say."""

    def log(self) -> str:
        """Return all that the node has logged; a refusal as "train was refused: replay" (`spoken` makes it of JSON)."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Args:
        name: Of its function, with spaces.
        does: What the attacker does: the function's docstring.
        hears: The answers, alike ones in a row counted, e.g. "replay x3, fault"; "*" stands for any number or part.
        writes: The entries that the ledger gains, in the same form; "" for none. Only "reserve" costs anything.
        run: The attack.
    """

    name: str
    does: str
    hears: str
    writes: str
    run: Callable[["Hostile"], None]


ATTACKS: list[Attack] = []
"""On a study in which each partner's noise suffices alone."""

SUM_ATTACKS: list[Attack] = []
"""On a study of secure sums; the other partners are honest, and the coordinator relays what they say."""

MATCH_ATTACKS: list[Attack] = []
"""On a match of customers; likewise."""


def attack(hears: str, *, writes: str = "", on: list[Attack] = ATTACKS) -> Callable[[Any], Any]:
    """Put a function into the catalogue; arguments as `Attack`."""

    def enter(run: Callable[["Hostile"], None]) -> Callable[["Hostile"], None]:
        name, does = run.__name__.replace("_", " "), " ".join((run.__doc__ or "").split())
        on.append(Attack(name, does, hears, writes, run))
        return run

    return enter


@dataclass
class Hostile:
    """A coordinator that keeps to no rule.

    Args:
        identity: Its true key, which every partner pins.
        signed: The plan that the partners approved and consented to.
        nodes: A line to every node; the first is the victim's.
        peers: Keys of the other partners, for those who help it.
        outsider: A key that nobody knows.
        note: Words about what an attack found, for the table.
        heard: The victim's answers.
    """

    identity: Identity
    signed: SignedPlan
    nodes: Mapping[str, Target]
    peers: Mapping[str, Identity]
    outsider: Identity = field(default_factory=Identity.create)
    note: str = ""
    heard: list[Message] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan: Plan = self.signed.plan
        self.digest = self.plan.digest()
        self.names = tuple(self.nodes)
        self.victim = self.names[0]
        self.events: Mechanisms = calibrate(self.plan)

    def ask(self, message_type: str, content: RecordDict) -> Message:
        """Ask the victim, and remember the answer."""
        reply = self.nodes[self.victim].ask(message_type, content)
        self.heard.append(reply)
        self.said.append(self.word(reply))
        return reply

    def relay(self, name: str, message_type: str, content: RecordDict) -> Release:
        """Ask an honest partner, or the victim as an honest coordinator would, and return its release."""
        ask = self.ask if name == self.victim else self.nodes[name].ask
        return self.release(ask(message_type, content))

    def release(self, reply: Message) -> Release:
        """Read a release."""
        _, content = split_head(reply.content)
        # A secure study's events are all of the one kind, another's all of the other two: both are tried.
        kinds: list[dict[str, Any]] = [{}]
        if self.plan.matches:
            kinds = [{"listed": self.events.overlap}]
        elif self.plan.privacy.trust == SECURE:
            kinds = [{"summed": e} for e in (self.events.update, self.events.histogram)]
            kinds = [one for one in kinds if isinstance(one["summed"], DistributedGaussian)]
        elif isinstance(self.events.update, PoissonGaussian) and isinstance(self.events.histogram, DiscreteGaussian):
            kinds = [{"update": self.events.update, "histogram": self.events.histogram}]
        return decode_release(content, **kinds[0])

    def word(self, reply: Message) -> str:
        """Return an answer as one word or two."""
        if reply.has_error():
            return reply.error.reason
        release = self.release(reply)
        return "refused " + "+".join(release.codes) if isinstance(release, Refused) else release.kind

    # --- questions in their right form ---------------------------------------------------------------------

    def propose(self, signed: SignedPlan | bytes) -> Message:
        """Propose a plan."""
        return self.ask(PROPOSE, encode_plan(signed if isinstance(signed, bytes) else signed.to_bytes()))

    def propose_with(self, **changes: Any) -> Message:
        """Propose a plan that differs from the approved one, properly signed."""
        return self.propose(sign(changed(self.plan, **changes), self.identity))

    def propose_table(self, table: Mapping[str, Any]) -> Message:
        """Propose a plan that no dataclass would make, with a signature that is right for its digest."""
        return self.propose(signed_table(table, self.identity))

    def weights(self, shift: float = 0.0) -> tuple[Any, ...]:
        """Return the model that a study starts from, moved a little."""
        return tuple((array + array.dtype.type(shift)) for array in initial_weights(self.plan))

    def task(self, round_: int = 1, attempt: int = 1, **changes: Any) -> Task:
        """Return a task of the approved plan."""
        return Task(**{"plan": self.digest, "round": round_, "attempt": attempt, "weights": self.weights(), **changes})

    def train(self, *args: Any, **changes: Any) -> Message:
        """Ask for an update."""
        return self.ask(TRAIN, encode_task(self.task(*args, **changes)))

    def measure(self, *args: Any, **changes: Any) -> Message:
        """Ask for a histogram."""
        return self.ask(EVALUATE, encode_task(self.task(*args, **changes)))


def signed_table(table: Mapping[str, Any], identity: Identity) -> bytes:
    """Sign a plan as a table, whatever it says."""
    signature = identity.sign(b"coterie/plan/v1\n" + digest(table).encode())
    return canonical({"format": "coterie/plan/v1", "plan": table, "signature": signature.hex()})


# --- the judge ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What an attack came to.

    Args:
        attack: Which.
        heard: The answers, as in `Attack.hears`.
        wrote: The new entries, as in `Attack.writes`.
        complaints: What should not have been; none where the attack failed as it must.
        note: The attack's own words.
    """

    attack: Attack
    heard: str
    wrote: str
    complaints: tuple[str, ...]
    note: str


def counted(words: Iterable[str]) -> str:
    """Return words with alike ones in a row counted: "a x3, b"."""
    runs = [(word, len(list(same))) for word, same in itertools.groupby(words)]
    return ", ".join(word if times == 1 else f"{word} x{times}" for word, times in runs)


def judge(
    attack: Attack, hostile: Hostile, *, canaries: Callable[[bytes], list[bytes]], secrets: Iterable[str]
) -> Verdict:
    """Run an attack, and look at all that it did.

    Args:
        attack: Which.
        hostile: With fresh lines to the nodes.
        canaries: Returns what of the table's canaries is heard in bytes.
        secrets: Words of the partner's own files that must not leave.
    """
    target = hostile.nodes[hostile.victim]
    entries, logged = len(target.ledger()), len(target.log())
    complaints: list[str] = []
    try:
        attack.run(hostile)
    except AssertionError as error:
        complaints.append(f"the attack's own check failed: {error}")
    ledger, log = target.ledger(), target.log()[logged:]
    new = ledger[entries:]
    heard, wrote = counted(hostile.said), counted(e.kind for e in new if e.kind not in _OWN_BOOKS)
    if not fnmatch.fnmatchcase(heard, attack.hears):
        complaints.append(f"heard {heard}, expected {attack.hears}")
    if not fnmatch.fnmatchcase(wrote, attack.writes):
        complaints.append(f"the ledger gained {wrote or 'nothing'}, expected {attack.writes or 'nothing'}")
    complaints += _of_replies(hostile, ledger, log, secrets=tuple(secrets), canaries=canaries)
    complaints += _of_charges(hostile, new)
    own = (target.reports() + log).encode() + b"".join(canonical(entry.body) for entry in ledger)
    if canaries(own):
        complaints.append("a canary of the table is heard in the ledger, the reports or the log")
    return Verdict(attack, heard, wrote, tuple(complaints), hostile.note)


def _of_replies(
    hostile: Hostile,
    ledger: list[Entry],
    log: str,
    *,
    secrets: tuple[str, ...],
    canaries: Callable[[bytes], list[bytes]],
) -> list[str]:
    """Hold every answer to what may leave: a code and its word, or a release that the ledger holds."""
    complaints: set[str] = set()
    held = {value for entry in ledger for key, value in entry.body.items() if key == "release"}
    for reply, word in zip(hostile.heard, hostile.said, strict=True):
        data = message_to_proto(reply).SerializeToString()
        if canaries(data) or any(secret.encode() in data for secret in secrets):
            complaints.add(f"a canary left with {word}")
        if reply.has_error():
            if reply.has_content() or word not in CODES or reply.error.code != ERROR_CODE[word]:
                complaints.add(f"{word} is not a code with its word")
            if len(data) > MOST_SAID:
                complaints.add(f"{word} left in {len(data)} bytes")
            told = word
        else:
            release = hostile.release(reply)
            if release_digest(release) not in held:
                complaints.add(f"{word} is not in the ledger")
            told = ", ".join(release.codes) if isinstance(release, Refused) else ""
        if told and f"was refused: {told}" not in log:
            complaints.add(f"no line of the log names the refusal {word}")
    return sorted(complaints)


def _of_charges(hostile: Hostile, new: list[Entry]) -> list[str]:
    """Hold every new charge to one answer, and every step and attempt to one charge."""
    charged = [(e.body["plan"], e.body["step"], e.body["attempt"]) for e in new if e.kind == "reserve"]
    settled = [e.body["release"] for e in new if e.kind == "settle"]
    answered = {release_digest(hostile.release(reply)) for reply in hostile.heard if not reply.has_error()}
    complaints = []
    if len(set(charged)) != len(charged):
        complaints.append("a step was charged twice in one attempt")
    if len(settled) != len(charged) or not set(settled) <= answered:
        complaints.append("a charge has no answer")
    return complaints


def spoken(lines: Iterable[str]) -> str:
    """Return the log of a process in service, which is JSON, with refusals as a `Target` says them."""
    told = []
    for line in lines:
        entry = json.loads(line)
        told.append(line)
        if entry["event"] == "refused":
            told.append(f"{entry['asked']} was refused: {entry['code']}")
    return "\n".join(told)


def table(verdicts: Iterable[Verdict]) -> str:
    """Return verdicts as a table in Markdown."""
    lines = ["| attack | expected | seen | ledger gained | succeeded |", "|---|---|---|---|---|"]
    for one in verdicts:
        what = one.attack.name + (f" ({one.note})" if one.note else "")
        failed = "no" if not one.complaints else "; ".join(one.complaints)
        lines.append(f"| {what} | {one.attack.hears} | {one.heard} | {one.wrote or 'nothing'} | {failed} |")
    return "\n".join(lines) + "\n"


def write_table(verdicts: Iterable[Verdict], path: Path) -> None:
    """Write the table of verdicts, and the same as JSON beside it."""
    verdicts = list(verdicts)
    path.write_text(table(verdicts), encoding="utf-8")
    rows = [
        {"attack": v.attack.name, "does": v.attack.does, "expected": v.attack.hears, "seen": v.heard}
        | {"ledger": v.wrote, "complaints": list(v.complaints), "note": v.note}
        for v in verdicts
    ]
    path.with_suffix(".json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
