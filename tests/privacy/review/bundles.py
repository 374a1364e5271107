"""Real bundles of a small federation, and what a dishonest owner could make of them.

Imported as `coterie.tests.privacy.review.bundles`. The strongest adversary is the partner itself, with the coordinator
on its side: it writes any history it likes and signs it. `resigned` is that adversary. Its tree is written down here
once more, straight from RFC 9162, so that no test rests on the code that it tests.
"""

import dataclasses
import datetime
import functools
import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from coterie.clients.consent import consent_body
from coterie.clients.export import export_bundle
from coterie.privacy.accountant import ADD_REMOVE, UNIT, Guarantee, epsilon
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.canonical import canonical, digest
from coterie.privacy.charges import Charge
from coterie.privacy.checkpoint import cosign, sign_checkpoint
from coterie.privacy.entries import charge_body
from coterie.privacy.identity import Identity
from coterie.privacy.modelcard import model_card
from coterie.privacy.plan import Plan
from coterie.privacy.policy import Policy
from coterie.privacy.randomness import OsSource
from coterie.privacy.record import Receipt, StudyRecord, sign_record
from coterie.privacy.review.verdict import Verdict
from coterie.privacy.review.verify import verify_bundle
from coterie.privacy.schema import parse
from coterie.privacy.signed import sign
from coterie.tests.clients.federation import NAMES, Federation, study, today

KINDS = ("plan", "record", "card", "checkpoint", "entry")
NOWHERE = "sha256:" + "0" * 64


@dataclasses.dataclass(frozen=True)
class Made:
    """What a federation that ran left behind."""

    federation: Federation
    bundles: dict[str, bytes]
    partners: dict[str, Identity]
    coordinator: Identity

    @property
    def bundle(self) -> bytes:
        return self.bundles["amber"]

    @property
    def partner(self) -> Identity:
        return self.partners["amber"]


_FOLDERS: list[tempfile.TemporaryDirectory] = []


def folder() -> Path:
    """A folder that lasts as long as the process."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="bundles-"))
    return Path(_FOLDERS[-1].name)


def began(plan: Plan | None = None) -> Federation:
    """A federation that has not met yet; its noise is the system's, as it is in deployment."""
    federation = Federation(folder() / "federation", plan)
    federation.random = OsSource()
    return federation


def exported(federation: Federation, name: str = "amber") -> bytes:
    """A partner's bundle as it is now."""
    path = folder() / f"{name}.bundle"
    export_bundle(federation.folders[name], path, federation.clock)
    return path.read_bytes()


@functools.cache
def made() -> Made:
    """A federation of three partners and two rounds, made once."""
    federation = began()
    federation.run()
    return Made(
        federation,
        {name: exported(federation, name) for name in NAMES},
        {name: federation.workspace(name).identity for name in NAMES},
        federation.coordinator,
    )


# --- a bundle as plain values -----------------------------------------------------------------------------


@dataclasses.dataclass
class Opened:
    """A bundle taken apart: its header, and what each line of a kind holds; an entry without its leaf."""

    header: dict[str, Any]
    parts: dict[str, list[Any]]

    @property
    def entries(self) -> list[dict[str, Any]]:
        return self.parts["entry"]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The entries of one kind."""
        return [entry for entry in self.entries if entry["kind"] == kind]

    def at(self, kind: str, which: int = 0) -> int:
        """The place of an entry, from 1."""
        return self.entries.index(self.of(kind)[which]) + 1

    def remove(self, place: int) -> None:
        """Take an entry out, and let later entries name what they named before."""
        del self.entries[place - 1]
        self._shift(place, -1)

    def insert(self, place: int, kind: str, body: dict[str, Any]) -> None:
        """Put an entry in, at the time of the one before."""
        self._shift(place, 1)
        self.entries.insert(place - 1, {"at": self.entries[place - 2]["at"], "body": body, "kind": kind})

    def _shift(self, place: int, by: int) -> None:
        for entry in self.entries:
            if "reserve" in entry["body"] and entry["body"]["reserve"] >= place:
                entry["body"]["reserve"] += by

    def rename(self, old: str, new: str) -> None:
        """Let a digest be another one wherever entries name it."""
        self.parts["entry"] = json.loads(json.dumps(self.entries).replace(old, new))


def opened(bundle: bytes) -> Opened:
    """Take a bundle apart."""
    first, *rest, _ = [json.loads(line) for line in bundle.splitlines()]
    parts: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for line in rest:
        kind = next(kind for kind in KINDS if kind in line)
        parts[kind].append(line[kind])
    return Opened(first, parts)


def tree(leaves: list[bytes]) -> bytes:
    """The root of RFC 9162, section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + tree(leaves[:split]) + tree(leaves[split:])).digest()


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00coterie/entry/v2\n" + entry).digest()


