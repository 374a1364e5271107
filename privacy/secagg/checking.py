"""Whether a message is what the protocol has there: the same checks for a partner and for the coordinator.

Nothing here trusts a type, a size or a name before it has been held against the epoch, which comes from the signed
plan.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coterie.privacy.errors import PlanFault
from coterie.privacy.identity import verify
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.errors import blame
from coterie.privacy.secagg.keys import has_small_order
from coterie.privacy.secagg.messages import (
    DealtShares,
    MaskedVector,
    Message,
    RevealedShares,
    RoundKeys,
    SurvivorsSigned,
    arrays_digest,
    statement,
)
from coterie.privacy.secagg.sealing import sealed_size
from coterie.privacy.secagg.transcript import Claim, MaskTask, cohort_digest

__all__ = [
    "check_claims",
    "check_dealt",
    "check_keys",
    "check_list",
    "check_masked",
    "check_revealed",
    "check_signed",
    "check_task",
    "is_digest",
]

_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_ATTEMPTS = 1_000_000

Layout = tuple[type, tuple[int, ...]]
"""Type and shape that an array must have."""


def is_digest(value: object) -> bool:
    """Return whether a value is "sha256:" and 64 hexadecimal digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def check_task(epoch: Epoch, task: MaskTask, dealers: Sequence[str]) -> None:
    """Check what a sum is to be about.

    Args:
        epoch: The epoch.
        task: What the coordinator asked for.
        dealers: Whose shares there are: the partners that a cohort may have.

    Raises:
        PeerFault: Of the coordinator: an unknown step, no digest of a model, or no cohort of the epoch.
    """
    if not isinstance(task, MaskTask) or not isinstance(task.step, str) or task.step not in epoch.steps:
        raise blame("", "names no step of the epoch")
    if type(task.attempt) is not int or not 1 <= task.attempt <= _MOST_ATTEMPTS or not is_digest(task.model):
        raise blame("", "names no attempt, or no model by its digest")
    cohort = task.cohort
    if not isinstance(cohort, tuple) or not epoch.threshold <= len(cohort) <= len(epoch.roster):
        raise blame("", "names a cohort below the threshold, or above the roster")
    if not all(isinstance(name, str) and name in dealers for name in cohort) or list(cohort) != sorted(set(cohort)):
        raise blame("", "names a cohort that is unsorted, or of partners whose shares were not dealt")


def check_list(epoch: Epoch, messages: Sequence[Any], kind: type) -> tuple[Any, ...]:
    """Check the outside of a list: its length, its messages' kind, and that every sender is named once.

    Returns:
        The messages, sorted by their senders' names.

    Raises:
        PeerFault: Of the coordinator, who made the list.
    """
    if not isinstance(messages, Sequence) or not epoch.threshold <= len(messages) <= len(epoch.roster):
        raise blame("", "shows fewer messages than the threshold, or more than the roster")
    if not all(isinstance(message, kind) for message in messages):
        raise blame("", "shows messages of another kind")
    names = [message.partner for message in messages]
    if not all(isinstance(name, str) and epoch.key_of(name) for name in names):
        raise blame("", "shows a message of a partner outside the roster")
    if len(set(names)) != len(names):
        raise blame("", "shows one partner twice")
    return tuple(sorted(messages, key=lambda message: str(message.partner)))


def check_keys(epoch: Epoch, message: RoundKeys) -> None:
    """Check a partner's keys.

    Raises:
        PeerFault: Naming the partner: another plan, epoch or steps, another shape, a key of small order, or a
            signature that is not the partner's.
    """
    steps = len(epoch.steps)
    expected = {"plan": epoch.plan, "epoch": epoch.number, "steps": epoch.steps}
    _check(epoch, message, RoundKeys, expected, [(np.uint8, (32,)), (np.uint8, (steps, 2, 32))])
    channel, leaves = message.arrays
    if any(has_small_order(key.tobytes()) for key in (channel, *leaves[:, 0])):
        raise blame(message.partner, "has a public key of small order")


def check_dealt(epoch: Epoch, message: DealtShares, *, keys: str, holders: int) -> None:
    """Check a partner's shares, as far as can be seen without opening them.

    Args:
        epoch: The epoch.
        message: The shares.
        keys: Digest of the key list.
        holders: Length of the key list.

    Raises:
        PeerFault: Naming the partner: another plan, epoch or key list, another shape, or another's signature.
    """
    steps = len(epoch.steps)
    expected = {"plan": epoch.plan, "epoch": epoch.number, "keys": keys}
    layouts: list[Layout] = [(np.uint8, (holders, sealed_size(steps))), (np.uint8, (holders, steps, 2, 32))]
    _check(epoch, message, DealtShares, expected, layouts)


def check_masked(epoch: Epoch, task: MaskTask, message: MaskedVector, *, size: int) -> None:
    """Check a partner's masked vector.

    Args:
        epoch: The epoch.
        task: What the sum is about.
        message: The vector.
        size: How many coordinates it must have.

    Raises:
        PeerFault: Naming the partner: it is about something else, of another type or size, or another's.
    """
    dtype = np.uint32 if epoch.bits == 32 else np.uint64
    _check(epoch, message, MaskedVector, _masked_header(epoch, task), [(dtype, (size,))])
    if message.partner not in task.cohort:
        raise blame(message.partner, "is not in the cohort")


