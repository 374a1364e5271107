"""A small federation that matches customers: real workspaces, vaults, ledgers, apps and messages, and no network.

`questions` is an honest coordinator, one question at a time, so that a test may stop it, repeat it, or lie between any
two. Imported as `coterie.tests.clients.matching`.
"""

import dataclasses
import datetime
import itertools
import random
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from coterie.clients.identifierrows import open_identifiers
from coterie.clients.identifiers import Identified
from coterie.clients.identifying import take_in_identifiers
from coterie.clients.matched import kept_matches, rows_of_match, tokens_of
from coterie.clients.matching.store import Kept, MatchStore
from coterie.clients.matchwire import Agree, Asked, Commit, Count, End, Give, Take
from coterie.clients.tables.held import HeldTable
from coterie.clients.vault import IDENTIFIERS, open_vault
from coterie.privacy.contract import Contract
from coterie.privacy.identity import Identity
from coterie.privacy.matching.channel import Address, Parcel, seal
from coterie.privacy.matching.decoys import numbers, spread
from coterie.privacy.matching.manifest import Manifest, verified
from coterie.privacy.matching.overlap import Overlap
from coterie.privacy.matching.own import Own, new_secrets
from coterie.privacy.matching.terms import MatchTerms
from coterie.privacy.matching.ways import stretches
from coterie.privacy.matchterms import match_terms
from coterie.privacy.plan import COUNTS, Cohort, Matching, Partner, Plan, Privacy
from coterie.privacy.randomness import OsSource, RandomSource
from coterie.privacy.release import Matching as Leaving
from coterie.privacy.release import MatchParcel, OverlapCounts, release_digest
from coterie.privacy.signed import SignedPlan
from coterie.simulations.partners import partner_folders, provision
from coterie.tests.clients.federation import MORE, SEEDED, Federation, changed, files_of, today


def match_plan(count: int = 3, outcome: str = "counts", **changes) -> Plan:
    """A plan that matches the customers of so many partners by their loyalty numbers."""
    plan = Plan(
        name="overlap",
        purpose="coupons",
        task="matching",
        expires=datetime.date(2031, 12, 31),
        contract=Contract(customer="customer"),
        privacy=Privacy(
            unit="customer of one partner", epsilon=4.0, delta=1e-5, trust="local", threshold=count, colluders=1
        ),
        cohort=Cohort(minimum_customers=10),
        partners=tuple(Partner(name=name, customers=100) for name in MORE[:count]),
        matching=Matching(identifier="loyalty", outcome=outcome, least=10, size_class=16),
    )
    return changed(plan, **changes)


def cards_of(count: int = 3, each: int = 30) -> dict[str, set[str]]:
    """Loyalty numbers by partner: `each` in every cell of the Venn diagram, less one for each further partner."""
    names, numbers = MORE[:count], itertools.count()
    found: dict[str, set[str]] = {name: set() for name in names}
    for size in range(1, count + 1):
        for cell in itertools.combinations(names, size):
            for _ in range(each - size):
                card = f"L{next(numbers):06d}"
                for name in cell:
                    found[name].add(card)
    return found


def tables_of(cards: dict[str, set[str]]) -> dict[str, pa.Table]:
    """Tables of identifiers: customers with numbers of their own, in an order of their own."""
    return {
        name: pa.table(
            {
                "customer": [f"{name}-{number:04d}" for number in range(len(held))],
                "loyalty": random.Random(name).sample(sorted(held), len(held)),  # noqa: S311 - no secret
            }
        )
        for name, held in cards.items()
    }