def resigned(
    bundle: Opened, partner: Identity, witness: Identity | None = None, write: Callable[[object], bytes] = canonical
) -> bytes:
    """Sign an altered bundle as its dishonest owner could: leaves, tree, head and signature are made anew.

    Args:
        bundle: Altered in any way; entries are numbered anew.
        partner: The owner.
        witness: A coordinator that has cosigned the altered history all along; None leaves the checkpoints as they
            are.
        write: How values become bytes.
    """
    raws = []
    for seq, entry in enumerate(bundle.entries, start=1):
        entry["seq"] = seq
        entry.setdefault("salt", f"{seq:032x}")
        raws.append(write(entry))
    leaves = [leaf(raw) for raw in raws]
    notes = bundle.parts["checkpoint"]
    if witness is not None:
        sizes = [min(int(note.split("\n")[1]), len(leaves)) for note in notes]
        notes = [
            cosign(sign_checkpoint(n, tree(leaves[:n]), partner), witness, _seconds(bundle.entries[n - 1]["at"]))
            for n in sizes
        ]
    parts = {**bundle.parts, "checkpoint": notes}
    header = {**bundle.header, "parts": {kind: len(parts[kind]) for kind in KINDS}}
    lines = [write(header)]
    lines += [write({kind: value}) for kind in KINDS[:-1] for value in parts[kind]]
    lines += [
        b'{"entry":' + raw + b',"leaf":"' + hash_.hex().encode() + b'"}'
        for raw, hash_ in zip(raws, leaves, strict=True)
    ]
    return signed_off(lines, sign_checkpoint(len(leaves), tree(leaves), partner), partner)


def _seconds(at: str) -> int:
    try:
        return int(datetime.datetime.fromisoformat(at).timestamp())
    except (ValueError, OverflowError):
        return int(today().timestamp())


def signed_off(lines: list[bytes], head: str, partner: Identity) -> bytes:
    """End a bundle with a head and the signature on all of it."""
    body = b"".join(line + b"\n" for line in lines)
    message = b"coterie/bundle/v1\n" + hashlib.sha256(body).digest() + head.encode()
    return body + canonical({"head": head, "signature": partner.sign(message).hex()}) + b"\n"


# --- histories of any kind --------------------------------------------------------------------------------


