"""One partner of a match as it works at a node: its own list, others' lists, files that are forced to disk.

    python benchmarks/matching_ours.py FOLDER PLACE SETTINGS

It is the partner's own code without the parts that do not grow with lists: consent, charge, ledger and Flower. Its
identifiers are in memory when the measurement begins, as they are when the vault has opened them.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from matching_pipe import Answer, emails, serve

from coterie.clients.identifierrows import open_identifiers
from coterie.clients.matching.lists import final_lists, hand, own_tokens, received_tokens, take
from coterie.clients.matching.making import make_list
from coterie.clients.matching.store import MatchStore
from coterie.clients.tables.table import PIECE
from coterie.clients.workspace import Workspace
from coterie.privacy.identity import Identity
from coterie.privacy.matching.channel import Parcel
from coterie.privacy.matching.commitment import Commitment
from coterie.privacy.matching.manifest import Manifest, manifest
from coterie.privacy.matching.overlap import overlap
from coterie.privacy.matching.own import Own, new_secrets
from coterie.privacy.matching.relay import begun
from coterie.privacy.matching.sodium import sodium
from coterie.privacy.matching.terms import COUNTS, ROWS, MatchTerms
from coterie.privacy.matching.tokens import exchange_legs, matches
from coterie.privacy.matching.venn import cells
from coterie.privacy.matching.ways import Address
from coterie.privacy.randomness import OsSource

PLAN = "sha256:" + "ab" * 32
SIGMA = 20.0  # scale of the noise of counts: about epsilon 0.2 at delta 1e-6


def terms_of(partners: int, outcome: str) -> MatchTerms:
    """Return the terms that every partner and the measurement know."""
    names = [f"p{number}" for number in range(partners)]
    roster = tuple((name, _identity(name).public) for name in names)
    sigma = SIGMA if outcome == COUNTS else None
    fixed = {"epoch": 1, "rules": "1", "most": 10_000_000, "least": 1, "size_class": 1024, "teller": names[0]}
    return MatchTerms(plan=PLAN, identifier="email", outcome=outcome, roster=roster, sigma=sigma, **fixed)


def _identity(name: str) -> Identity:
    return Identity(Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"\x00")))


class Opened:
    """What the vault gives of sealed identifiers, without the seals.

    Args:
        values: Of one customer each.
    """

    place = "the benchmark's identifiers"

    def __init__(self, values: Iterator[str]) -> None:
        self._values = values

    def pieces(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield all of it."""
        while part := list(itertools.islice(self._values, PIECE)):
            cells = {"customer": part, "kind": ["email"] * len(part), "value": part, "rules": ["1"] * len(part)}
            yield pa.record_batch([pa.array(cells[name], pa.large_string()) for name in columns], columns)


class Partner:
    """What a partner answers.

    Args:
        folder: Empty.
        place: In the roster, from 0.
        partners: How many there are.
        outcome: Of the match.
        size: Its customers.
    """

    def __init__(self, folder: Path, place: int, *, partners: int, outcome: str, size: int) -> None:
        self._stream = OsSource().stream("benchmark")
        terms, name = terms_of(partners, outcome), f"p{place}"
        (folder / "keys").mkdir(parents=True)
        self._store = MatchStore(Workspace(folder), PLAN)
        self._own = Own(name, _identity(name), terms, new_secrets(terms, self._stream))
        table: Any = Opened(emails(size, place))
        self._identifiers = open_identifiers(table, "email", group_key=bytes(32))

    def make(self, _: bytes) -> Answer:
        self._store.begin()
        kept = make_list(self._store, self._own, self._identifiers, attempt=1, stream=self._stream)
        return kept.commitment.header, b""

    def agree(self, _: bytes, commitments: list[dict[str, Any]]) -> Answer:
        own, kept = self._own, self._kept()
        fixed = manifest(own, kept.commitment, commitments=[Commitment.from_header(one) for one in commitments])
        legs = begun(own, fixed) + (exchange_legs(own, fixed) if own.terms.outcome == ROWS else ())
        self._store.save(replace(kept, manifest=fixed.commitments, legs=legs))
        return {}, b""

    def give(self, _: bytes, address: Mapping[str, Any]) -> Answer:
        kept, where = self._kept(), Address(**address)
        fixed = Manifest(self._own.terms, kept.manifest)
        parcel = hand(self._store, self._own, fixed, kept=kept, address=where, stream=self._stream)
        return {}, parcel.to_bytes()

    def take(self, data: bytes) -> Answer:
        kept = self._kept()
        take(
            self._store, self._own, Manifest(self._own.terms, kept.manifest), kept=kept, parcel=Parcel.from_bytes(data)
        )
        return {}, b""

    def count(self, _: bytes) -> Answer:
        terms = self._own.terms
        lists = final_lists(self._store, self._own, self._kept())
        return overlap(terms, cells(lists, terms.names)).to_dict(), b""

    def rows(self, _: bytes) -> Answer:
        """Find out which customers each of the others has too, and say how many; the measurement checks it."""
        own, kept, found = self._own, self._kept(), {}
        fixed = Manifest(own.terms, kept.manifest)
        mine = own_tokens(self._store, own, fixed, kept)
        for other in own.terms.names:
            if other != own.name:
                received = np.asarray(received_tokens(self._store, own, kept, other))
                shared = matches(own, fixed, other=other, tokens=mine, received=received, count=kept.items)
                found[other] = len(self._identifiers.customers_of(shared))
        return found, b""

    def _kept(self) -> Any:  # noqa: ANN401 - the store's state
        kept = self._store.load()
        if kept is None:
            raise RuntimeError
        return kept


def main() -> None:
    folder, place, settings = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    sodium()
    if place < 0:  # what a process costs that does nothing
        serve({})
        return
    one = Partner(folder, place, **settings)
    serve({name: getattr(one, name) for name in ("make", "agree", "give", "take", "count", "rows")})


if __name__ == "__main__":
    main()
