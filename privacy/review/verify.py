"""Verifying a bundle: everything that can be decided from the file, earlier checkpoints, and nothing else.

One pass over the lines: form, hashes and tree; the replay of entries; at the end signatures, checkpoints, records and
both accountants. Whatever the bundle says is a claim until it is recomputed.
"""

import contextlib
import datetime
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from coterie.privacy.canonical import canonical, digest
from coterie.privacy.checkpoint import Checkpoint, Cosigned, read_note
from coterie.privacy.errors import CoterieError, Fault, LedgerFault, PlanFault
from coterie.privacy.identity import raw_key, verify
from coterie.privacy.merkle import Frontier, leaf_hash
from coterie.privacy.review.bundle import BundleFault, Header, Part, read_parts, signed_message
from coterie.privacy.review.findings import ASKS, Findings
from coterie.privacy.review.kept import Keys, check_file
from coterie.privacy.review.matches import KINDS
from coterie.privacy.review.receipts import received_from
from coterie.privacy.review.replay import Replay
from coterie.privacy.review.standing import budgets_of, check_cards, matches_asked, studies_of, sums_asked
from coterie.privacy.review.verdict import Verdict

__all__ = ["CANNOT_PROVE", "verify_bundle"]

CANNOT_PROVE: tuple[str, ...] = (
    "That nothing was released outside the ledger. What the coordinator signed that it received was paid for; what "
    "was sent to somebody else, or by other software, leaves no trace here.",
    "That the partner ran this version of the software unchanged, and drew its noise as the ledger says. "
    "`coterie audit attack` looks at a build, not at what ran.",
    "That the rows were true, that one customer had one identifier, and that a column that divides customers into "
    "segments never changed for one.",
    "That the orders of magnitude of customers, how settings were tuned, and how sensitive a column is were declared "
    "truly.",
    "That the keys are whose they are said to be: compare them with partner and coordinator on another way.",
    "That the history is the only one, since the last cosigned checkpoint: entries after it were seen by the partner "
    "alone. Earlier bundles and the bundles of other partners narrow this.",
    "With secure aggregation: that other partners added their share of the noise, kept their keys and did not work "
    "with the coordinator. Their own bundles show what they were charged and signed, and no more.",
    "That rows lay sealed, in the vault and nowhere else, and that older keys are gone wherever they were: the ledger "
    "tells what was said to be sealed, under which source of keys, and when older ones were said to be destroyed.",
    "The clock: times are the partner's own. They never go back, and cosignatures carry the coordinator's time.",
)

_SLACK = 86_400  # seconds that clocks of partner and coordinator may differ by
_SIZE = re.compile(r"[^\n]{1,100}\n(0|[1-9][0-9]{0,15})\n")
_ASKED = tuple(name for name in ASKS if name not in {"earlier", "bundles", "keys", "openings", "matching", "vault"})