class Story:
    """A ledger that was never kept by software: its owner writes what it likes, with every signature right."""

    def __init__(self, **rules: Any) -> None:
        self.partner, self.coordinator = Identity.create(), Identity.create()
        self.now = datetime.datetime(2031, 5, 4, 12, tzinfo=datetime.UTC)
        self.parts: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        self.content: dict[str, Any] = {}
        self.say(
            "opened",
            {
                "format": "coterie/ledger/v2",
                "partner": "amber",
                "key": self.partner.public,
                "carried": 0,
                "groups": NOWHERE,
            },
        )
        self.rule(**rules)

    @property
    def size(self) -> int:
        return len(self.parts["entry"])

    def say(self, kind: str, body: dict[str, Any], at: str | None = None) -> int:
        """Write an entry; returns its place."""
        at = at or self.now.isoformat(timespec="seconds")
        self.parts["entry"].append({"at": at, "body": body, "kind": kind})
        return self.size

    def rule(self, **rules: Any) -> int:
        """Let a policy come into force: the usual one with `rules` in it, those of the budget with "budget__"."""
        budget = {"delta": 1e-05, "lifetime_epsilon": 24, "study_epsilon": 4}
        usual = {
            "coordinator": self.coordinator.public,
            "customer": "customer",
            "labels": ["bought"],
            "purposes": ["coupons", "calls"],
            "columns": ["age", "spend", "region"],
            "families": ["logistic"],
            "trust": ["local"],
            "minimum_partners": 3,
            "minimum_customers": 10,
            "approval": {"automatic_epsilon": 4},
        }
        budget |= {name.removeprefix("budget__"): value for name, value in rules.items() if "__" in name}
        self.content = {**usual, **{n: v for n, v in rules.items() if "__" not in n}, "budget": budget}
        return self.say("policy", {"policy": digest(self.content), "content": self.content})

    def plan(self, **changes: Any) -> Plan:
        """A plan with this partner in its roster."""
        plan = study(**changes)
        keys = [self.partner.public, *(f"key of {name}" for name in NAMES[1:])]
        roster = tuple(dataclasses.replace(p, key=key) for p, key in zip(plan.partners, keys, strict=True))
        return dataclasses.replace(plan, partners=roster)

    def consent(self, plan: Plan, **changes: Any) -> int:
        """Consent to a plan."""
        signed = json.loads(sign(plan, self.coordinator).to_bytes())
        if signed not in self.parts["plan"]:
            self.parts["plan"].append(signed)
        policy = parse(Policy, self.content, place="policy")
        digests = (digest({"consent": plan.name}), digest(self.content))
        return self.say("consent", {**consent_body(plan, calibrate(plan), policy, digests), **changes})

    def reserve(self, plan: Plan, step: str = "train/1", **changes: Any) -> int:
        """Charge for a step."""
        training, mechanisms = step.startswith("train"), calibrate(plan)
        group, event = (TRAINING, mechanisms.update) if training else (HOLDOUT, mechanisms.histogram)
        charge = Charge(plan.digest(), plan.purpose, step, 1, group, event, "os", segments=plan.cohort.segments or ())
        return self.say("reserve", charge_body(dataclasses.replace(charge, **changes)))

    def settle(self, place: int) -> int:
        """Settle a charge, as the release that its place names."""
        return self.say("settle", {"reserve": place, "release": digest({"release": place})})

    def charge(self, plan: Plan, step: str = "train/1", **changes: Any) -> int:
        """Charge and settle; returns the charge's place."""
        place = self.reserve(plan, step, **changes)
        self.settle(place)
        return place

    def steps(self, plan: Plan) -> list[int]:
        """Charge for every step of a plan."""
        # By hand, as the plan's words say it: a secure sum for every step, or an update for every round.
        per_round = plan.training.local_steps if plan.privacy.trust == "secure-aggregation" else 1
        updates = [f"train/{n}" for n in range(1, plan.training.rounds * per_round + 1)]
        return [self.charge(plan, step) for step in [*updates, *(f"evaluate/{n}" for n in plan.metrics.rounds)]]

    def receive(self, plan: Plan, places: list[int], extra: tuple[Receipt, ...] = ()) -> int:
        """Receive the model of a study whose charges are at `places`."""
        entries = self.parts["entry"]
        mine = [entries[place - 1]["body"] for place in places]
        receipts = [
            Receipt("amber", body["step"], body["attempt"], digest({"release": place}))
            for body, place in zip(mine, places, strict=True)
        ]
        record = StudyRecord(plan.digest(), digest("model"), {"auc": 0.5}, tuple(sorted({*receipts, *extra})))
        self.parts["record"].append(json.loads(sign_record(record, self.coordinator)))
        mechanisms, delta = calibrate(plan), plan.privacy.delta
        spent = max(epsilon(mechanisms.events(group), delta) for group in (TRAINING, HOLDOUT))
        bound = Guarantee(spent, delta, UNIT, ADD_REMOVE, plan.privacy.trust, "PLD (dp-accounting)")
        self.parts["card"].append(model_card(plan, record, bound))
        body = {"plan": plan.digest(), "model": record.model, "record": record.digest(), "release": NOWHERE}
        return self.say("model", body)

    def vault(self, dataset: str = "customers", what: str = "sealed", **changes: Any) -> int:
        """Let a data set have its next version, by the first key of a mount unless told otherwise."""
        version = 1 + sum(one["body"].get("dataset") == dataset for one in self.parts["entry"])
        manifest = digest({"manifest": [dataset, self.size]})
        body = {"dataset": dataset, "version": version, "manifest": manifest, "what": what}
        return self.say("vault", {**body, "keys": "mount", "epoch": "0001", **changes})

    def erasure(self, *datasets: str, **changes: Any) -> int:
        """Say that a customer was erased, older keys destroyed, unless told otherwise."""
        body = {"answer": digest({"answer": self.size}), "datasets": list(datasets), "shredded": "destroyed"}
        return self.say("erasure", {**body, "keys": "mount", "epoch": "0002", **changes})

    def cosign(self) -> None:
        """Let the coordinator cosign the ledger as it is now; `bundle` makes the note."""
        self.parts["checkpoint"].append(f"\n{self.size}\n")

    def opened(self) -> Opened:
        """The bundle as plain values, cosigned at the end where nothing was cosigned before."""
        notes = self.parts["checkpoint"] or [f"\n{self.size}\n"]
        header = {"partner": "amber", "key": self.partner.public, "made": today().isoformat(), "software": "none"}
        parts = json.loads(json.dumps({**self.parts, "checkpoint": notes}))
        return Opened({"bundle": "coterie/bundle/v1", **header}, parts)

    def bundle(self) -> bytes:
        """The bundle, every signature right."""
        return resigned(self.opened(), self.partner, self.coordinator)


