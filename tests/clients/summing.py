"""A federation driven through secure sums one question at a time, by whoever plays the coordinator.

Imported as `coterie.tests.clients.summing`.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.clients.task import DealAsked, KeysAsked, RevealAsked, SignAsked, SumTask
from coterie.privacy.release import release_digest
from coterie.privacy.secagg import member, opening
from coterie.privacy.secagg.member import claim_of
from coterie.privacy.sums import epoch_of
from coterie.simulations.engines.local import LocalGrid
from coterie.simulations.engines.ray import node_configs
from coterie.tests.clients.federation import MORE, Federation, secure_study

STEPS = ("train/1", "train/2")
FOUR = MORE[:4]
PLAN = secure_study(training__rounds=1, metrics__rounds=(1,))


@contextlib.contextmanager
def quick_folder() -> Iterator[Path]:
    """Make a folder that is gone afterwards, in memory where there is some: ledgers are written durably."""
    place = Path("/dev/shm")  # noqa: S108 - the folder in it is made for its owner alone
    with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None) as folder:
        yield Path(folder)


class Summing(Federation):
    """A federation whose nodes are asked directly; `keys` and `dealt` are what the coordinator holds."""

    def __init__(self, root: Path, plan=None, tables=None) -> None:
        super().__init__(root, plan or PLAN, tables)
        self.epoch, self.steps = 1, STEPS
        self.shown, self.dealt = (), ()

    def copied(self, folder: Path) -> "Summing":
        """Another federation that stands where this one stands."""
        other = Summing(shutil.copytree(self.root, folder), self.plan)
        other.epoch, other.steps, other.shown, other.dealt = self.epoch, self.steps, self.shown, self.dealt
        other.random, other.clock = self.random, self.clock
        return other

    def consent(self) -> "Summing":
        for name in self.names:
            self.propose(name)
        return self

    def put_back(self, copy: Path, name: str = "amber", part: str = "") -> None:
        """Put an older copy of a workspace, or of a part of it, in its place."""
        here = self.folders[name] / part
        shutil.rmtree(here)
        shutil.copytree(copy, here)

    # --- questions -----------------------------------------------------------------------------------------

    def keys(self, name="amber", epoch=None, steps=None):
        with self.node(name) as node:
            return node.sums.keys(KeysAsked(self.digest, epoch or self.epoch, steps or self.steps))

    def deal(self, name="amber", keys=None, epoch=None):
        with self.node(name) as node:
            return node.sums.deal(DealAsked(self.digest, epoch or self.epoch, self.shown if keys is None else keys))

    def set_up(self, epoch=1, steps=STEPS, names=FOUR) -> "Summing":
        self.epoch, self.steps = epoch, steps
        self.shown = tuple(self.keys(name) for name in names)
        self.dealt = tuple(self.deal(name) for name in names)
        return self

    def about(self, step="train/1", attempt=1, **changes) -> SumTask:
        fields = {"weights": self.weights(), "epoch": self.epoch, "cohort": FOUR, "dealt": self.dealt, **changes}
        return SumTask(self.digest, step, attempt, **fields)

    def add(self, name="amber", *args, **changes):
        with self.node(name) as node:
            return node.sums.add(self.about(*args, **changes))

    def sign(self, masked, name="amber", epoch=None):
        claims = tuple(claim_of(message) for message in masked.values())
        with self.node(name) as node:
            return node.sums.sign(SignAsked(self.digest, epoch or self.epoch, claims))

    def reveal(self, signed, name="amber", epoch=None):
        with self.node(name) as node:
            return node.sums.reveal(RevealAsked(self.digest, epoch or self.epoch, tuple(signed.values())))

    def open(self, step="train/1", attempt=1, survivors=FOUR, cohort=FOUR):
        """Make a whole sum."""
        masked = {name: self.add(name, step, attempt, cohort=cohort) for name in survivors}
        signed = {name: self.sign(masked, name) for name in survivors}
        revealed = {name: self.reveal(signed, name) for name in survivors}
        epoch = epoch_of(self.plan, self.epoch, self.steps)
        return opening.open_sum(epoch, self.shown, self.dealt, masked, revealed, cohort)


class Ears:
    """Hears every vector before it is masked, and every sum that is opened."""

    def __init__(self) -> None:
        self.vectors: dict[str, list[int]] = {}  # by digest of the masked vector
        self.sums: list = []

    @contextlib.contextmanager
    def listening(self):
        mask, open_sum = member.mask, opening.open_sum

        def heard_mask(own, state, task, vector, event):
            changed, message = mask(own, state, task, vector, event)
            key = release_digest(message)
            assert key not in self.vectors, "one vector was masked twice"
            self.vectors[key] = [int(value) for value in vector]
            return changed, message

        def heard_sum(epoch, keys, dealt, masked, revealed, cohort):
            opened = open_sum(epoch, keys, dealt, masked, revealed, cohort)
            self.sums.append((epoch, dict(masked), dict(revealed), opened))
            return opened

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(member, "mask", heard_mask)
            patch.setattr(opening, "open_sum", heard_sum)
            yield self

    def check(self) -> None:
        """Every opened sum is the plain sum of the survivors' vectors, over no fewer than the threshold."""
        for epoch, masked, revealed, opened in self.sums:
            assert len(opened.survivors) >= epoch.threshold >= 3
            assert len(revealed) >= epoch.threshold
            assert set(opened.survivors) == set(masked)
            half = 2 ** (epoch.bits - 1)
            vectors = [self.vectors[release_digest(masked[name])] for name in opened.survivors]
            plain = [(sum(column) + half) % (2 * half) - half for column in zip(*vectors, strict=True)]
            assert opened.total.tolist() == plain
        steps = [(epoch.plan, next(iter(masked.values())).step) for epoch, masked, _, _ in self.sums]
        assert len(steps) == len(set(steps)), "a step was opened twice"


class SilentGrid(LocalGrid):
    """A grid that loses some questions, or their answers.

    Args:
        federation: Whose nodes answer.
        lost: Partner, kind of message, and which of its kind to this partner, from 1.
        heard: Whether the question comes to be worked on, and the answer is what is lost.
    """

    def __init__(self, federation: Federation, lost=(), *, heard: bool = False) -> None:
        super().__init__(federation.app(), node_configs(federation.names))
        self.names, self.lost, self.heard = federation.names, set(lost), heard
        self.asked: list[tuple[str, str]] = []  # partner and kind, in order
        self.left: list[str] = []  # kinds of answers that left a partner

    def pull_messages(self, message_ids):
        for message_id in list(message_ids):
            message = self._sent.pop(message_id, None)
            if message is None:
                continue
            kind, name = message.metadata.message_type, self.names[message.metadata.dst_node_id - 1000]
            self.asked.append((name, kind))
            gone = (name, kind, self.asked.count((name, kind))) in self.lost
            if gone and not self.heard:
                continue
            reply = self._answer(message)
            if not reply.has_error():
                self.left.append(kind)
            if not gone:
                yield reply
