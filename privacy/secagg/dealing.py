"""A partner's side of the set-up: fresh keys, shares of its leaves for the others, and their shares for it.

Bonawitz et al. 2017, figure 4, rounds 0 and 1, with leaves of their own for every sum of the epoch: to open one sum
takes nothing that another sum rests on.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.checking import check_dealt, check_keys, check_list
from coterie.privacy.secagg.errors import blame
from coterie.privacy.secagg.keys import public_of
from coterie.privacy.secagg.messages import DealtShares, RoundKeys
from coterie.privacy.secagg.own import Own
from coterie.privacy.secagg.sealing import Channel, opened, seal, sealed_size
from coterie.privacy.secagg.shamir import split
from coterie.privacy.secagg.stages import Move, Stage, after
from coterie.privacy.secagg.state import Holder, MemberState, StepState
from coterie.privacy.secagg.transcript import key_list_digest, list_digest

__all__ = ["accept", "begin", "deal"]


def begin(own: Own, stream: Stream) -> tuple[MemberState, RoundKeys]:
    """Draw fresh secrets for an epoch.

    Args:
        own: Who asks.
        stream: Secret randomness.

    Returns:
        The state to store, and the public keys to send.

    Leaks:
        Public keys and a hash of a secret; nothing about a customer.
    """
    epoch = own.epoch
    channel = stream.bits(32)
    steps = tuple(
        StepState(step, pair=stream.bits(32), own=stream.bits(32), noise=stream.bits(32)) for step in epoch.steps
    )
    public = b"".join(public_of(one.pair) + hashlib.sha256(one.own).digest() for one in steps)
    arrays = (_bytes(public_of(channel), 32), _bytes(public, len(steps), 2, 32))
    message = own.signed(RoundKeys(epoch.plan, own.name, epoch.number, epoch.steps, "", arrays))
    state = MemberState(
        epoch.plan, own.name, epoch.number, Stage.BEGUN, announced=message.signature, steps=steps, channel=channel
    )
    return state, message


def deal(own: Own, state: MemberState, keys: Sequence[RoundKeys], stream: Stream) -> tuple[MemberState, DealtShares]:
    """Split the leaves, and seal a share of each for everyone on the list of keys.

    Args:
        own: Who asks.
        state: What `begin` returned.
        keys: The list that the coordinator shows; in any order.
        stream: Secret randomness.

    Returns:
        The state to store, and the shares to send; for the same list as before, what was sent before.

    Raises:
        PeerFault: A partner's keys are not what they must be, or the list is not: too short, with a partner twice or
            from outside the roster, without this partner's own keys, or another than before.
    """
    own.must_hold(state)
    listed: tuple[RoundKeys, ...] = check_list(own.epoch, keys, RoundKeys)
    for message in listed:
        check_keys(own.epoch, message)
    if (own.name, state.announced) not in [(message.partner, message.signature) for message in listed]:
        raise blame("", "shows a list of keys without this partner's own")
    digest = key_list_digest(listed)
    stage, again = after(state.stage, Move.DEAL)
    if again:
        if digest != state.keys:
            raise blame("", "shows another list of keys than before")
        return state, _dealt(own, state)
    holders = tuple(
        Holder(message.partner, message.arrays[0].tobytes(), message.arrays[1][:, 0].tobytes()) for message in listed
    )
    changed = dataclasses.replace(state, stage=stage, keys=digest, holders=holders)
    changed = dataclasses.replace(changed, dealing=_dealing(own, changed, stream))
    sent = own.signed(_dealt(own, changed))
    return dataclasses.replace(changed, dealing_signature=sent.signature), sent


def accept(own: Own, state: MemberState, dealt: Sequence[DealtShares]) -> MemberState:
    """Open the shares that the others dealt, and hold them against the commitments.

    Args:
        own: Who asks.
        state: What `deal` returned.
        dealt: The list that the coordinator shows; in any order.

    Returns:
        The state to store. The channel's key is gone from it: what is on the wire stays sealed.

    Raises:
        PeerFault: Naming the dealer of a share that does not open or is not the one it committed to; or of the
            coordinator, whose list is not what it must be, or another than before.
    """
    own.must_hold(state)
    stage, again = after(state.stage, Move.ACCEPT)
    listed: tuple[DealtShares, ...] = check_list(own.epoch, dealt, DealtShares)
    names = [holder.name for holder in state.holders]
    for message in listed:
        check_dealt(own.epoch, message, keys=state.keys, holders=len(names))
    if not {message.partner for message in listed} <= set(names):
        raise blame("", "shows shares of a partner whose keys it did not show")
    if (own.name, state.dealing_signature) not in [(message.partner, message.signature) for message in listed]:
        raise blame("", "shows a list of shares without this partner's own")
    digest = list_digest(listed)
    if again:
        if digest != state.dealt:
            raise blame("", "shows another list of shares than before")
        return state
    held = [_opened(own, state, message) for message in listed]
    steps = tuple(
        dataclasses.replace(step, shares=b"".join(shares[64 * place : 64 * place + 64] for shares in held))
        for place, step in enumerate(state.steps)
    )
    dealers = tuple(message.partner for message in listed)
    return dataclasses.replace(state, stage=stage, channel=b"", dealt=digest, dealers=dealers, steps=steps)


def _dealing(own: Own, state: MemberState, stream: Stream) -> bytes:
    """Return sealed shares for every holder, and then a commitment to every share."""
    secrets = _bytes(b"".join(step.pair + step.own for step in state.steps), 2 * len(state.steps), 32)
    shares = split(secrets, threshold=own.epoch.threshold, holders=len(state.holders), stream=stream)
    sealed = [
        seal(
            Channel(own.epoch, state.keys, own.name, holder.name),
            state.channel,
            holder.channel,
            shares=part.tobytes(),
            stream=stream,
        )
        for holder, part in zip(state.holders, shares, strict=True)
    ]
    commitments = [hashlib.sha256(share.tobytes()).digest() for share in shares.reshape(-1, 32)]
    return b"".join([*sealed, *commitments])


def _dealt(own: Own, state: MemberState) -> DealtShares:
    """Return the message that the state's dealing is sent as."""
    holders, steps = len(state.holders), len(state.steps)
    cut = holders * sealed_size(steps)
    arrays = (
        _bytes(state.dealing[:cut], holders, sealed_size(steps)),
        _bytes(state.dealing[cut:], holders, steps, 2, 32),
    )
    return DealtShares(state.plan, own.name, state.number, state.keys, state.dealing_signature, arrays)


def _opened(own: Own, state: MemberState, message: DealtShares) -> bytes:
    """Return this partner's shares of a dealer's leaves, 64 bytes for each step."""
    names = [holder.name for holder in state.holders]
    place, dealer = names.index(own.name), state.holders[names.index(message.partner)]
    channel = Channel(own.epoch, state.keys, dealer.name, own.name)
    sealed, commitments = message.arrays
    shares = opened(channel, state.channel, dealer.channel, sealed=sealed[place].tobytes())
    found = b"".join(hashlib.sha256(shares[start : start + 32]).digest() for start in range(0, len(shares), 32))
    if found != commitments[place].tobytes():
        raise blame(dealer.name, "has sealed a share that it did not commit to")
    return shares


def _bytes(data: bytes, *shape: int) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
