"""A partner's side of secure sums: functions from a state and a request to a state and an answer, without any IO.

The protocol is that of Bonawitz et al. 2017, figure 4, with its consistency check: `begin` is round 0, `deal` round 1,
`accept` and `mask` round 2, `sign` round 3 and `reveal` round 4. The same request gives the same bytes; any other
request for what was answered is refused. A state is to be stored before its answer leaves.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.events import DistributedGaussian, Event
from coterie.privacy.randomness import Stream
from coterie.privacy.secagg import masks
from coterie.privacy.secagg.checking import check_claims, check_list, check_signed, check_task
from coterie.privacy.secagg.dealing import accept, begin, deal
from coterie.privacy.secagg.errors import blame, misused
from coterie.privacy.secagg.messages import MaskedVector, RevealedShares, SurvivorsSigned, arrays_digest
from coterie.privacy.secagg.numbers import to_ring
from coterie.privacy.secagg.own import Own
from coterie.privacy.secagg.stages import Move, Stage, after
from coterie.privacy.secagg.state import MemberState, StepState
from coterie.privacy.secagg.transcript import Claim, MaskTask, about, claim_of, cohort_digest, transcript_digest

__all__ = [
    "Claim",
    "MaskTask",
    "MemberState",
    "Own",
    "accept",
    "begin",
    "claim_of",
    "deal",
    "mask",
    "noise_stream",
    "ready",
    "reveal",
    "sign",
]


def ready(own: Own, state: MemberState, task: MaskTask) -> None:
    """Check that a sum may be worked on; to be asked before data is opened.

    Args:
        own: Who asks.
        state: What `accept`, or a step before, returned.
        task: What the coordinator asked for.

    Raises:
        PeerFault: Of the coordinator: the set-up is not done, the step is not of this epoch or was masked before, or
            the cohort is too small, without this partner, or with one that dropped out of the epoch.
    """
    own.must_hold(state)
    if state.stage is not Stage.READY:
        raise blame("", "asks for a sum before its set-up is done")
    check_task(own.epoch, task, state.dealers)
    if own.name not in task.cohort:
        raise blame("", "names a cohort without this partner")
    if set(task.cohort) & set(state.gone):
        raise blame("", "names a cohort with a partner that dropped out of this epoch")
    after(_step(state, task.step).stage, Move.MASK)


def noise_stream(own: Own, state: MemberState, task: MaskTask, *, purpose: str, table: str) -> Stream:
    """Return the stream that this partner's rows, sample or noise for a sum are drawn from.

    Args:
        own: Who asks.
        state: What `accept`, or a step before, returned.
        task: What the coordinator asked for.
        purpose: One of `masks.PURPOSES`; each has an independent stream.
        table: Digest of what is summed over.

    Raises:
        Misuse: There is no such purpose.
        PeerFault: As `ready`.

    Guarantees:
        The same for the same question over the same table, also from a restored snapshot, so that no two vectors of
        one question can be averaged; another, independent one for whatever differs in the question or the table.
    """
    if purpose not in masks.PURPOSES:
        raise misused(f"a stream is for one of {', '.join(masks.PURPOSES)}")
    ready(own, state, task)
    leaf, context = _step(state, task.step).noise, about(own.epoch, task, state.keys)
    return Stream(masks.noise_key(leaf, context, own.name, purpose=purpose, table=table))


def mask(
    own: Own, state: MemberState, task: MaskTask, vector: NDArray[np.int64], event: Event
) -> tuple[MemberState, MaskedVector]:
    """Put a vector under masks.

    Args:
        own: Who asks.
        state: What `accept`, or a step before, returned.
        task: What the coordinator asked for.
        vector: int64, shape (coordinates,), with this partner's noise in it.
        event: What pays for it.

    Returns:
        The state to store, from which the step's leaves are gone, and the vector to send. It is not in the state:
        the caller keeps it, and sends it again when the same is asked again.

    Raises:
        Misuse: The step was masked before; or it is no vector of whole numbers, or nothing pays for it.
        PeerFault: As `ready`; or naming a partner whose key is of small order.
    """
    own.must_hold(state)
    before = state.at(task.step) if isinstance(task, MaskTask) else None
    if before is not None and before.stage is not Stage.FRESH:
        raise misused("a step is masked once; the same question is answered with the vector that was kept")
    ready(own, state, task)
    if type(vector) is not np.ndarray or vector.dtype != np.int64 or vector.ndim != 1 or not len(vector):
        raise misused("a vector to be masked is int64, with one axis")
    if not isinstance(event, DistributedGaussian):
        raise misused("a vector to be masked is paid for by a distributed Gaussian")
    step = _step(state, task.step)
    masked = to_ring(vector, own.epoch.bits)
    _apply(own, state, task, masked)
    digest = arrays_digest((masked,))
    message = MaskedVector(
        plan=state.plan,
        partner=own.name,
        step=task.step,
        attempt=task.attempt,
        model=task.model,
        epoch=state.number,
        cohort=cohort_digest(task.cohort),
        signature="",
        event=event,
        arrays=(masked,),
    )
    stage, _ = after(step.stage, Move.MASK)
    # The leaves have served; whoever reads the state from now on learns nothing that unmasks the vector.
    changed = dataclasses.replace(step, stage=stage, task=task, vector=digest, pair=b"", own=b"", noise=b"")
    return state.with_step(changed), own.signed(message, arrays=digest)


def sign(own: Own, state: MemberState, claims: Sequence[Claim]) -> tuple[MemberState, SurvivorsSigned]:
    """Sign which vectors a sum is to be opened over: once.

    Args:
        own: Who asks.
        state: What `mask`, or a step after, returned.
        claims: The survivors' vectors, as the coordinator shows them; in any order.

    Returns:
        The state to store, and the word to send; for the same survivors as before, the same word.

    Raises:
        PeerFault: Naming a partner whose signature is not its; or of the coordinator: fewer survivors than the
            threshold, one that is not of the cohort, not this partner, or others than before.
    """
    own.must_hold(state)
    listed: tuple[Claim, ...] = check_list(own.epoch, claims, Claim)
    step, task = _worked_on(state, listed[0].step)
    stage, again = after(step.stage, Move.SIGN)
    survivors = check_claims(own.epoch, task, listed)
    if survivors.get(own.name) != step.vector:
        raise blame("", "shows survivors without this partner's own vector")
    transcript = transcript_digest(own.epoch, task, keys=state.keys, survivors=survivors)
    if again and transcript != step.transcript:
        raise blame("", "shows other survivors than before")
    word = SurvivorsSigned(state.plan, own.name, task.step, task.attempt, state.number, transcript, "")
    changed = dataclasses.replace(step, stage=stage, transcript=transcript, survivors=tuple(sorted(survivors)))
    return state.with_step(changed), own.signed(word)


def reveal(own: Own, state: MemberState, signed: Sequence[SurvivorsSigned]) -> tuple[MemberState, RevealedShares]:
    """Reveal what opens a sum: a share of the self leaf of who survived, of the pair leaf of who did not.

    Args:
        own: Who asks.
        state: What `sign` or `reveal` returned.
        signed: The survivors' words, as the coordinator shows them; in any order.

    Returns:
        The state to store, from which the step's shares are gone, and the shares to send; afterwards, the same.

    Raises:
        PeerFault: Naming a partner that signed something else; or of the coordinator: fewer words than the threshold,
            one of a partner that did not survive, or a sum that this partner did not sign for.

    Guarantees:
        Never both shares of one partner: survivors and dropped are two parts of one cohort, fixed when it was signed.
    """
    own.must_hold(state)
    listed: tuple[SurvivorsSigned, ...] = check_list(own.epoch, signed, SurvivorsSigned)
    step, task = _worked_on(state, listed[0].step)
    stage, again = after(step.stage, Move.REVEAL)
    for word in listed:
        check_signed(own.epoch, task, word, transcript=step.transcript)
        if word.partner not in step.survivors:
            raise blame("", "shows the word of a partner that did not survive")
    revealed = step.revealed if again else _revealed(state, step, task)
    dropped = set(task.cohort) - set(step.survivors)
    changed = dataclasses.replace(step, stage=stage, shares=b"", revealed=revealed)
    state = dataclasses.replace(state, gone=tuple(sorted(dropped | set(state.gone)))).with_step(changed)
    arrays = (np.frombuffer(revealed, dtype=np.uint8).reshape(-1, 32),)
    number, transcript = state.number, step.transcript
    message = RevealedShares(state.plan, own.name, task.step, task.attempt, number, transcript, "", arrays)
    return state, own.signed(message)


def _revealed(state: MemberState, step: StepState, task: MaskTask) -> bytes:
    """Return one share for every partner of the cohort."""
    parts = []
    for name in task.cohort:
        start = 64 * state.dealers.index(name) + (32 if name in step.survivors else 0)
        parts.append(step.shares[start : start + 32])
    return b"".join(parts)


def _apply(own: Own, state: MemberState, task: MaskTask, vector: NDArray[np.uint32 | np.uint64]) -> None:
    """Add this partner's masks to a vector, in place."""
    step, context = _step(state, task.step), about(own.epoch, task, state.keys)
    place = 32 * own.epoch.steps.index(task.step)
    publics = {holder.name: holder.pairs[place : place + 32] for holder in state.holders}
    pairs = {
        other: masks.pair_key(step.pair, publics[other], context, pair=(own.name, other))
        for other in task.cohort
        if other != own.name
    }
    plus = [key for other, key in pairs.items() if own.name < other]
    minus = [key for other, key in pairs.items() if own.name > other]
    masks.apply(vector, plus=[masks.self_key(step.own, context, own.name), *plus], minus=minus)


def _step(state: MemberState, name: str) -> StepState:
    found = state.at(name)
    if found is None:
        raise blame("", "names no step of the epoch")
    return found


def _worked_on(state: MemberState, name: str) -> tuple[StepState, MaskTask]:
    """Return a step that was masked, and its task."""
    step = _step(state, name)
    if step.task is None:
        raise blame("", f"asks about a sum that is {step.stage.value}")
    return step, step.task
