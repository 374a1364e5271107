"""The partner's Flower app: four handlers behind the door.

The app is made by `client_app` from where workspaces are and where randomness comes from, so that simulation
and deployment run the very same handlers.
"""

import datetime
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from coterie.clients.door import Door
from coterie.clients.node import PartnerNode, open_node
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

    @client.query("propose")
    def propose(message: Message, context: Context) -> Message:
        return answer(message, context, lambda partner, question: partner.propose(decode_plan(question)))

    @client.train()
    def train(message: Message, context: Context) -> Message:
        return answer(message, context, lambda partner, question: partner.train(decode_task(question)))

    @client.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return answer(message, context, lambda partner, question: partner.measure(decode_task(question)))

    @client.query("close")
    def close(message: Message, context: Context) -> Message:
        return answer(message, context, lambda partner, question: partner.receive(*decode_close(question)))

    return client


def _own_workspace(context: Context) -> Path:
    """Find the workspace that the partner's operator named when starting its SuperNode."""
    return Path(str(context.node_config["workspace"]))


def deployed() -> ClientApp:
    """Return the app of a SuperNode that was started with --node-config 'workspace="/path"'."""
    return client_app(_own_workspace, random=OsSource())