def verify_bundle(
    path: Path,
    *,
    earlier: Sequence[str] = (),
    keys: Keys | None = None,
    accounting: bool = True,
    seen: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Verify one bundle.

    Args:
        path: The file.
        earlier: Checkpoints that were seen before, as notes.
        keys: Public keys that the reviewer compared out of band; all others are refused.
        accounting: Whether the two accountants are asked, which takes seconds a study.
        seen: Called now and then with entries read and entries in all.

    Returns:
        What was found; a bundle that breaks off gives a verdict too.

    Raises:
        BundleFault: The file is missing, or its first line is not a bundle's.
    """
    findings = Findings()
    try:
        check_file(path)
        with path.open("rb") as file:
            parts = read_parts(file)
            first, _ = next(parts)
            header: Header = first.value
            review = _Review(header, findings, earlier)
            review.read(parts, seen)
            review.hold_to_keys(keys or Keys())
    except OSError as error:
        raise BundleFault(Fault(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
    return review.verdict(accounting=accounting)


class _Review:
    """One bundle under review."""

    def __init__(self, header: Header, findings: Findings, earlier: Sequence[str]) -> None:
        self.header, self.findings, self.earlier = header, findings, tuple(earlier)
        self.plans: dict[str, bytes] = {}
        self.records: dict[str, bytes] = {}
        self.cards: list[Any] = []
        self.notes: list[str] = []
        self.tree = Frontier()
        self.roots: dict[int, bytes] = {0: self.tree.root()}
        self._times: dict[int, str] = {}
        self._last_settled = 0
        names = {"plans": self.plans, "records": self.records}
        self.replay = Replay(header.key, header.partner, findings=findings, **names)
        self.asked = {"earlier"} if self.earlier else set()
        self._wanted: set[int] = set()
        for note in self.earlier:
            self._want(note)

    def read(self, parts: Iterable[tuple[Part, bytes]], seen: Callable[[int, int], None] | None) -> None:
        """Read all parts; what breaks off is a finding."""
        count = self.header.parts["entry"]
        try:
            for part, before in parts:
                if part.kind == "entry":
                    self._entry(part)
                    if seen is not None and part.index % 5000 == 0:
                        seen(part.index, count)
                elif part.kind == "end":
                    self._end(part.value, before)
                else:
                    self._before(part)
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, MemoryError) as error:
            # Shapes and ranges are checked before anything is believed; should something slip through, it is no pass.
            self.findings.fail("form", 0, f"something in the bundle cannot be worked with ({type(error).__name__})")
        except BundleFault as error:
            place, rule = error.faults[0].place, error.faults[0].rule
            entry = int(place.removeprefix("entry ")) if place.startswith("entry ") else 0
            self.findings.fail("form", entry, rule if entry else f"{place} {rule}")
        self.replay.finish()
        self._checkpoints()

    def hold_to_keys(self, keys: Keys) -> None:
        """Refuse a partner or coordinator whose key the reviewer does not know."""
        if keys.partners or keys.coordinators:
            self.asked.add("keys")
        if keys.partners and self.header.key not in keys.partners:
            self.findings.fail("keys", 0, "the partner's key is not among those that you gave")
        for rules in self.replay.rules:
            if keys.coordinators and rules.content.get("coordinator") not in keys.coordinators:
                self.findings.fail("keys", rules.entry, "the policy names a coordinator whose key is not among yours")

    def _before(self, part: Part) -> None:
        if part.kind == "checkpoint":
            if not isinstance(part.value, str):
                raise BundleFault(Fault(f"checkpoint {part.index}", "is not a text", "ask for it again"))
            self.notes.append(part.value)
            self._want(part.value)
            return
        value = part.value
        if part.kind == "card":
            self.cards.append(value)
            return
        named = value.get("plan" if part.kind == "plan" else "record") if isinstance(value, dict) else None
        if not isinstance(named, dict):
            raise BundleFault(Fault(f"{part.kind} {part.index}", "is not what it must be", "ask for it again"))
        if part.kind == "plan":
            self.plans[digest(named)] = canonical(value)
        else:
            self.records[str(named.get("plan"))] = canonical(value)

    def _want(self, note: str) -> None:
        """Keep the root that the tree has at a checkpoint's size."""
        if found := _SIZE.match(note):
            self._wanted.add(int(found[1]))

    def _entry(self, part: Part) -> None:
        leaf = leaf_hash(part.raw)
        if leaf != part.leaf:
            self.findings.fail("tree", part.index, "does not hash to the leaf beside it: it was altered")
        self.tree.add(leaf)
        if part.index in self._wanted:
            self.roots[part.index] = self.tree.root()
            self._times[part.index] = part.value.at
        if part.value.kind in {"settle", "opening", *KINDS}:
            self._last_settled = part.index
        self.replay.take(part.value)

    def _end(self, end: dict[str, str], lines: bytes) -> None:
        try:
            checkpoint, _ = read_note(end["head"], partner=self.header.key)
        except (LedgerFault, PlanFault) as error:
            self.findings.fail("tree", 0, f"{error.faults[0].place} {error.faults[0].rule}")
        else:
            if (checkpoint.size, checkpoint.root) != (self.tree.size, self.tree.root()):
                says = "the entries do not lead to the signed root: some were altered or removed"
                self.findings.fail("tree", 0, says)
        try:
            signature = end["signature"]
            if re.fullmatch(r"[0-9a-f]{128}", signature) is None:
                raise PlanFault(Fault("signature", "is not 64 bytes", "ask for it again"))
            verify(self.header.key, bytes.fromhex(signature), signed_message(lines, end["head"]))
        except PlanFault:
            self.findings.fail("signature", 0, "the partner's key did not sign this bundle")

    def _checkpoints(self) -> None:
        """Hold every checkpoint against the root that the ledger had at its size."""
        latest = 0
        for name, notes in (("checkpoints", self.notes), ("earlier", self.earlier)):
            for number, note in enumerate(notes, start=1):
                says = f"checkpoint {number}"
                try:
                    checkpoint, cosigned = self._read(note)
                except CoterieError as error:
                    self.findings.fail(name, 0, f"{says} {error.faults[0].rule}")
                    continue
                if name == "checkpoints" and not cosigned:
                    self.findings.fail(name, 0, f"{says} is not cosigned")
                if checkpoint.size > self.tree.size:
                    says += f" had {checkpoint.size} entries, this ledger has {self.tree.size}: some were removed"
                    self.findings.fail(name, 0, says)
                elif self.roots.get(checkpoint.size) != checkpoint.root:
                    rule = f"was rewritten, or one before it: the ledger had another history at {says}"
                    self.findings.fail(name, checkpoint.size, rule)
                for one in cosigned:
                    self._timely(checkpoint.size, one.at)
                    latest = max(latest, checkpoint.size)
        if self._last_settled > latest:
            says = (
                f"what was settled or opened after entry {latest} was cosigned by nobody yet: it could be written anew"
            )
            self.findings.open("checkpoints", self._last_settled, says)

    def _timely(self, size: int, at: int) -> None:
        """Hold the time of a checkpoint's last entry against the coordinator's clock."""
        told = self._times.get(size)
        with contextlib.suppress(ValueError):  # the entry's own check says so
            if told and datetime.datetime.fromisoformat(told).timestamp() > at + _SLACK:
                self.findings.fail("time", size, "is dated more than a day after the coordinator saw it")

    def _read(self, note: str) -> tuple[Checkpoint, tuple[Cosigned, ...]]:
        return read_note(note, partner=self.header.key, coordinators=self.replay.coordinators)

    def verdict(self, *, accounting: bool) -> Verdict:
        """Return what was found."""
        replay = self.replay
        try:
            raw_key(self.header.key)
        except PlanFault:
            self.findings.fail("signature", 0, "the bundle names no public key")
        studies = studies_of(replay, accounting=accounting)
        if accounting:
            check_cards(self.cards, replay, studies)
        else:
            self.findings.open("accountants", 0, "the accountants were not asked")
        cosigned = []
        for note in self.notes:
            try:
                checkpoint, by = self._read(note)
            except CoterieError:
                continue
            cosigned += [(checkpoint.size, one.key, one.at) for one in by]
        asked = {name for name in _ASKED if accounting or name != "cards"} | self.asked
        asked |= {"openings"} if sums_asked(replay) else set()
        at_rest = replay.sealings.summary()
        asked |= {"vault"} if at_rest.datasets else set()
        asked |= {"matching"} if matches_asked(replay) else set()
        return Verdict(
            partner=self.header.partner,
            key=self.header.key,
            made=self.header.made,
            software=self.header.software,
            size=self.tree.size,
            root=self.tree.root().hex(),
            checks=self.findings.checks(frozenset(asked)),
            studies=studies,
            budgets=budgets_of(replay),
            points=tuple(replay.course.points),
            refusals=tuple(replay.refusals),
            models=tuple(replay.receipts.models),
            cosigned=tuple(cosigned),
            policy=replay.rules[-1].content if replay.rules else None,
            rules=tuple(replay.rules),
            coordinators=replay.coordinators,
            plans=_plans(replay),
            records={plan: record.digest() for plan, record in replay.receipts.records.items()},
            received={plan: received_from(record) for plan, record in replay.receipts.records.items()},
            released={plan: _released(replay, plan) for plan in replay.studies},
            paid={group: replay.spent.events(group) for group in replay.spent.groups()},
            life={group: replay.spent.for_life(group) for group in replay.spent.groups()},
            carried=replay.carried,
            at_rest=at_rest,
            disclosures=tuple(replay.matches.disclosures),
        )


def _released(replay: Replay, plan: str) -> frozenset[bytes]:
    """Return the names of what a ledger says was released in a study."""
    paid = frozenset(name for _, _, name in replay.studies[plan].settled)
    return paid | {name for _, name in replay.matches.released(plan)}


def _plans(replay: Replay) -> dict[str, Any]:
    return {name: study.plan.to_dict() for name, study in replay.studies.items() if study.plan is not None}
