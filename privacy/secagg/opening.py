"""The coordinator's side of a sum: from masked vectors and revealed shares to the sum, and to nothing else.

Bonawitz et al. 2017, figure 4, the server's part of round 4. Every message is checked as a partner would check it, and
every fault is attributed to the partner whose signature is under it.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.secagg import masks
from coterie.privacy.secagg.checking import (
    check_claims,
    check_dealt,
    check_keys,
    check_list,
    check_masked,
    check_revealed,
    check_signed,
    check_task,
)
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.errors import PeerFault, blame
from coterie.privacy.secagg.keys import public_of
from coterie.privacy.secagg.messages import DealtShares, MaskedVector, RevealedShares, RoundKeys
from coterie.privacy.secagg.numbers import from_ring
from coterie.privacy.secagg.shamir import join
from coterie.privacy.secagg.transcript import (
    MaskTask,
    about,
    claim_of,
    cohort_digest,
    key_list_digest,
    transcript_digest,
)

__all__ = [
    "Opened",
    "check_claims",
    "check_dealt",
    "check_keys",
    "check_masked",
    "check_revealed",
    "check_signed",
    "cohort_digest",
    "key_list_digest",
    "open_sum",
    "transcript_digest",
]


@dataclass(frozen=True)
class Opened:
    """A sum.

    Args:
        total: int64, shape (coordinates,).
        survivors: Sorted names of the partners whose vectors are in it.
        dropped: Sorted names of the others of the cohort.
        blamed: Faults of partners without whose shares it was opened.
    """

    total: NDArray[np.int64]
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    blamed: tuple[PeerFault, ...]


@dataclass(frozen=True)
class _Sum:
    """All that is known of a sum that is being opened."""

    epoch: Epoch
    task: MaskTask
    keys: tuple[RoundKeys, ...]
    digest: str
    dealt: Mapping[str, DealtShares]
    survivors: tuple[str, ...]

    @property
    def place(self) -> int:
        """Where the step stands in the epoch's steps."""
        return self.epoch.steps.index(self.task.step)

    def point(self, name: str) -> int:
        """Return a holder's point: its place in the key list, and 1."""
        return [message.partner for message in self.keys].index(name) + 1

    def leaves(self, name: str) -> NDArray[np.uint8]:
        """Return what a partner published of its two leaves of the step."""
        return np.asarray(self.keys[self.point(name) - 1].arrays[1][self.place], dtype=np.uint8)

    def which(self, name: str) -> int:
        """Return which leaf of a partner is joined: 1, the self leaf, of who survived."""
        return 1 if name in self.survivors else 0


def open_sum(
    epoch: Epoch,
    keys: Sequence[RoundKeys],
    dealt: Sequence[DealtShares],
    masked: Mapping[str, MaskedVector],
    revealed: Mapping[str, RevealedShares],
    cohort: Sequence[str],
) -> Opened:
    """Open a sum.

    Args:
        epoch: The epoch.
        keys: The key list that was shown.
        dealt: The shares that were shown.
        masked: The survivors' vectors, by name.
        revealed: The survivors' shares, by name.
        cohort: The names that the vectors are masked between.

    Returns:
        The sum of the survivors' vectors, modulo 2**bits nearest to 0.

    Raises:
        PeerFault: Naming a partner whose message is wrong where the sum cannot be opened without it, or "" where
            fewer than the threshold survived or revealed.

    Guarantees:
        What it returns is the sum bit for bit: every share is held against its dealer's commitment, and every leaf
        that is joined against what its dealer published.
    """
    one, transcript = _checked(epoch, keys, dealt, masked, tuple(cohort))
    right, blamed = _right(one, revealed, transcript)
    if len(right) < epoch.threshold:
        raise blamed[0] if blamed else blame("", "has fewer revealed shares than the threshold")
    leaves = _leaves(one, right)
    total = _sum([masked[name].arrays[0] for name in one.survivors])
    _unmask(one, leaves, total)
    dropped = tuple(name for name in one.task.cohort if name not in one.survivors)
    return Opened(from_ring(total), one.survivors, dropped, tuple(blamed))


