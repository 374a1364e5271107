"""What a sum is about, as digests: everything that all who take part in it must have seen alike."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.privacy.canonical import digest
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.messages import DealtShares, MaskedVector, RoundKeys, arrays_digest, signed_bytes

__all__ = [
    "Claim",
    "MaskTask",
    "about",
    "claim_of",
    "cohort_digest",
    "key_list_digest",
    "list_digest",
    "transcript_digest",
]


@dataclass(frozen=True)
class MaskTask:
    """What a sum is about, in the coordinator's words.

    Args:
        step: One of the epoch's steps.
        attempt: 1, or more after an attempt that was not opened.
        model: Digest of the weights that the sum is about.
        cohort: Sorted names of the partners between whom the masks cancel.
    """

    step: str
    attempt: int
    model: str
    cohort: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """A survivor's vector, as the others are shown it: its digest with the survivor's signature.

    Args:
        partner: Whose vector.
        step: Which sum.
        attempt: As in `MaskTask`.
        vector: Digest of the masked vector.
        signature: Of the `MaskedVector`, 64 bytes.
    """

    partner: str
    step: str
    attempt: int
    vector: str
    signature: bytes


def claim_of(message: MaskedVector) -> Claim:
    """Return what the others are shown of a masked vector whose signature was checked."""
    vector = arrays_digest(message.arrays)
    return Claim(message.partner, message.step, message.attempt, vector, bytes.fromhex(message.signature))


def list_digest(messages: Sequence[RoundKeys] | Sequence[DealtShares]) -> str:
    """Return the digest of a list of signed messages, in whatever order.

    It is over what was signed, not over signatures: that a signature might have a second spelling must not split
    partners that saw the same keys.
    """
    return digest(sorted([message.partner, hashlib.sha256(signed_bytes(message)).hexdigest()] for message in messages))


def key_list_digest(keys: Sequence[RoundKeys]) -> str:
    """Return the digest of a list of keys."""
    return list_digest(keys)


def cohort_digest(cohort: Sequence[str]) -> str:
    """Return the digest of a cohort's names."""
    return digest(sorted(cohort))


def about(epoch: Epoch, task: MaskTask, keys: str) -> dict[str, Any]:
    """Return everything that masks, noise and transcript of a sum are bound to.

    Two partners whose values differ in anything have masks that do not cancel: two models are never summed
    (Pasquini et al., "Eluding secure aggregation in federated learning via model inconsistency", CCS 2022).

    Args:
        epoch: The epoch.
        task: What the sum is about.
        keys: Digest of the key list.
    """
    return {
        "plan": epoch.plan,
        "epoch": epoch.number,
        "step": task.step,
        "attempt": task.attempt,
        "model": task.model,
        "keys": keys,
        "cohort": cohort_digest(task.cohort),
    }


def transcript_digest(epoch: Epoch, task: MaskTask, *, keys: str, survivors: Mapping[str, str]) -> str:
    """Return the digest of what a sum is to be opened over.

    Args:
        epoch: The epoch.
        task: What the sum is about.
        keys: Digest of the key list.
        survivors: By name, the digest of every survivor's vector.
    """
    return digest({"format": "coterie/secagg/transcript/v1", **about(epoch, task, keys), "survivors": dict(survivors)})
