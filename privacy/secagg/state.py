"""What a partner remembers of an epoch: secrets until they have served, and what it said, so that it says it again.

Frozen, and nothing but bytes, numbers and texts: two states are equal when they say the same, and a state that was
written to a file is the state that was written. It holds secrets: whoever stores it seals it.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.privacy.canonical import canonical
from coterie.privacy.secagg.errors import misused
from coterie.privacy.secagg.stages import Stage
from coterie.privacy.secagg.transcript import MaskTask

__all__ = ["Holder", "MemberState", "StepState"]

_FORMAT = "coterie/secagg/state/v1"


@dataclass(frozen=True)
class Holder:
    """What the key list says of a partner.

    Args:
        name: The partner.
        channel: Its channel's public key.
        pairs: The public keys of its pair leaves, 32 bytes for each step.
    """

    name: str
    channel: bytes
    pairs: bytes


@dataclass(frozen=True)
class StepState:
    """What there is of one sum.

    Args:
        step: Its name.
        stage: Where it stands.
        pair: The pair leaf, an X25519 private key; empty once the vector is masked.
        own: The self leaf; likewise.
        noise: The noise leaf; likewise.
        shares: 64 bytes for every dealer, of its pair leaf and its self leaf; empty once shares are revealed.
        task: What was masked.
        vector: Digest of the masked vector.
        transcript: Digest of what was signed.
        survivors: Who it was signed for.
        revealed: The shares that were revealed, which are no secret any more.
    """

    step: str
    stage: Stage = Stage.FRESH
    pair: bytes = field(default=b"", repr=False)
    own: bytes = field(default=b"", repr=False)
    noise: bytes = field(default=b"", repr=False)
    shares: bytes = field(default=b"", repr=False)
    task: MaskTask | None = None
    vector: str = ""
    transcript: str = ""
    survivors: tuple[str, ...] = ()
    revealed: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class MemberState:
    """What there is of an epoch.

    Args:
        plan: Digest of the plan.
        name: Whose state it is.
        number: Which epoch.
        stage: Where the epoch stands.
        announced: Signature of the partner's `RoundKeys`, which nothing else has.
        channel: The channel's private key; empty once the others' shares are opened.
        keys: Digest of the key list.
        holders: The key list, by name.
        dealing: Sealed shares and commitments that the partner dealt.
        dealing_signature: Signature of its `DealtShares`.
        dealt: Digest of the list of dealt shares.
        dealers: Whose shares are held, by name.
        gone: Who dropped out of a sum of this epoch.
        steps: The sums.
    """

    plan: str
    name: str
    number: int
    stage: Stage
    announced: str
    steps: tuple[StepState, ...]
    channel: bytes = field(default=b"", repr=False)
    keys: str = ""
    holders: tuple[Holder, ...] = ()
    dealing: bytes = field(default=b"", repr=False)
    dealing_signature: str = ""
    dealt: str = ""
    dealers: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def at(self, step: object) -> StepState | None:
        """Return what there is of a step, or None."""
        return next((one for one in self.steps if isinstance(step, str) and one.step == step), None)

    def with_step(self, changed: StepState) -> "MemberState":
        """Return the state with one step changed."""
        steps = tuple(changed if one.step == changed.step else one for one in self.steps)
        return dataclasses.replace(self, steps=steps)

    def to_bytes(self) -> bytes:
        """Return the state as canonical JSON."""
        return canonical({"format": _FORMAT, "state": _plain(self)})

    @staticmethod
    def from_bytes(data: bytes) -> "MemberState":
        """Read what `to_bytes` wrote.

        Raises:
            Misuse: It is not what `to_bytes` wrote, or another version did.
        """
        try:
            table = json.loads(data)
            if set(table) != {"format", "state"} or table["format"] != _FORMAT:
                raise ValueError
            fields = table["state"]
            holders = tuple(_read(Holder, one) for one in fields.pop("holders"))
            steps = tuple(_step(one) for one in fields.pop("steps"))
            state: MemberState = _read(MemberState, {**fields, "holders": holders, "steps": steps})
            if state.to_bytes() != data:  # one state, one byte string
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise misused("a stored state cannot be read") from None
        return state


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Stage):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def _step(table: dict[str, Any]) -> StepState:
    task = table.pop("task")
    read: StepState = _read(StepState, {**table, "task": None if task is None else _read(MaskTask, task)})
    return read


def _read(kind: Any, table: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of the dataclasses of this module
    """Make a dataclass of plain values, by its fields' types; every field must be there."""
    types = {one.name: one.type for one in dataclasses.fields(kind)}
    if set(types) != set(table):
        raise KeyError(kind.__name__)
    values: dict[str, Any] = {}
    for name, value in table.items():
        if types[name] is bytes:
            values[name] = bytes.fromhex(value)
        elif types[name] is Stage:
            values[name] = Stage(value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