def _checked(
    epoch: Epoch,
    keys: Sequence[RoundKeys],
    dealt: Sequence[DealtShares],
    masked: Mapping[str, MaskedVector],
    cohort: tuple[str, ...],
) -> tuple[_Sum, str]:
    """Check all that was sent before shares were revealed; return it, and its transcript's digest."""
    listed: tuple[RoundKeys, ...] = check_list(epoch, keys, RoundKeys)
    for shown in listed:
        check_keys(epoch, shown)
    digest = key_list_digest(listed)
    shares: tuple[DealtShares, ...] = check_list(epoch, dealt, DealtShares)
    for given in shares:
        check_dealt(epoch, given, keys=digest, holders=len(listed))
    vectors: tuple[MaskedVector, ...] = check_list(epoch, tuple(masked.values()), MaskedVector)
    if any(name != vector.partner for name, vector in masked.items()):
        raise blame("", "has a vector under another partner's name")
    task = _task(vectors, cohort)
    by_name = {given.partner: given for given in shares}
    names = {shown.partner for shown in listed}
    check_task(epoch, task, [name for name in by_name if name in names])
    size = _size(vectors)
    for vector in vectors:
        check_masked(epoch, task, vector, size=size)
    survivors = {vector.partner: claim_of(vector).vector for vector in vectors}
    transcript = transcript_digest(epoch, task, keys=digest, survivors=survivors)
    return _Sum(epoch, task, listed, digest, by_name, tuple(survivors)), transcript


def _task(vectors: Sequence[MaskedVector], cohort: tuple[str, ...]) -> MaskTask:
    """Return what most vectors are about; who has another is at fault."""
    said = Counter(
        (vector.step, vector.attempt, vector.model)
        for vector in vectors
        if isinstance(vector.step, str) and isinstance(vector.attempt, int) and isinstance(vector.model, str)
    )
    return MaskTask(*said.most_common(1)[0][0], cohort) if said else MaskTask("", 0, "", cohort)


def _size(vectors: Sequence[MaskedVector]) -> int:
    """Return the number of coordinates that most vectors have; who has another is at fault."""
    arrays = [array for vector in vectors if isinstance(vector.arrays, tuple) for array in vector.arrays]
    sizes = Counter(array.size for array in arrays if isinstance(array, np.ndarray))
    return sizes.most_common(1)[0][0] if sizes else 0


def _right(
    one: _Sum, revealed: Mapping[str, RevealedShares], transcript: str
) -> tuple[dict[str, NDArray[np.uint8]], list[PeerFault]]:
    """Return the shares of everyone whose shares are all right, and the faults of the others."""
    right: dict[str, NDArray[np.uint8]] = {}
    blamed: list[PeerFault] = []
    for name in sorted(revealed):
        try:
            message = revealed[name]
            check_revealed(one.epoch, one.task, message, transcript=transcript)
            if message.partner != name or name not in one.survivors:
                raise blame(name, "reveals shares of a sum that it is not in, or in another's name")
            _hold_against_commitments(one, message)
            right[name] = message.arrays[0]
        except PeerFault as fault:
            blamed.append(fault if fault.partner else blame(name, "reveals nothing that is shares"))
    return right, blamed


def _hold_against_commitments(one: _Sum, message: RevealedShares) -> None:
    """Check every share against what its dealer committed to."""
    place = one.point(message.partner) - 1
    for dealer, share in zip(one.task.cohort, message.arrays[0], strict=True):
        commitment = one.dealt[dealer].arrays[1][place, one.place, one.which(dealer)]
        if hashlib.sha256(share.tobytes()).digest() != commitment.tobytes():
            raise blame(message.partner, f"reveals a share that {dealer} did not commit to")


def _leaves(one: _Sum, right: Mapping[str, NDArray[np.uint8]]) -> dict[str, bytes]:
    """Join a leaf of everyone in the cohort, and hold each against what its partner published of it."""
    holders = sorted(right)[: one.epoch.threshold]
    joined = join({one.point(holder): right[holder] for holder in holders})
    leaves = {name: row.tobytes() for name, row in zip(one.task.cohort, joined, strict=True)}
    for name, leaf in leaves.items():
        which = one.which(name)
        found = hashlib.sha256(leaf).digest() if which else public_of(leaf)
        if found != one.leaves(name)[which].tobytes():
            raise blame(name, "dealt shares that are not of the leaf that it published")
    return leaves


def _sum(vectors: Sequence[NDArray[np.uint32 | np.uint64]]) -> NDArray[np.uint32 | np.uint64]:
    total = vectors[0].copy()
    for vector in vectors[1:]:
        np.add(total, vector, out=total)
    return total


def _unmask(one: _Sum, leaves: Mapping[str, bytes], total: NDArray[np.uint32 | np.uint64]) -> None:
    """Take the survivors' self masks off, and the pair masks that who dropped out left uncancelled."""
    context = about(one.epoch, one.task, one.digest)
    plus: list[bytes] = []
    minus = [masks.self_key(leaves[name], context, name) for name in one.survivors]
    for dropped in sorted(set(one.task.cohort) - set(one.survivors)):
        for name in one.survivors:
            public = one.leaves(name)[0].tobytes()
            key = masks.pair_key(leaves[dropped], public, context, pair=(dropped, name))
            # A survivor added the mask if its name sorts first, and subtracted it otherwise.
            (minus if name < dropped else plus).append(key)
    masks.apply(total, plus=plus, minus=minus)
