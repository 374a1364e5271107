"""What a secure sum of ours costs, with every message written to bytes and read again. Used by `secagg.py`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.events import DistributedGaussian
from coterie.privacy.identity import Identity
from coterie.privacy.randomness import OsSource
from coterie.privacy.secagg import member, opening
from coterie.privacy.secagg.codec import from_bytes, to_bytes
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.messages import Message
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.secagg.numbers import clamped, numbers_for

__all__ = ["SHARE", "STEPS", "Ours", "noise_seconds", "of_ours", "threshold_of"]

STEPS = 20  # sums of one epoch
COLLUDERS, MULTIPLIER, BATCH = 1, 1.0, 256
SHARE = 50_000  # scale of the noise that is timed apart

PLAN, MODEL = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def threshold_of(partners: int) -> int:
    """Return the least threshold that a plan may have: above two thirds, and at least 3."""
    return max(3, 2 * partners // 3 + 1)


@dataclass
class Cost:
    """Seconds of processor time and bytes, over all partners and of the coordinator."""

    clients: float = 0.0
    server: float = 0.0
    up: int = 0
    down: int = 0

    def client(self, act: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - whatever the act takes
        """Do a partner's work."""
        began = time.process_time()
        result = act(*arguments)
        self.clients += time.process_time() - began
        return result

    def coordinator(self, act: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - likewise
        """Do the coordinator's work."""
        began = time.process_time()
        result = act(*arguments)
        self.server += time.process_time() - began
        return result


@dataclass
class SetUp:
    """An epoch that is ready for its first sum, and what that cost."""

    epoch: Epoch
    owns: dict[str, member.Own]
    states: dict[str, member.MemberState]
    keys: list[Message]
    dealt: list[Message]
    cost: Cost


class Ours:
    """Partners of one study.

    Args:
        partners: How many.
    """

    def __init__(self, partners: int) -> None:
        self.names = [f"partner {place:03d}" for place in range(partners)]
        self.task = member.MaskTask("train/1", 1, MODEL, tuple(self.names))
        self.identities = {name: Identity.create() for name in self.names}
        self.threshold = threshold_of(partners)
        shares = self.threshold - COLLUDERS
        self.numbers = numbers_for(multiplier=MULTIPLIER, partners=partners, shares=shares, batch_cap=BATCH)
        self.event = DistributedGaussian(
            self.numbers.share, shares, self.numbers.sensitivity, sample_rate=0.01, steps=1
        )

    def whole(self, vectors: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
        """Return vectors in units."""
        return [np.rint(vector.astype(np.float64) * self.numbers.sensitivity).astype(np.int64) for vector in vectors]

    def set_up(self, steps: int) -> SetUp:
        """Make keys, deal shares, and open them."""
        roster = tuple((name, self.identities[name].public) for name in self.names)
        names = tuple(f"train/{step}" for step in range(1, steps + 1))
        epoch = Epoch(PLAN, 1, roster, self.threshold, names, self.numbers.bits)
        owns = {name: member.Own(name, self.identities[name], epoch) for name in self.names}
        cost, states, first, second = Cost(), {}, [], []
        for name, own in owns.items():
            states[name], data = cost.client(_begin, own)
            first.append(data)
        keys = cost.coordinator(_checked_keys, epoch, first)
        for name, own in owns.items():
            states[name], data = cost.client(_deal, own, states[name], first)
            second.append(data)
        dealt = cost.coordinator(_checked_dealt, epoch, keys, second)
        for name, own in owns.items():
            states[name] = cost.client(_accept, own, states[name], second)
        cost.up = sum(map(len, first + second))
        cost.down = cost.up * len(self.names)  # both lists are shown to everyone
        return SetUp(epoch, owns, states, keys, dealt, cost)

    def masked(self, ready: SetUp, whole: Sequence[NDArray[np.int64]]) -> tuple[dict[str, Any], dict[str, bytes], Cost]:
        """Return every partner's state and bytes after its vector is masked."""
        cost, states, sent, task = Cost(), {}, {}, self.task
        for (name, own), vector in zip(ready.owns.items(), whole, strict=True):
            states[name], sent[name] = cost.client(self._mask, own, ready.states[name], task, vector)
        cost.up = sum(map(len, sent.values()))
        return states, sent, cost

    def opened(
        self, ready: SetUp, states: dict[str, Any], sent: dict[str, bytes], *, dropped: int
    ) -> tuple[opening.Opened, Cost]:
        """Open the sum over all but the last so many; states stay as they are, so that it can be done again."""
        cost, after, words, shares = Cost(), {}, [], {}
        there = self.names[: len(self.names) - dropped]
        vectors, claims, transcript = cost.coordinator(self._claimed, ready, {name: sent[name] for name in there})
        for name in there:
            after[name], word = cost.client(_sign, ready.owns[name], states[name], claims)
            words.append(word)
        cost.coordinator(_check_words, ready.epoch, self.task, words, transcript)
        for name in there:
            shares[name] = cost.client(_reveal, ready.owns[name], after[name], words)
        result = cost.coordinator(self._open, ready, vectors, shares)
        cost.up = sum(map(len, words)) + sum(map(len, shares.values()))
        return result, cost

    def _mask(
        self, own: member.Own, state: member.MemberState, task: member.MaskTask, vector: NDArray[np.int64]
    ) -> tuple[member.MemberState, bytes]:
        member.ready(own, state, task)
        state, message = member.mask(own, state, task, clamped(vector, self.numbers.bound), self.event)
        return state, to_bytes(message)

    def _claimed(self, ready: SetUp, sent: dict[str, bytes]) -> tuple[Any, list[Any], str]:
        """Read and check the vectors as they come, and make what the partners are shown of them."""
        vectors = {name: from_bytes(data, event=self.event) for name, data in sent.items()}
        size = vectors[self.names[0]].arrays[0].size
        for vector in vectors.values():
            opening.check_masked(ready.epoch, self.task, vector, size=size)
        claims = [member.claim_of(vector) for vector in vectors.values()]
        digest = opening.key_list_digest(ready.keys)
        survivors = {claim.partner: claim.vector for claim in claims}
        return vectors, claims, opening.transcript_digest(ready.epoch, self.task, keys=digest, survivors=survivors)

    def _open(self, ready: SetUp, vectors: dict[str, Any], shares: dict[str, bytes]) -> opening.Opened:
        revealed = {name: from_bytes(data) for name, data in shares.items()}
        return opening.open_sum(ready.epoch, ready.keys, ready.dealt, vectors, revealed, self.task.cohort)


def _begin(own: member.Own) -> tuple[member.MemberState, bytes]:
    state, message = member.begin(own, OsSource().stream("keys"))
    return state, to_bytes(message)


def _deal(own: member.Own, state: member.MemberState, shown: list[bytes]) -> tuple[member.MemberState, bytes]:
    state, message = member.deal(own, state, [from_bytes(data) for data in shown], OsSource().stream("shares"))
    return state, to_bytes(message)


def _accept(own: member.Own, state: member.MemberState, shown: list[bytes]) -> member.MemberState:
    return member.accept(own, state, [from_bytes(data) for data in shown])


def _sign(own: member.Own, state: member.MemberState, claims: list[Any]) -> tuple[member.MemberState, bytes]:
    state, message = member.sign(own, state, claims)
    return state, to_bytes(message)


def _reveal(own: member.Own, state: member.MemberState, said: list[bytes]) -> bytes:
    _, message = member.reveal(own, state, [from_bytes(data) for data in said])
    return to_bytes(message)


def _checked_keys(epoch: Epoch, sent: list[bytes]) -> list[Message]:
    messages = [from_bytes(data) for data in sent]
    for message in messages:
        opening.check_keys(epoch, message)
    return messages


def _checked_dealt(epoch: Epoch, keys: list[Message], sent: list[bytes]) -> list[Message]:
    messages, digest = [from_bytes(data) for data in sent], opening.key_list_digest(keys)
    for message in messages:
        opening.check_dealt(epoch, message, keys=digest, holders=len(keys))
    return messages


def _check_words(epoch: Epoch, task: member.MaskTask, words: list[bytes], transcript: str) -> None:
    for word in words:
        opening.check_signed(epoch, task, from_bytes(word), transcript=transcript)


def of_ours(vectors: Sequence[NDArray[np.float32]]) -> tuple[dict[str, float], dict[int, float]]:
    """Return what one sum of ours costs, and the coordinator's seconds by number of drop-outs."""
    count, ours = len(vectors), Ours(len(vectors))
    whole = ours.whole(vectors)
    alone, ready = ours.set_up(1).cost, ours.set_up(STEPS)
    states, sent, masked = ours.masked(ready, whole)
    result, opened = ours.opened(ready, states, sent, dropped=0)
    _must_be_exact(result, whole)
    wanted = np.sum(vectors, axis=0, dtype=np.float64)
    client_sum = (masked.clients + opened.clients) / count
    drop_outs = {}
    for dropped in range(1, count - ours.threshold + 1):
        rest, cost = ours.opened(ready, states, sent, dropped=dropped)
        _must_be_exact(rest, whole[: count - dropped])
        drop_outs[dropped] = cost.server
    figures = {
        "client_set_up_seconds": ready.cost.clients / count,
        "client_set_up_alone_seconds": alone.clients / count,
        "client_mask_seconds": masked.clients / count,
        "client_sign_and_reveal_seconds": opened.clients / count,
        "client_sum_seconds": client_sum,
        "client_seconds_amortised": client_sum + ready.cost.clients / count / STEPS,
        "client_seconds_alone": client_sum + alone.clients / count,
        "server_set_up_seconds": ready.cost.server,
        "server_set_up_alone_seconds": alone.server,
        "server_sum_seconds": opened.server,
        "server_seconds_amortised": opened.server + ready.cost.server / STEPS,
        "server_seconds_alone": opened.server + alone.server,
        "set_up_bytes_up": ready.cost.up / count,
        "set_up_bytes_down": ready.cost.down / count,
        "sum_bytes_up": (masked.up + opened.up) / count,
        "bytes_per_parameter": (masked.up + opened.up) / count / len(vectors[0]),
        "bytes_per_parameter_amortised": (masked.up + opened.up + ready.cost.up / STEPS) / count / len(vectors[0]),
        "units": float(ours.numbers.sensitivity),
        "largest_error": float(np.abs(result.total / ours.numbers.sensitivity - wanted).max()),
    }
    return figures, drop_outs


def _must_be_exact(result: opening.Opened, whole: Sequence[NDArray[np.int64]]) -> None:
    if result.blamed or not np.array_equal(result.total, np.sum(whole, axis=0)):
        raise SystemExit("an opened sum is not the sum of what was masked: no figure is worth anything")


def noise_seconds(count: int) -> float:
    """Return the seconds of one vector of noise."""
    stream = OsSource().stream("noise")
    began = time.process_time()
    discrete_gaussians(SHARE, count, stream)
    return time.process_time() - began
