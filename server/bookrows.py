"""What the coordinator's books hold, row by row, and how a study's status may change.

queued ──▶ running ──▶ finished
  ▲ │         │ │
  │ └─────────┼─┴────▶ stopped, failed, aborted
  └───────────┴──────────────┘   asked for again: what is published goes on
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ABORTED",
    "ENDED",
    "FAILED",
    "FINISHED",
    "FOLLOWS",
    "QUEUED",
    "RUNNING",
    "STOPPED",
    "Absence",
    "Member",
    "Model",
    "Round",
    "Study",
]

QUEUED, RUNNING = "queued", "running"
FINISHED, ABORTED, STOPPED, FAILED = "finished", "aborted", "stopped", "failed"
ENDED = frozenset({FINISHED, ABORTED, STOPPED, FAILED})

FOLLOWS: Mapping[str, frozenset[str]] = {
    QUEUED: frozenset({RUNNING, ABORTED, STOPPED, FAILED}),
    RUNNING: frozenset({QUEUED, FINISHED, ABORTED, STOPPED, FAILED}),
    ABORTED: frozenset({QUEUED}),
    STOPPED: frozenset({QUEUED}),
    FAILED: frozenset({QUEUED}),
    FINISHED: frozenset(),
}


@dataclass(frozen=True)
class Member:
    """A partner that was admitted.

    Args:
        name: As in plans' rosters.
        key: Its identity's public key, "ed25519:" and base64.
        node: The public key of its node, one line as OpenSSH writes it.
        admitted: When, ISO 8601 in UTC.
        expires: Until when, ISO 8601 in UTC; whether that is past is for the reader's clock.
        revoked: When it was revoked, ISO 8601 in UTC; None where it was not.
    """

    name: str
    key: str
    node: str
    admitted: str
    expires: str
    revoked: str | None = None


@dataclass(frozen=True)
class Study:
    """A study that was submitted.

    Args:
        digest: Of its plan.
        name: The plan's; several studies may have one name.
        status: One of the keys of `FOLLOWS`.
        submitted: When, ISO 8601 in UTC.
        ended: When it ended, ISO 8601 in UTC; None while it has not.
        reason: Why it ended without a model; "" otherwise.
        run: Flower's number of its newest run; "" before the first.
        stop: Whether it was asked to stop.
        signed: The signed plan, as it was submitted.
    """

    digest: str
    name: str
    status: str
    submitted: str
    ended: str | None
    reason: str
    run: str
    stop: bool
    signed: bytes


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round that was published.

    Args:
        study: Digest of the plan.
        round: From 1.
        model: Digest of the weights after it.
        cohort: The partners whose releases went into it, sorted.
        seconds: From the question to the publication.
        sent: Bytes to partners.
        received: Bytes from partners.
        at: When it was filed, ISO 8601 in UTC; the books fill it in.
    """

    study: str
    round: int
    model: str
    cohort: tuple[str, ...]
    seconds: float
    sent: int
    received: int
    at: str = ""


@dataclass(frozen=True)
class Absence:
    """A partner's refusal of one step, its silence, or a reply that was not taken; the words are free of data.

    Args:
        partner: Who; a node's number where the partner is not known.
        step: As in `server.registry.Refusal`.
        round: Which round; 0 for consent.
        code: A key of `privacy.release.CODES`, or "silent", or "rejected".
        why: For "rejected", the rule that the reply broke.
        at: When it was filed, ISO 8601 in UTC; the books fill it in.
    """

    partner: str
    step: str
    round: int
    code: str
    why: str = ""
    at: str = ""


@dataclass(frozen=True)
class Model:
    """A model that was published.

    Args:
        study: Digest of the plan.
        name: The study's.
        version: From 1, counted up over the studies of one name.
        model: Digest of the weights.
        record: Digest of the study's record.
        at: When it was published, ISO 8601 in UTC.
    """

    study: str
    name: str
    version: int
    model: str
    record: str
    at: str
