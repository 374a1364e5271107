"""The life of a study as a table: what state follows what happening. Nothing here talks to anyone.

PROPOSED ──consents──▶ CONSENTED ──tasks sent──▶ TRAINING ──updates──▶ AGGREGATED ──stored──▶ PUBLISHED
│                                                 │  ▲                                         │  │
└──too few──▶ ABORTED ◀──too few──────────────────┘  └─────────────────tasks sent──────────────┘  └─last─▶ FINISHED

A plan that matches customers does that before all else, and where it is all, ends with it:

CONSENTED ──lists asked for──▶ MATCHING ──match made──▶ MATCHED ──tasks sent──▶ TRAINING
                                                        MATCHED ──last round──▶ FINISHED
"""

from enum import Enum

from coterie.privacy.errors import CoterieError, Fault

__all__ = ["TABLE", "Happening", "State", "StudyAborted", "after"]


class State(Enum):
    """Where a study stands."""

    PROPOSED = "proposed"
    CONSENTED = "consented"
    MATCHING = "matching"
    MATCHED = "matched"
    TRAINING = "training"
    AGGREGATED = "aggregated"
    PUBLISHED = "published"
    FINISHED = "finished"
    ABORTED = "aborted"


class Happening(Enum):
    """What moves it on."""

    ENOUGH_CONSENTS = "enough consents"
    LISTS_ASKED = "lists asked for"
    MATCH_MADE = "match made"
    TASKS_SENT = "tasks sent"
    ENOUGH_UPDATES = "enough updates"
    TOO_FEW = "too few"
    STORED = "stored"
    LAST_ROUND = "last round"


class StudyAborted(CoterieError):
    """Too few partners answered; what was released stays charged."""


TABLE: dict[tuple[State, Happening], State] = {
    (State.PROPOSED, Happening.ENOUGH_CONSENTS): State.CONSENTED,
    (State.PROPOSED, Happening.TOO_FEW): State.ABORTED,
    (State.CONSENTED, Happening.TASKS_SENT): State.TRAINING,
    (State.CONSENTED, Happening.LISTS_ASKED): State.MATCHING,
    (State.MATCHING, Happening.MATCH_MADE): State.MATCHED,
    (State.MATCHED, Happening.TASKS_SENT): State.TRAINING,
    (State.MATCHED, Happening.LAST_ROUND): State.FINISHED,
    (State.TRAINING, Happening.ENOUGH_UPDATES): State.AGGREGATED,
    (State.TRAINING, Happening.TOO_FEW): State.ABORTED,
    (State.AGGREGATED, Happening.STORED): State.PUBLISHED,
    (State.PUBLISHED, Happening.TASKS_SENT): State.TRAINING,
    (State.PUBLISHED, Happening.LAST_ROUND): State.FINISHED,
}


def after(state: State, happening: Happening) -> State:
    """Return the state that follows.

    Raises:
        ValueError: The table has no such step: a fault of the caller.
        StudyAborted: The step leads to the end without a model.
    """
    following = TABLE.get((state, happening))
    if following is None:
        raise ValueError(f"nothing follows {happening.value} in state {state.value}")
    if following is State.ABORTED:
        raise StudyAborted(
            Fault(
                f"the study, while {state.value}",
                "fewer partners answered than the plan's privacy.threshold",
                "see who refused and why, then resume or plan anew",
            )
        )
    return following