class Matched(Federation):
    """Partners with sealed identifiers, and a coordinator, under `root`."""

    def __init__(self, root: Path, plan: Plan | None = None, cards: Mapping[str, set[str]] | None = None) -> None:
        plan = plan or match_plan()
        self.root, self.random, self.clock = root, SEEDED, today
        self.names = tuple(partner.name for partner in plan.partners)
        self.cards = dict(cards or cards_of(len(self.names)))
        self.tables = tables_of(self.cards)
        self.signed: SignedPlan = provision(root, plan, {}, seed=7, identifiers=self.tables)
        self.plan = self.signed.plan
        self.digest = self.plan.digest()
        self.folders = dict(zip(self.names, partner_folders(root, self.plan), strict=True))
        self.coordinator = Identity.load(root / "coordinator" / "identity.pem")

    def copied(self, folder: Path) -> "Matched":
        """Another federation that stands where this one stands."""
        other = Matched(shutil.copytree(self.root, folder), self.plan, self.cards)
        other.random, other.clock = self.random, self.clock
        return other

    def consented(self) -> "Matched":
        """This federation, after all partners consented."""
        for name in self.names:
            self.propose(name)
        return self

    def answer(self, name: str, asked: Asked) -> Leaving:
        """Ask one partner's node, opened for this question alone."""
        with self.node(name) as node:
            return node.matches.answer(asked)

    def lead(self, until: Callable[[str, Asked], bool] = lambda _name, _asked: False) -> "Lead":
        """Lead the match honestly, to its end or to the first question that a test wants for itself."""
        return Lead(self, until)

    # --- what partners hold ---------------------------------------------------------------------------------

    def card_of(self, name: str) -> dict[str, str]:
        """The loyalty number of each of a partner's customers."""
        table = self.tables[name].to_pydict()
        return dict(zip(table["customer"], table["loyalty"], strict=True))

    def rows_at(self, name: str) -> dict[str, set[str]]:
        """Which of its own loyalty numbers a partner learned that each other has."""
        cards = self.card_of(name)
        return {other: {cards[who] for who in found} for other, found in self.customers_at(name).items()}

    def customers_at(self, name: str) -> dict[str, set[str]]:
        """Which of its own customers a partner learned that each other has."""
        found = {other: set[str]() for other in self.names if other != name}
        with open_vault(self.folders[name], self.clock) as vault:
            for piece in rows_of_match(vault, self.digest, "rows"):
                for row in piece.to_pylist():
                    found[row["partner"]].add(row["customer"])
        return found

    def shared_at(self, name: str) -> dict[str, set[str]]:
        """The same by plain sets."""
        return {other: self.cards[name] & self.cards[other] for other in self.names if other != name}

    def tokens_at(self, name: str) -> dict[str, bytes]:
        """A partner's tokens by loyalty number."""
        cards = self.card_of(name)
        with open_vault(self.folders[name], self.clock) as vault:
            customers, tokens = tokens_of(vault, self.digest)
            return {cards[who]: bytes(one) for who, one in zip(customers.to_pylist(), tokens, strict=True)}

    def learned(self, name: str) -> int:
        """How many matches a partner's vault holds anything of."""
        with open_vault(self.folders[name], self.clock) as vault:
            return len(kept_matches(vault))

    def store(self, name: str) -> MatchStore:
        """A partner's files of the match."""
        return MatchStore(self.workspace(name), self.digest)

    def stands(self, name: str) -> Kept:
        """Where the match stands at a partner, opened."""
        with self.workspace(name).lock():
            found = self.store(name).load()
        assert found is not None
        return found

    def own(self, name: str) -> Own:
        """A partner as the protocol knows it, with its secrets."""
        kept = self.stands(name)
        terms = match_terms(self.plan, rules=kept.commitment.rules)
        return Own(name, self.workspace(name).identity, terms, kept.secrets)

    def manifest(self, name: str) -> Manifest:
        """The manifest that a partner works with."""
        kept = self.stands(name)
        return Manifest(match_terms(self.plan, rules=kept.commitment.rules), kept.manifest)

    def sealed_by(self, sender: str, address: Address, rows: Any, **changes: Any) -> Parcel:
        """A parcel as a partner seals it whose program was changed: whatever rows, and `changes` to the header."""
        parcel = seal(self.own(sender), self.manifest(sender), address=address, rows=rows, stream=FRESH.stream(""))
        return dataclasses.replace(parcel, **changes)

    def policies(self, **changes: Any) -> None:
        """Change all partners' policies alike."""
        for name in self.names:
            self.policy(name, **changes)


FRESH = OsSource()


def questions(federation: Matched, *, attempts: int = 1) -> Generator[tuple[str, Asked], Leaving | None, None]:
    """Every question of an honest coordinator, one at a time, with whom it is for; is sent the answers.

    A commitment is asked for again, up to so many attempts, where None is sent: the attempt was lost.
    """
    plan, names, committed = federation.digest, federation.names, []
    for name in names:
        answer = None
        for attempt in range(1, attempts + 1):
            answer = answer or (yield name, Commit(plan, attempt))
        committed.append(answer.commitment)  # type: ignore[union-attr]
    for name in names:
        yield name, Agree(plan, tuple(committed))
    terms = match_terms(federation.plan, rules=committed[0].rules)
    manifest = verified(terms, committed)
    for owner in names:
        for stretch in stretches(terms, owner):
            for index in range(terms.chunks(manifest.of(owner).size)):
                given = yield stretch.sender, Give(plan, stretch.address(index))
                assert isinstance(given, MatchParcel)
                yield stretch.receiver, Take(plan, given.parcel)
    if terms.outcome == COUNTS:
        yield terms.teller, Count(plan)
    for name in names:
        yield name, End(plan)


