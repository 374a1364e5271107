"""A partner's part in secure sums: the protocol's questions, held against the plan, with its state on disk.

What the protocol needs of the plan (roster, threshold, steps, width of numbers) is taken from the signed plan that was
consented to, never from a question. State is written, sealed, before an answer leaves; what an answer says of itself is
in the ledger first, so that a restored workspace shows at the coordinator's witness before it uses a mask again.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from coterie.clients.refusals import Notes, TaskRefused, refused
from coterie.clients.sealed import read_sealed, seal_key, write_sealed
from coterie.clients.task import DealAsked, KeysAsked, RevealAsked, SignAsked, SumTask
from coterie.clients.workspace import Workspace
from coterie.privacy.canonical import canonical
from coterie.privacy.charges import Charge
from coterie.privacy.errors import FileFault, PlanFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import RandomSource, Stream
from coterie.privacy.release import release_digest, weights_digest
from coterie.privacy.secagg import member
from coterie.privacy.secagg.codec import from_bytes, to_bytes
from coterie.privacy.secagg.errors import SecAggError
from coterie.privacy.secagg.member import Own
from coterie.privacy.secagg.messages import DealtShares, MaskedVector, RevealedShares, RoundKeys, SurvivorsSigned
from coterie.privacy.secagg.numbers import Numbers
from coterie.privacy.secagg.state import MemberState
from coterie.privacy.secagg.transcript import MaskTask
from coterie.privacy.sums import epoch_of, is_paid, most_epochs, numbers_of

__all__ = ["Sums", "Working"]

T = TypeVar("T", RoundKeys, DealtShares, SurvivorsSigned, RevealedShares)


@dataclass(frozen=True)
class Kept:
    """What is kept of the newest epoch of a plan.

    Args:
        steps: Its sums.
        state: The protocol's.
        keys: The keys as they left: the same question gets the same bytes.
    """

    steps: tuple[str, ...]
    state: MemberState
    keys: bytes


@dataclass(frozen=True)
class Working:
    """A sum that may be worked on.

    Args:
        own: Who this partner is in the epoch.
        kept: The epoch as it stands.
        task: What the sum is about.
        numbers: In which whole numbers it is made.
    """

    own: Own
    kept: Kept
    task: MaskTask
    numbers: Numbers


class Sums:
    """The secure sums of one workspace.

    Args:
        workspace: Where state is kept.
        ledger: Its open ledger.
        random: Where secret keys come from.
        notes: Where refusals are written for the partner's operator.
    """

    def __init__(self, workspace: Workspace, ledger: Ledger, random: RandomSource, notes: Notes) -> None:
        self._workspace, self._ledger, self._random, self._notes = workspace, ledger, random, notes
        self._name = workspace.name

    def keys(self, plan: Plan, asked: KeysAsked) -> RoundKeys:
        """Begin an epoch with fresh keys.

        Raises:
            TaskRefused: The epoch is not new, is beyond the last that the plan may have, or its steps are not the
                plan's.
        """
        own, kept = self._own(plan, asked.epoch, asked.steps), self._readable(plan)
        if kept is None or kept.state.number != asked.epoch:
            earlier = (int(e.body["epoch"]) for e in self._ledger.entries("keys") if e.body["plan"] == asked.plan)
            if asked.epoch <= max(earlier, default=0):
                raise refused("secagg", "the epoch", "is not new", "ask for a later one")
            if asked.epoch > most_epochs(plan):
                raise refused("secagg", "the epoch", "is beyond the last that the plan may have", "propose a new plan")
            stream = self._random.stream(f"{self._name}/{asked.plan}/epoch/{asked.epoch}")
            state, message = member.begin(own, stream)
            kept = Kept(asked.steps, state, to_bytes(message))
            self._keep(plan, kept)
        if kept.steps != asked.steps:
            raise refused("secagg", "the epoch", "was begun for other steps", "ask for a later one")
        with self._protocol():
            sent = cast("RoundKeys", from_bytes(kept.keys))
        return self._told(sent, "keys", {"epoch": asked.epoch, "steps": list(asked.steps)})

    def deal(self, plan: Plan, asked: DealAsked) -> DealtShares:
        """Deal shares to the partners whose keys the coordinator shows.

        Raises:
            TaskRefused: The keys are not the partners', or shares were dealt to others before.
        """
        own, kept = self._open(plan, asked.epoch)
        with self._protocol():
            stream = self._random.stream(f"{self._name}/{asked.plan}/shares/{asked.epoch}")
            state, message = member.deal(own, kept.state, asked.keys, stream)
        self._only_once(message, "keys", "epoch")
        self._keep(plan, replace(kept, state=state))
        return self._told(message, "keys", {"epoch": asked.epoch, "steps": list(kept.steps)})

    def ready(self, plan: Plan, task: SumTask, charge: Charge) -> Working:
        """Check that a sum may be worked on, before data is opened.

        Nothing is stored before the vector is masked: whoever asks again shows again what others dealt.

        Raises:
            TaskRefused: What others dealt is wrong, the cohort is not one that this partner may add to, or the noise
                of today is not the one that is charged.
        """
        own, kept = self._open(plan, task.epoch)
        about = MaskTask(task.step, task.attempt, weights_digest(task.weights), task.cohort)
        with self._protocol():
            if task.dealt:
                kept = replace(kept, state=member.accept(own, kept.state, task.dealt))
            member.ready(own, kept.state, about)
        working = Working(own, kept, about, numbers_of(plan, task.step))
        _must_be_paid(plan, working, charge)
        return working

    def stream(self, working: Working, purpose: str, table: str) -> Stream:
        """Return the stream of a sum's rows, sample or noise.

        It comes from a secret of this sum alone, so that one question over one table has one answer, even in a
        restored workspace; over another table it has independent noise.
        """
        return member.noise_stream(working.own, working.kept.state, working.task, purpose=purpose, table=table)

    def mask(self, plan: Plan, working: Working, vector: NDArray[np.int64], charge: Charge) -> MaskedVector:
        """Mask a noisy vector; the state says so before anything leaves.

        Raises:
            TaskRefused: Its noise is not the one that is charged.
        """
        _must_be_paid(plan, working, charge)
        with self._protocol():
            state, message = member.mask(working.own, working.kept.state, working.task, vector, charge.event)
        self._keep(plan, replace(working.kept, state=state))
        return message

    def sign(self, plan: Plan, asked: SignAsked) -> SurvivorsSigned:
        """Say, once, over which vectors a sum is to be opened.

        Raises:
            TaskRefused: They are not the partners', too few, or not the ones that were signed before.
        """
        own, kept = self._open(plan, asked.epoch)
        with self._protocol():
            state, message = member.sign(own, kept.state, asked.claims)
        self._only_once(message, "opening", "epoch", "step")
        self._keep(plan, replace(kept, state=state))
        return self._told(message, "opening", _opening(message, tuple(claim.partner for claim in asked.claims)))

    def reveal(self, plan: Plan, asked: RevealAsked) -> RevealedShares:
        """Reveal, once, the shares that open a sum.

        Raises:
            TaskRefused: Too few signed what this partner signed.
        """
        own, kept = self._open(plan, asked.epoch)
        with self._protocol():
            state, message = member.reveal(own, kept.state, asked.signed)
        self._only_once(message, "opening", "epoch", "step")
        self._keep(plan, replace(kept, state=state))
        return self._told(message, "opening", _opening(message, _survivors(state, message.step)))

    def drop(self, plan: str) -> None:
        """Forget a study's last epoch: what is not opened by now stays closed."""
        self._path(plan).unlink(missing_ok=True)

    def _only_once(self, message: DealtShares | SurvivorsSigned | RevealedShares, kind: str, *by: str) -> None:
        """Refuse to say another thing than the ledger says was said: the state may be an older one, put back.

        Raises:
            TaskRefused: It is another; nothing of it was kept.
        """
        about = {"plan": message.plan, "what": message.kind, **{name: getattr(message, name) for name in by}}
        told = [e.body["release"] for e in self._ledger.entries(kind) if about.items() <= _plain(e.body).items()]
        if told and release_digest(message) not in told:
            raise refused("secagg", "the epoch's state", "is older than the ledger", "begin a later epoch")

    def _told(self, message: T, kind: str, body: Mapping[str, Any]) -> T:
        """Write down, once, that a message leaves."""
        release = release_digest(message)
        if not self._ledger.paid_for(release):
            self._ledger.record(kind, {"release": release, "plan": message.plan, "what": message.kind, **body})
        return message

    @contextmanager
    def _protocol(self) -> Iterator[None]:
        """Turn what the protocol refuses into the one word that leaves; who is to blame is noted for the operator."""
        try:
            yield
        except SecAggError as error:
            self._notes.write("refusals.log", error.faults)
            raise TaskRefused("secagg", *error.faults) from None

    def _own(self, plan: Plan, number: int, steps: tuple[str, ...]) -> Own:
        try:
            return Own(self._name, self._workspace.identity, epoch_of(plan, number, steps))
        except PlanFault as error:
            raise TaskRefused("task", *error.faults) from None

    def _open(self, plan: Plan, number: int) -> tuple[Own, Kept]:
        kept = self._kept(plan)
        if kept is None or kept.state.number != number:
            raise refused("secagg", "the epoch", "is not the one that is open", "begin a later one")
        return self._own(plan, number, kept.steps), kept

    def _readable(self, plan: Plan) -> Kept | None:
        """Return what is kept, or None also where it is damaged: a new epoch needs nothing of it."""
        try:
            return self._kept(plan)
        except TaskRefused:
            return None

    def _kept(self, plan: Plan) -> Kept | None:
        try:
            data = read_sealed(self._path(plan.digest()), self._key())
            if data is None:
                return None
            table = json.loads(data)
            state = MemberState.from_bytes(bytes.fromhex(table["state"]))
            return Kept(tuple(table["steps"]), state, bytes.fromhex(table["keys"]))
        except (FileFault, SecAggError, ValueError, KeyError, TypeError):
            raise refused("secagg", "the epoch's state", "is damaged", "begin a later epoch") from None

    def _keep(self, plan: Plan, kept: Kept) -> None:
        table = {"steps": list(kept.steps), "state": kept.state.to_bytes().hex(), "keys": kept.keys.hex()}
        path = self._path(plan.digest())
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_sealed(path, self._key(), canonical(table))

    def _path(self, plan: str) -> Path:
        return self._workspace.root / "sums" / f"{plan.removeprefix('sha256:')}.sealed"

    def _key(self) -> bytes:
        try:
            return seal_key(self._workspace.root / "keys" / "sums.key")
        except FileFault as error:
            raise TaskRefused("fault", *error.faults) from None


def _must_be_paid(plan: Plan, working: Working, charge: Charge) -> None:
    """Refuse a sum whose noise is not that of the charged event.

    Raises:
        TaskRefused: The code of today makes other noise of the plan than was consented to.
    """
    if not is_paid(plan, working.task.step, working.numbers, charge.event):
        fix = "work with the version that consented, or have the plan proposed anew"
        raise refused(
            "fault", charge.step, "has other noise today than was charged when the plan was consented to", fix
        )


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if isinstance(value, str | int)}


def _survivors(state: MemberState, step: str) -> tuple[str, ...]:
    at = state.at(step)
    return at.survivors if at is not None else ()


def _opening(message: SurvivorsSigned | RevealedShares, survivors: tuple[str, ...]) -> dict[str, Any]:
    """Return the body of the entry that says what a sum is opened over."""
    return {
        "step": message.step,
        "attempt": message.attempt,
        "epoch": message.epoch,
        "transcript": message.transcript,
        "survivors": sorted(survivors),
    }
