"""The partner's Flower app: three handlers behind the door.

The app is made by `client_app` from where workspaces are and where randomness comes from, so that simulation
and deployment run the very same handlers.
"""

import datetime
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from coterie.clients.door import Door
from coterie.clients.node import PartnerNode, open_node
from coterie.clients.wire import decode_plan, decode_task, encode_release
from coterie.privacy.randomness import OsSource, RandomSource

__all__ = ["client_app", "deployed", "now"]


def now() -> datetime.datetime:
    """Return the time in UTC."""
    return datetime.datetime.now(datetime.UTC)


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

    @client.query("propose")
    def propose(message: Message, context: Context) -> Message:
        with node(context) as partner:
            return Message(encode_release(partner.propose(decode_plan(message.content))), reply_to=message)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        with node(context) as partner:
            return Message(encode_release(partner.train(decode_task(message.content))), reply_to=message)

    @client.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        with node(context) as partner:
            return Message(encode_release(partner.measure(decode_task(message.content))), reply_to=message)

    return client


def _own_workspace(context: Context) -> Path:
    """Find the workspace that the partner's operator named when starting its SuperNode."""
    return Path(str(context.node_config["workspace"]))


def deployed() -> ClientApp:
    """Return the app of a SuperNode that was started with --node-config 'workspace="/path"'."""
    return client_app(_own_workspace, random=OsSource())