def check_signed(epoch: Epoch, task: MaskTask, message: SurvivorsSigned, *, transcript: str) -> None:
    """Check a partner's word on the survivors of a sum.

    Args:
        epoch: The epoch.
        task: What the sum is about.
        message: The partner's word.
        transcript: Digest of what must have been signed.

    Raises:
        PeerFault: Naming the partner: it signed something else, or another signed.
    """
    _check(epoch, message, SurvivorsSigned, _transcript_header(epoch, task, transcript), [])


def check_revealed(epoch: Epoch, task: MaskTask, message: RevealedShares, *, transcript: str) -> None:
    """Check revealed shares, as far as can be seen without commitments.

    Args:
        epoch: The epoch.
        task: What the sum is about.
        message: The shares.
        transcript: Digest of what was signed.

    Raises:
        PeerFault: Naming the partner: shares for something else, of another shape, or another's.
    """
    layouts: list[Layout] = [(np.uint8, (len(task.cohort), 32))]
    _check(epoch, message, RevealedShares, _transcript_header(epoch, task, transcript), layouts)


def check_claims(epoch: Epoch, task: MaskTask, claims: Sequence[Claim]) -> dict[str, str]:
    """Check which vectors a sum is to be opened over.

    The signatures are checked against what this side knows the sum to be about: a vector under masks of another
    model, cohort, attempt or epoch has no signature that passes.

    Returns:
        By name, the digest of every survivor's vector.

    Raises:
        PeerFault: Of the coordinator, or naming a partner whose signature is not its.
    """
    claims, header = check_list(epoch, claims, Claim), _masked_header(epoch, task)
    for claim in claims:
        same = _same((claim.step, claim.attempt), (task.step, task.attempt))
        if not same or claim.partner not in task.cohort or not is_digest(claim.vector):
            raise blame("", "shows a survivor of another sum, or from outside the cohort")
        signed = statement(MaskedVector.kind, {**header, "partner": claim.partner}, claim.vector)
        _verify(epoch, claim.partner, claim.signature, signed)
    return {claim.partner: claim.vector for claim in claims}


def _masked_header(epoch: Epoch, task: MaskTask) -> dict[str, Any]:
    cohort = cohort_digest(task.cohort)
    named = {"step": task.step, "attempt": task.attempt, "model": task.model}
    return {"plan": epoch.plan, "epoch": epoch.number, "cohort": cohort, **named}


def _transcript_header(epoch: Epoch, task: MaskTask, transcript: str) -> dict[str, Any]:
    named = {"step": task.step, "attempt": task.attempt, "transcript": transcript}
    return {"plan": epoch.plan, "epoch": epoch.number, **named}


def _check(
    epoch: Epoch, message: Message, kind: type, expected: Mapping[str, object], layouts: Sequence[Layout]
) -> None:
    """Check a message's kind, sender, fields, arrays and signature, in this order."""
    if not isinstance(message, kind) or not isinstance(message.partner, str) or not epoch.key_of(message.partner):
        raise blame("", "is of another kind, or of a partner outside the roster")
    partner = message.partner
    for name, value in expected.items():
        if not _same(getattr(message, name), value):
            raise blame(partner, f"has another {name} than this sum or epoch")
    _check_arrays(partner, message.arrays, layouts)
    if not isinstance(message.signature, str) or not _SIGNATURE.fullmatch(message.signature):
        raise blame(partner, "has no signature of 64 bytes in hexadecimal")
    signed = statement(message.kind, {**expected, "partner": partner}, arrays_digest(message.arrays))
    _verify(epoch, partner, bytes.fromhex(message.signature), signed)


def _same(found: object, value: object) -> bool:
    """Return whether a stranger's value is the expected one, with its type.

    True equals 1 for Python, and an array, also within a tuple, equals nothing that `if` understands.
    """
    if isinstance(found, tuple) and isinstance(value, tuple):
        return len(found) == len(value) and all(_same(a, b) for a, b in zip(found, value, strict=True))
    return type(found) is type(value) and found == value


def _check_arrays(partner: str, arrays: object, layouts: Sequence[Layout]) -> None:
    if not isinstance(arrays, tuple) or len(arrays) != len(layouts):
        raise blame(partner, "has another number of arrays")
    for array, (dtype, shape) in zip(arrays, layouts, strict=True):
        if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
            raise blame(partner, f"has an array that is not {np.dtype(dtype)} of shape {shape}")


def _verify(epoch: Epoch, partner: str, signature: object, signed: bytes) -> None:
    if not isinstance(signature, bytes) or len(signature) != 64:
        raise blame(partner, "has no signature of 64 bytes")
    try:
        verify(epoch.key_of(partner), signature, signed)
    except PlanFault:
        raise blame(partner, "is not signed by the identity that the roster names") from None
