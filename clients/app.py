"""The partner's Flower app: handlers behind the door.

The app is made by `client_app` from where workspaces are and where randomness comes from, so that simulation
and deployment run the very same handlers.
"""

import datetime
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from coterie.clients.door import Answering, Door
from coterie.clients.keysources import HeldSources
from coterie.clients.matchwire import decode_match
from coterie.clients.node import PartnerNode, open_node
from coterie.clients.sumwire import decode_deal, decode_keys, decode_reveal, decode_sign, decode_sum, is_sum
from coterie.clients.task import SumTask, Task
from coterie.clients.wire import PROPOSE, decode_close, decode_plan, decode_task, encode_release, split_witness
from coterie.privacy.clock import now
from coterie.privacy.randomness import RandomSource
from coterie.privacy.release import Release

__all__ = ["Handler", "client_app"]


class Handler(NamedTuple):
    """How a kind of question is read, and who answers it.

    Args:
        read: Makes the question of a message's content; raises WireFault where it is malformed.
        work: Answers it with a charged release.
    """

    read: Callable[[RecordDict], Any]
    work: Callable[[PartnerNode, Any], Release]


def client_app(
    locate: Callable[[Context], Path], *, random: RandomSource, clock: Callable[[], datetime.datetime] = now
) -> ClientApp:
    """Make a partner's app.

    Args:
        locate: Finds the workspace of the context's partner.
        random: Where secret randomness comes from.
        clock: Returns the time in UTC.
    """
    client, sources = ClientApp(mods=[Door(locate, clock)]), HeldSources()

    def node(context: Context) -> AbstractContextManager[PartnerNode]:
        # One thread a partner: more contend for shared cores instead of helping.
        torch.set_num_threads(1)
        return open_node(locate(context), random=random, clock=clock, sources=sources)

    def answer(message: Message, context: Context, handler: Handler) -> Message:
        note, content = split_witness(message.content)
        question = handler.read(content)  # what is malformed is refused before anything is opened
        with node(context) as partner:
            if note or message.metadata.message_type != PROPOSE:  # at a proposal nobody knows yet who answers
                partner.hold_to(note or "")
            return Message(encode_release(handler.work(partner, question)), reply_to=message)

    def handled(handler: Handler) -> Callable[[Message, Context], Message]:
        return lambda message, context: answer(message, context, handler)

    client.train()(handled(_TRAIN))
    client.evaluate()(handled(_MEASURE))
    for name, handler in _QUERIES.items():
        client.query(name)(handled(handler))
    return Answering(client)


def _task(content: RecordDict) -> Task | SumTask:
    return decode_sum(content) if is_sum(content) else decode_task(content)


_TRAIN = Handler(_task, lambda partner, task: partner.add(task) if isinstance(task, SumTask) else partner.train(task))
_MEASURE = Handler(
    _task, lambda partner, task: partner.add(task) if isinstance(task, SumTask) else partner.measure(task)
)
_QUERIES: Mapping[str, Handler] = {
    "propose": Handler(decode_plan, lambda partner, plan: partner.propose(plan)),
    "match": Handler(decode_match, lambda partner, asked: partner.matches.answer(asked)),
    "keys": Handler(decode_keys, lambda partner, asked: partner.sums.keys(asked)),
    "deal": Handler(decode_deal, lambda partner, asked: partner.sums.deal(asked)),
    "sign": Handler(decode_sign, lambda partner, asked: partner.sums.sign(asked)),
    "reveal": Handler(decode_reveal, lambda partner, asked: partner.sums.reveal(asked)),
    "close": Handler(decode_close, lambda partner, closed: partner.receive(*closed)),
}
