"""A cohort of partners and a coordinator in memory, every message of which a test may look at or change."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from coterie.privacy.events import DistributedGaussian
from coterie.privacy.identity import Identity
from coterie.privacy.randomness import SeededSource
from coterie.privacy.secagg import member, opening
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.member import MaskTask, MemberState, Own, claim_of

PLAN = "sha256:" + "a" * 64
MODEL, OTHER_MODEL = "sha256:" + "b" * 64, "sha256:" + "c" * 64
EVENT = DistributedGaussian(100, 2, 100, 0.1, 1)
STEPS = ("train/1", "train/2", "evaluate/1")
NAMES = ("art", "books", "cars", "dogs", "eggs", "flat", "gold", "hats")


def identity(name, label=""):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Identity(Ed25519PrivateKey.from_private_bytes(SeededSource(f"{name}{label}".encode()).stream("id").bits(32)))


def epoch_of(count, **changes):
    roster = tuple((name, identity(name).public) for name in NAMES[:count])
    fields = {"plan": PLAN, "number": 1, "roster": roster, "threshold": 2 * count // 3 + 1, "steps": STEPS, "bits": 32}
    return Epoch(**{**fields, **changes})


def signed_by(name, message, **changes):
    """Return a message as its partner would sign it after a change: what a dishonest partner sends."""
    from coterie.privacy.secagg.messages import signed_bytes

    message = dataclasses.replace(message, **changes)
    return dataclasses.replace(message, signature=identity(name).sign(signed_bytes(message)).hex())


@dataclass
class Cohort:
    """Partners after set-up; `seed` decides all that is random."""

    count: int = 4
    seed: int = 0
    bits: int = 32
    number: int = 1
    plan: str = PLAN
    owns: dict = field(init=False)
    states: dict[str, MemberState] = field(init=False)

    def __post_init__(self):
        self.epoch = epoch_of(self.count, bits=self.bits, number=self.number, plan=self.plan)
        self.names = tuple(name for name, _ in self.epoch.roster)
        self.owns = {name: Own(name, identity(name), self.epoch) for name in self.names}
        self.source = SeededSource(f"{self.seed}/{self.number}/{self.plan}".encode())
        begun = {name: member.begin(own, self.source.stream(f"begin/{name}")) for name, own in self.owns.items()}
        self.states = {name: state for name, (state, _) in begun.items()}
        self.keys = [message for _, message in begun.values()]
        self.dealt = []

    def deal(self, name, keys=None):
        shown = self.keys if keys is None else keys
        state, message = member.deal(self.owns[name], self.states[name], shown, self.source.stream(f"deal/{name}"))
        self.states[name] = state
        return message

    def deal_all(self):
        self.dealt = [self.deal(name) for name in self.names]
        return self

    def accept(self, name, dealt=None):
        shown = self.dealt if dealt is None else dealt
        self.states[name] = member.accept(self.owns[name], self.states[name], shown)

    def set_up(self):
        self.deal_all()
        for name in self.names:
            self.accept(name)
        return self

    def task(self, step="train/1", *, attempt=1, model=MODEL, cohort=None):
        return MaskTask(step, attempt, model, self.names if cohort is None else tuple(cohort))

    def mask(self, name, vector, task=None):
        task = self.task() if task is None else task
        vector = np.asarray(vector, dtype=np.int64)
        self.states[name], message = member.mask(self.owns[name], self.states[name], task, vector, EVENT)
        return message

    def mask_all(self, vectors, task=None):
        return {name: self.mask(name, vector, task) for name, vector in vectors.items()}

    def sign(self, name, masked):
        claims = [claim_of(message) for message in masked.values()]
        self.states[name], message = member.sign(self.owns[name], self.states[name], claims)
        return message

    def reveal(self, name, signed):
        self.states[name], message = member.reveal(self.owns[name], self.states[name], list(signed.values()))
        return message

    def open(self, masked, revealed, cohort=None):
        names = self.names if cohort is None else cohort
        return opening.open_sum(self.epoch, self.keys, self.dealt, masked, revealed, names)

    def run(self, vectors, task=None, *, signers=None, revealers=None):
        """Go through a sum; `vectors`, `signers` and `revealers` name who is still there at each stage."""
        task = self.task() if task is None else task
        masked = self.mask_all(vectors, task)
        signed = {name: self.sign(name, masked) for name in (masked if signers is None else signers)}
        revealed = {name: self.reveal(name, signed) for name in (signed if revealers is None else revealers)}
        return self.open(masked, revealed, task.cohort)


def vectors_of(names, *, seed=0, size=5, reach=2**20):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-reach, reach, size) for name in names}
