"""The life of an epoch, and of each of its sums, at a partner: what stage follows what move. Nothing here talks.

an epoch   BEGUN ──deal──▶ DEALT ──accept──▶ READY
a sum      FRESH ──mask──▶ MASKED ──sign──▶ SIGNED ──reveal──▶ REVEALED

A move that was made is answered again with the same bytes, if it is the same request; so DEALT, SIGNED and REVEALED
lead to themselves. A vector is masked once: what was sent is kept by who sent it.
"""

from enum import Enum

from coterie.privacy.secagg.errors import blame

__all__ = ["AGAIN", "TABLE", "Move", "Stage", "after"]


class Stage(Enum):
    """Where an epoch or a sum stands."""

    BEGUN = "begun"
    DEALT = "dealt"
    READY = "ready"
    FRESH = "fresh"
    MASKED = "masked"
    SIGNED = "signed"
    REVEALED = "revealed"


class Move(Enum):
    """What the coordinator asks for."""

    DEAL = "deal"
    ACCEPT = "accept"
    MASK = "mask"
    SIGN = "sign"
    REVEAL = "reveal"


TABLE: dict[tuple[Stage, Move], Stage] = {
    (Stage.BEGUN, Move.DEAL): Stage.DEALT,
    (Stage.DEALT, Move.ACCEPT): Stage.READY,
    (Stage.FRESH, Move.MASK): Stage.MASKED,
    (Stage.MASKED, Move.SIGN): Stage.SIGNED,
    (Stage.SIGNED, Move.REVEAL): Stage.REVEALED,
}

AGAIN: dict[tuple[Stage, Move], Stage] = {
    (Stage.DEALT, Move.DEAL): Stage.DEALT,
    (Stage.READY, Move.DEAL): Stage.READY,
    (Stage.READY, Move.ACCEPT): Stage.READY,
    (Stage.SIGNED, Move.SIGN): Stage.SIGNED,
    (Stage.REVEALED, Move.SIGN): Stage.REVEALED,
    (Stage.REVEALED, Move.REVEAL): Stage.REVEALED,
}
"""Moves that were made, and are answered as they were."""


def after(stage: Stage, move: Move) -> tuple[Stage, bool]:
    """Return the stage that follows, and whether the move was made before.

    Raises:
        PeerFault: Of the coordinator, who asked for what is not next.
    """
    if (stage, move) in AGAIN:
        return AGAIN[stage, move], True
    if (stage, move) not in TABLE:
        raise blame("", f"asks to {move.value} what is {stage.value}")
    return TABLE[stage, move], False