# --- verdicts ---------------------------------------------------------------------------------------------


def verdict_of(bundle: bytes, **options: Any) -> Verdict:
    """Verify a bundle as a reviewer does."""
    with tempfile.NamedTemporaryFile(suffix=".bundle") as file:
        file.write(bundle)
        file.flush()
        return verify_bundle(Path(file.name), **{"accounting": False, **options})


def wanting(verdict: Verdict) -> dict[str, tuple[str, int]]:
    """Every check that does not hold: its status, and the first entry that it names; but for what was not asked."""
    return {
        c.name: (c.status, c.findings[0].entry)
        for c in verdict.checks
        if c.status != "holds" and "were not asked" not in c.findings[0].says
    }


def failing(verdict: Verdict) -> dict[str, int]:
    """Every check that fails: the first entry that it names."""
    return {name: entry for name, (status, entry) in wanting(verdict).items() if status == "fails"}


# --- mutations --------------------------------------------------------------------------------------------


def mutations(bundle: bytes, other: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, bytes) of `count` bundles that differ from this one, each kind in turn.

    Args:
        bundle: A whole one.
        other: Another partner's, whose lines are spliced in.
        count: How many.
        seed: Which.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    yielded = 0
    while yielded < count:
        for kind, mutate in MUTATIONS.items():
            changed = mutate(bundle, other, rng)
            if changed != bundle and yielded < count:
                yielded += 1
                yield kind, changed


def _flip(bundle: bytes, _: bytes, rng: random.Random) -> bytes:
    """One bit: every line has the same chance, however short it is."""
    lines = bundle.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    at = sum(map(len, lines[:number])) + rng.randrange(len(lines[number]))
    return bundle[:at] + bytes([bundle[at] ^ 1 << rng.randrange(8)]) + bundle[at + 1 :]


