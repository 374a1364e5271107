"""A whole match in memory: parties, and a coordinator that relays parcels and keeps them for a test to look at."""

from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.privacy.identity import Identity
from coterie.privacy.matching.channel import Parcel
from coterie.privacy.matching.commitment import Commitment, ascending, commit, own_points
from coterie.privacy.matching.decoys import planted
from coterie.privacy.matching.legs import Leg
from coterie.privacy.matching.manifest import manifest
from coterie.privacy.matching.overlap import overlap
from coterie.privacy.matching.own import Own, new_secrets
from coterie.privacy.matching.relay import arranged, begun, evaluated, forward, made, receive
from coterie.privacy.matching.terms import MatchTerms
from coterie.privacy.matching.tokens import canaries_digest, exchange_legs, matches, rekeyed, tokens
from coterie.privacy.matching.venn import cells
from coterie.privacy.randomness import SeededSource

PLAN = "sha256:" + "a" * 64
NAMES = ("art", "books", "cars", "dogs", "eggs", "flat", "gold", "hats", "ink")


def identity(name):
    return Identity(Ed25519PrivateKey.from_private_bytes(SeededSource(name.encode()).stream("id").bits(32)))


def terms_of(count=3, outcome="counts", **changes):
    fields = {
        "plan": PLAN,
        "identifier": "email",
        "outcome": outcome,
        "epoch": 1,
        "rules": "1",
        "most": 10_000,
        "least": 1,
        "size_class": 16,
        "teller": "",
        "roster": tuple((name, identity(name).public) for name in NAMES[:count]),
        "sigma": 0.3 if outcome == "counts" else None,
        "chunk": 16,
    }
    return MatchTerms(**{**fields, **changes})


def item(text):
    return b"email\n" + str(text).encode()


def own_of(terms, name, seed=0):
    stream = SeededSource(f"{seed}/{terms.plan}".encode()).stream(f"secrets/{name}")
    return Own(name, identity(name), terms, new_secrets(terms, stream))


@dataclass
class Party:
    """One partner; what a node would keep on disk is here in memory."""

    terms: MatchTerms
    name: str
    identifiers: list
    seed: object = 0
    own: Own = field(init=False)
    commitment: Commitment = field(init=False)

    def __post_init__(self):
        self.source = SeededSource(f"{self.seed}/{self.terms.plan}".encode())
        self.own = own_of(self.terms, self.name, self.seed)
        mine = list(own_points(self.own, [[item(one) for one in self.identifiers]]))
        stream = self.source.stream(f"planted/{self.name}")
        count = len(self.identifiers)
        rest = planted(self.terms, self.name, secrets=self.own.secrets, stream=stream, count=count)
        points = np.concatenate((*mine, rest))
        self.order = ascending(points)
        self.rows = {}  # what is to go on, by leg
        self.points = np.ascontiguousarray(points[self.order])
        self.commitment = commit(self.own, self.points, attempt=1)
        self.nonces = self.source.stream(f"nonces/{self.name}")

    def agree(self, commitments):
        self.manifest = manifest(self.own, self.commitment, commitments=commitments)
        self.legs = {self.key(leg): leg for leg in begun(self.own, self.manifest)}
        self.inbox = {key: [] for key in self.legs}
        self.rows = {(self.name, 0, ""): self.points}
        return self

    @staticmethod
    def key(leg):
        return leg.list, leg.position, leg.towards

    def leg_for(self, address):
        return self.legs[address.list, address.hop + 1, address.towards]

    def take(self, parcel):
        leg = self.leg_for(parcel.address)
        after, rows, again = receive(self.own, self.manifest, leg=leg, parcel=parcel)
        self.legs[self.key(leg)] = after
        if not again:
            self.inbox[self.key(leg)].append(rows)
        return again

    def work(self, key):
        """Work on a list that is whole."""
        leg = self.legs[key]
        done = [
            evaluated(self.own, self.manifest, leg=leg, index=index, points=points)
            for index, points in enumerate(self.inbox[key])
        ]
        whole = np.concatenate(done)
        whole = np.ascontiguousarray(whole[arranged(self.manifest, leg, whole)])
        self.rows[key] = whole
        self.legs[key] = made(self.manifest, leg, whole)

    def send(self, key):
        chunk = self.terms.chunk
        for index in range(self.legs[key].count):
            part = self.rows[key][index * chunk : (index + 1) * chunk]
            leg = self.legs[key]
            after, parcel = forward(self.own, self.manifest, leg=leg, index=index, rows=part, stream=self.nonces)
            self.legs[key] = after
            yield parcel

    def mine(self):
        """Return the tokens of a list that came back, in the order in which it was made."""
        found = tokens(self.manifest, self.rows[self.name, len(self.terms.names), ""])
        back = np.empty_like(found)
        back[self.order] = found
        return back

    def start_exchange(self):
        for leg in exchange_legs(self.own, self.manifest):
            key = self.key(leg)
            self.inbox[key] = []
            if leg.list == self.name:
                self.rows[key] = rekeyed(self.own, self.manifest, other=leg.towards, tokens=self.mine())
                self.legs[key] = made(self.manifest, leg, self.rows[key])
            self.legs.setdefault(key, leg)

    def shared_with(self, other):
        received = np.concatenate(self.inbox[other, len(self.terms.names) + 1, self.name])
        mine, count = self.mine(), len(self.identifiers)
        found = matches(self.own, self.manifest, other=other, tokens=mine, received=received, count=count)
        return {one for one, yes in zip(self.identifiers, found, strict=True) if yes}


class Match:
    """A match of lists of identifiers, by partner."""

    def __init__(self, terms, lists, seed=0, party=Party):
        self.terms = terms
        self.parties = {name: party(terms, name, list(lists[name]), seed) for name in terms.names}
        self.transcript: list[Parcel] = []
        shown = [one.commitment for one in self.parties.values()]
        for one in self.parties.values():
            one.agree(shown)

    def relay(self, key):
        """Carry one list one hop; `key` is its sender's leg."""
        name, leg_key = key
        for parcel in self.parties[name].send(leg_key):
            data = parcel.to_bytes()
            self.transcript.append(parcel)
            self.parties[parcel.receiver].take(Parcel.from_bytes(data))

    def run(self):
        for hop in range(len(self.terms.names)):
            for owner in self.terms.names:
                path = self.terms.path(owner)
                if hop + 1 < len(path):
                    self.relay((path[hop], (owner, hop, "")))
                    self.parties[path[hop + 1]].work((owner, hop + 1, ""))
        return self

    def finals(self):
        teller = self.parties[self.terms.destination("")]
        last = {owner: len(self.terms.path(owner)) - 1 for owner in self.terms.names}
        return {owner: teller.rows[owner, last[owner], ""] for owner in self.terms.names}

    def raw(self):
        return cells(self.finals(), self.terms.names)

    def overlap(self):
        return overlap(self.terms, self.raw())

    def exchange(self):
        for one in self.parties.values():
            one.start_exchange()
        count = len(self.terms.names)
        for name in self.terms.names:
            for other in self.terms.names:
                if other != name:
                    self.relay((name, (name, count, other)))
        return self

    def tokens(self):
        found = {}
        for name, one in self.parties.items():
            rows = one.mine()[: len(one.identifiers)]
            found[name] = {who: rows[place].tobytes() for place, who in enumerate(one.identifiers)}
        return found

    def canaries(self):
        return {canaries_digest(one.mine(), count=len(one.identifiers)) for one in self.parties.values()}


__all__ = ["NAMES", "PLAN", "Leg", "Match", "Party", "identity", "item", "own_of", "terms_of"]