class Lead:
    """An honest coordinator that may be stopped before a question, and goes on from there.

    Args:
        federation: Whom it asks.
        until: Says of a partner and a question whether to stop before it.
    """

    def __init__(self, federation: Matched, until: Callable[[str, Asked], bool]) -> None:
        self._federation, self._questions = federation, questions(federation)
        self.said: list[tuple[str, Asked, Leaving]] = []
        self.next: tuple[str, Asked] | None = next(self._questions)
        self.on(until)

    def on(self, until: Callable[[str, Asked], bool] = lambda _name, _asked: False) -> "Lead":
        """Go on."""
        while self.next is not None and not until(*self.next):
            name, asked = self.next
            answer = self._federation.answer(name, asked)
            self.said.append((name, asked, answer))
            try:
                self.next = self._questions.send(answer)
            except StopIteration:
                self.next = None
        return self

    @property
    def overlap(self) -> Overlap:
        """What was counted."""
        (counts,) = (answer for _, _, answer in self.said if isinstance(answer, OverlapCounts))
        return Overlap.from_dict(dict(counts.overlap))


def taking(list_: str, hop: int, index: int = 0, towards: str = "") -> Callable[[str, Asked], bool]:
    """Whether a question is to take a certain parcel."""
    wanted = Address(list_, hop, index, towards)
    return lambda _name, asked: isinstance(asked, Take) and asked.parcel.address == wanted


def asking(kind: type, name: str = "") -> Callable[[str, Asked], bool]:
    """Whether a question is of a kind, and for a partner."""
    return lambda who, asked: isinstance(asked, kind) and name in {"", who}


def identity_of(answer: Leaving) -> str:
    """All of an answer in one text: its digest, and what is sealed in it byte by byte."""
    sealed = answer.parcel.sealed.hex() if isinstance(answer, MatchParcel) else ""
    return f"{answer.kind} {release_digest(answer)} {sealed}"


def cells_of(cards: Mapping[str, set[str]]) -> dict[frozenset[str], int]:
    """How many loyalty numbers exactly each set of partners has: plain sets."""
    found = {frozenset(part): 0 for size in range(1, len(cards) + 1) for part in itertools.combinations(cards, size)}
    for card in set().union(*cards.values()):
        found[frozenset(name for name, held in cards.items() if card in held)] += 1
    return found


def drawn(federation: Matched, name: str, source: RandomSource, *, attempt: int = 1) -> dict[frozenset[str], int]:
    """The noise that a partner drew from a source that is known: for each of its cells, by how much it is off."""
    (charge, *_) = (r.charge for r in federation.reservations(name) if r.charge.attempt == attempt)
    terms = match_terms(federation.plan, rules=federation_rules(federation, name))
    stream = source.stream(f"{name}/{charge.key}")
    new_secrets(terms, stream)  # drawn before them, from the same stream
    half = spread(terms.sigma or 0.0) // 2
    return {frozenset(cell): number - half for cell, number in numbers(terms, name, stream).items()}


def federation_rules(federation: Matched, name: str) -> str:
    """The version of the rules that a partner's identifiers were sealed under."""
    kind = federation.plan.matching.identifier  # type: ignore[union-attr]
    with open_vault(federation.folders[name], federation.clock) as vault:
        key = federation.workspace(name).group_key
        return open_identifiers(vault.table(IDENTIFIERS), kind, group_key=key).version


def with_noise(cards: Mapping[str, set[str]], noise: Mapping[str, Mapping[frozenset[str], int]]) -> dict[Any, int]:
    """What is to be counted of each cell: its customers, what lies in it too much, and what others have too few.

    A dummy of p's set for S lies in S where p put it on its list, and in S without p where it did not.
    """
    found = dict(cells_of(cards))
    for name, drawn_ in noise.items():
        for cell, off in drawn_.items():
            found[cell] += off
            if cell - {name}:
                found[cell - {name}] -= off
    return found


def counted(overlap: Overlap) -> dict[frozenset[str], int | None]:
    """The counts of the cells."""
    return {frozenset(one.partners): one.customers for one in overlap.cells}


def sealed_anew(federation: Matched, name: str, table: Mapping[str, list[str]]) -> None:
    """Seal a partner's identifiers again, from another table."""
    with open_vault(federation.folders[name], federation.clock) as vault:
        where = Identified("customer", {"loyalty": "loyalty"})
        take_in_identifiers(vault, HeldTable(pa.table(table), f"the identifiers of {name}"), where)


def all_bytes(folders: Iterable[Path]) -> dict[str, bytes]:
    """Every file below some folders."""
    return {f"{folder.name}/{name}": data for folder in folders for name, data in files_of(folder).items()}


@contextmanager
def chunks_of(points: int):
    """Parcels of so many points: the terms of every match made meanwhile, in this process."""
    before = MatchTerms.__init__.__defaults__
    MatchTerms.__init__.__defaults__ = (points,)  # type: ignore[misc]
    try:
        yield
    finally:
        MatchTerms.__init__.__defaults__ = before  # type: ignore[misc]