def _lines(change: Callable[[list[bytes], list[bytes], random.Random], None]) -> Callable:
    def mutate(bundle: bytes, other: bytes, rng: random.Random) -> bytes:
        lines = bundle.splitlines(keepends=True)
        change(lines, other.splitlines(keepends=True), rng)
        return b"".join(lines)

    return mutate


def _values(change: Callable[[Any, random.Random], Any]) -> Callable:
    """Change one value somewhere in one line, and write the line as it must be written."""

    def mutate(bundle: bytes, _: bytes, rng: random.Random) -> bytes:
        lines = bundle.splitlines(keepends=True)
        number = rng.randrange(len(lines))
        value = json.loads(lines[number])
        places = list(_places(value))
        holder, key = rng.choice(places)
        change((holder, key), rng)
        lines[number] = canonical(value) + b"\n"
        return b"".join(lines)

    return mutate


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _delete(lines: list[bytes], _: list[bytes], rng: random.Random) -> None:
    del lines[rng.randrange(len(lines))]


def _double(lines: list[bytes], _: list[bytes], rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))


def _swap(lines: list[bytes], _: list[bytes], rng: random.Random) -> None:
    one, two = rng.sample(range(len(lines)), 2)
    lines[one], lines[two] = lines[two], lines[one]


def _splice(lines: list[bytes], other: list[bytes], rng: random.Random) -> None:
    """A line of another partner's bundle: mostly in the place of the one that it answers to, else anywhere."""
    number = rng.randrange(len(lines))
    lines[number] = other[number] if rng.random() < 0.5 and number < len(other) else rng.choice(other)


def _cut_line(lines: list[bytes], _: list[bytes], rng: random.Random) -> None:
    number = rng.randrange(len(lines))
    line = lines[number][:-1]
    lines[number] = line[: rng.randrange(len(line))] + b"\n"


def _cut_file(bundle: bytes, _: bytes, rng: random.Random) -> bytes:
    return bundle[: rng.randrange(len(bundle))]


def _go_on(bundle: bytes, other: bytes, rng: random.Random) -> bytes:
    return bundle + rng.choice([b"\n", b" ", b"{}\n", b"\0", other, bundle, other.splitlines(keepends=True)[-1]])


def _number(place: tuple[Any, Any], rng: random.Random) -> None:
    holder, key = place
    value = holder[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice([value + 1, value - 1, -value, value * 2, value / 2, 0, 1, 2**53 - 1, 1e308, 5e-324])
    else:
        _other(place, rng)


def _other(place: tuple[Any, Any], rng: random.Random) -> None:
    holder, key = place
    others = [None, True, False, 0, -1, 0.5, "", "x", [], {}, [[]], {"": ""}, "\u202e", "2031-05-04", NOWHERE]
    holder[key] = rng.choice(others)


def _drop(place: tuple[Any, Any], _: random.Random) -> None:
    holder, key = place
    del holder[key]


def _rename(place: tuple[Any, Any], rng: random.Random) -> None:
    holder, key = place
    if isinstance(holder, dict):
        holder[key[:-1] if rng.random() < 0.5 else key + "x"] = holder.pop(key)
    else:
        holder.reverse()


def _add(place: tuple[Any, Any], rng: random.Random) -> None:
    holder, key = place
    if isinstance(holder, dict):
        holder[rng.choice(["x", "", "seq", "leaf", "entry", "curve", "segments", "key", "\u0000"])] = holder[key]
    else:
        holder.append(holder[key])


MUTATIONS: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "one bit": _flip,
    "line deleted": _lines(_delete),
    "line doubled": _lines(_double),
    "lines swapped": _lines(_swap),
    "line cut": _lines(_cut_line),
    "line of another bundle": _lines(_splice),
    "file cut": _cut_file,
    "file goes on": _go_on,
    "number changed": _values(_number),
    "value changed": _values(_other),
    "key dropped": _values(_drop),
    "key renamed": _values(_rename),
    "key added": _values(_add),
}
