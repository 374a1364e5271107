"""Sending and waiting: a deadline, short polls, and asking again what was lost on the way.

Flower's own `send_and_receive` sleeps three seconds between polls, its sampling waits for ever, and it asks once. A
partner answers a repeated question with the same bytes (PRIVACY rule 8), so asking again is always safe.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

__all__ = ["Patience", "Waiting", "exchange"]

_FLOWERS_OWN = 100  # numbers of errors below it are Flower's, from there on they are words of a partner
_MOMENTS = 2.0  # seconds after which a partner that was busy, or had just crashed, is asked again


@dataclass(frozen=True)
class Patience:
    """How long the coordinator waits.

    Args:
        seconds: For all replies to one step.
        poll: Seconds between looks.
        again: Seconds of silence after which the same question is sent again, and as long for those that were silent
            before, once all others have answered; None where messages cannot be lost.
        gathering: Seconds for the last partners to come online, once enough for the plan's threshold are.
        approving: Seconds for partners' operators to approve a plan; a plan is proposed again until then.
        proposing: Seconds between proposals to those that have not approved.
        again_later: Whether to end without a start where operators have not decided, or too few partners are online,
            so that whoever conducts studies may come back to this one later.
    """

    seconds: float = 3600.0
    poll: float = 0.2
    again: float | None = None
    gathering: float = 60.0
    approving: float = 0.0
    proposing: float = 10.0
    again_later: bool = False


@dataclass
class Waiting:
    """What became of one node's question.

    Args:
        message: The question.
        ids: Of every message that asked it and may still be answered.
        due: When it is to be sent again, on the clock of the exchange.
        pause: Seconds of silence until then; 0 before it was sent.
        moment: Seconds until it is sent again where the next answer says only that it was lost.
    """

    message: Message
    ids: set[str] = field(default_factory=set)
    due: float = float("inf")
    pause: float = 0.0
    moment: float = _MOMENTS

    def lost(self, message_id: str, now: float, most: float) -> None:
        """Note that a message was lost: ask again after a moment, and after a longer one each time.

        Args:
            message_id: Of the message; Flower answers it with another error whenever it is looked for again.
            now: On the clock of the exchange.
            most: Seconds that the longest moment has.
        """
        self.ids.discard(message_id)
        self.due = min(self.due, now + self.moment)
        self.moment = min(2 * self.moment, max(most, _MOMENTS))


def exchange(
    grid: Grid,
    messages: Iterable[Message],
    *,
    patience: Patience,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    unlikely: Collection[int] = (),
) -> Iterator[tuple[int, Message]]:
    """Send messages and yield replies as they come.

    Args:
        grid: Flower's grid.
        messages: One per node.
        patience: How long to wait, and when to ask again.
        monotonic: Clock for the deadline.
        sleep: Waits between looks.
        unlikely: Nodes that were silent before: they are waited for a moment longer than the others, and no more.

    Yields:
        The node that was asked, and its reply. The node is found by the message that is answered: an error's
        own source is not to be believed. Nodes that stay silent until the deadline are left out.
    """
    began = monotonic()
    waiting = {m.metadata.dst_node_id: Waiting(m) for m in messages}
    _send(grid, list(waiting.values()), began, patience)
    by_id = {message_id: node for node, asked in waiting.items() for message_id in asked.ids}
    end = began + patience.seconds
    while waiting:
        for reply in grid.pull_messages([i for i in by_id if by_id[i] in waiting]):
            node = by_id.pop(reply.metadata.reply_to_message_id, None)
            if node is None or node not in waiting:
                continue
            if patience.again is not None and _passing(reply):
                waiting[node].lost(reply.metadata.reply_to_message_id, monotonic(), patience.again)
                continue
            del waiting[node]
            yield node, reply
        now = monotonic()
        if patience.again is not None and set(waiting) <= set(unlikely):
            end = min(end, now + patience.again)  # the first time counts: when the others had answered
        if not waiting or now >= end:
            return
        late = [asked for asked in waiting.values() if now >= asked.due]
        _send(grid, late, now, patience)
        by_id |= {i: asked.message.metadata.dst_node_id for asked in late for i in asked.ids}
        sleep(patience.poll)


def _send(grid: Grid, asked: list[Waiting], now: float, patience: Patience) -> None:
    """Send questions, each in a message of its own, and note when they are to be sent again."""
    if not asked:
        return
    copies = [_copy(one.message) if one.pause else one.message for one in asked]
    for one, message_id in zip(asked, grid.push_messages(copies), strict=True):
        one.ids.add(message_id)
        one.pause = min(2 * one.pause or (patience.again or 0.0), 300.0)
        one.due = now + one.pause if patience.again is not None else float("inf")


def _copy(message: Message) -> Message:
    """Return the same question as a new message."""
    old = message.metadata
    return Message(message.content, dst_node_id=old.dst_node_id, message_type=old.message_type, group_id=old.group_id)


def _passing(reply: Message) -> bool:
    """Return whether a reply says only that something was lost on the way, or that the partner was busy."""
    if not reply.has_error():
        return False
    code = reply.error.code
    return reply.error.reason == "busy" or (code < _FLOWERS_OWN and code != ErrorCode.INVALID_FAB)
