"""The partner's Flower app: handlers behind the door.

The app is made by `client_app` from where workspaces are and where randomness comes from, so that simulation
and deployment run the very same handlers.
"""

import datetime
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from coterie.clients.door import Door
from coterie.clients.node import PartnerNode, open_node
from coterie.clients.sumwire import decode_deal, decode_keys, decode_reveal, decode_sign, decode_sum, is_sum
from coterie.clients.wire import PROPOSE, decode_close, decode_plan, decode_task, encode_release, split_witness
from coterie.privacy.clock import now
from coterie.privacy.randomness import OsSource, RandomSource
from coterie.privacy.release import Release

__all__ = ["client_app", "deployed"]


def client_app(
    locate: Callable[[Context], Path], *, random: RandomSource, clock: Callable[[], datetime.datetime] = now
) -> ClientApp:
    """Make a partner's app.

    Args:
        locate: Finds the workspace of the context's partner.
        random: Where secret randomness comes from.
        clock: Returns the time in UTC.
    """
    client = ClientApp(mods=[Door(locate, clock)])

    def node(context: Context) -> AbstractContextManager[PartnerNode]:
        # One thread a partner: more contend for shared cores instead of helping.
        torch.set_num_threads(1)
        return open_node(locate(context), random=random, clock=clock)

    def answer(message: Message, context: Context, work: Callable[[PartnerNode, RecordDict], Release]) -> Message:
        note, question = split_witness(message.content)
        with node(context) as partner:
            if note or message.metadata.message_type != PROPOSE:  # at a proposal nobody knows yet who answers
                partner.hold_to(note or "")
            return Message(encode_release(work(partner, question)), reply_to=message)

    def handler(work: Callable[[PartnerNode, RecordDict], Release]) -> Callable[[Message, Context], Message]:
        return lambda message, context: answer(message, context, work)

    client.train()(handler(_train))
    client.evaluate()(handler(_measure))
    for name, work in _QUERIES.items():
        client.query(name)(handler(work))
    return client


def _train(partner: PartnerNode, question: RecordDict) -> Release:
    return partner.add(decode_sum(question)) if is_sum(question) else partner.train(decode_task(question))


def _measure(partner: PartnerNode, question: RecordDict) -> Release:
    return partner.add(decode_sum(question)) if is_sum(question) else partner.measure(decode_task(question))


_QUERIES: Mapping[str, Callable[[PartnerNode, RecordDict], Release]] = {
    "propose": lambda partner, question: partner.propose(decode_plan(question)),
    "keys": lambda partner, question: partner.sums.keys(decode_keys(question)),
    "deal": lambda partner, question: partner.sums.deal(decode_deal(question)),
    "sign": lambda partner, question: partner.sums.sign(decode_sign(question)),
    "reveal": lambda partner, question: partner.sums.reveal(decode_reveal(question)),
    "close": lambda partner, question: partner.receive(*decode_close(question)),
}


def _own_workspace(context: Context) -> Path:
    """Find the workspace that the partner's operator named when starting its SuperNode."""
    return Path(str(context.node_config["workspace"]))


def deployed() -> ClientApp:
    """Return the app of a SuperNode that was started with --node-config 'workspace="/path"'."""
    return client_app(_own_workspace, random=OsSource())
