"""Sending and waiting, with a deadline and short polls.

Flower's own `send_and_receive` sleeps three seconds between polls, and its sampling waits for ever.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["exchange"]


def exchange(
    grid: Grid,
    messages: Iterable[Message],
    *,
    seconds: float,
    poll: float = 0.2,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[int, Message]]:
    """Send messages and yield replies as they come.

    Args:
        grid: Flower's grid.
        messages: One per node.
        seconds: How long to wait for all of them.
        poll: Seconds between polls.
        monotonic: Clock for the deadline.

    Yields:
        The node that was asked, and its reply. The node is found by the message that is answered: an error's
        own source is not to be believed. Nodes that stay silent until the deadline are left out.
    """
    sending = list(messages)
    waiting = dict(zip(grid.push_messages(sending), (m.metadata.dst_node_id for m in sending), strict=True))
    end = monotonic() + seconds
    while waiting:
        for reply in grid.pull_messages(list(waiting)):
            node = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                yield node, reply
        if not waiting or monotonic() >= end:
            return
        time.sleep(poll)
