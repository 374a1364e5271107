"""A match in a process of its own, coordinator and partners together, which kills itself where a test says."""

import hashlib
from pathlib import Path

from flwr.app import ArrayRecord

from coterie.clients.matchwire import MATCH
from coterie.clients.wire import decode_release, split_head
from coterie.privacy.calibration import calibrate
from coterie.privacy.ledger import Ledger
from coterie.privacy.randomness import SeededSource
from coterie.tests.clients.matching import Matched, chunks_of, identity_of
from coterie.tests.stories.killed_vault import Steps

BEFORE, AFTER = SeededSource(b"before"), SeededSource(b"after")
"""Noise, secrets and nonces of who is killed, and of who goes on: what is equal in both was kept, not drawn again."""

CHUNK = 64


def told(federation: Matched, heard):
    """A grid on which every answer of the match is told to `heard`: the question's name, and all of the answer."""
    app, event = federation.app(), calibrate(federation.plan).overlap

    def client(message, context):
        reply = app(message, context)
        if message.metadata.message_type == MATCH and not reply.has_error():
            sealed = message.content.get("sealed")
            asked = str(message.content["match"]["fields"])
            if isinstance(sealed, ArrayRecord):
                asked += hashlib.sha256(sealed["0"].data).hexdigest()
            asked += f" of {context.node_config['partition-id']}"
            heard((asked, identity_of(decode_release(split_head(reply.content)[1], listed=event))))
        return reply

    return federation.grid(client)


def work(root: Path, plan, last: int, pipe) -> None:
    """Take a match to its end, and die before its `last`-th durable step; 0 for never, and then say how many they are.

    A durable step is what a node or the coordinator does to make a change last; the ledger's have one after, too.
    """
    federation, steps = Matched(root, plan), Steps(last)
    federation.random = BEFORE
    with chunks_of(CHUNK):
        grid = told(federation, pipe.send)
        steps.before_durable()
        append = Ledger._append

        def appending(*args, **kwargs):
            steps.step()
            entry = append(*args, **kwargs)
            steps.step()
            return entry

        Ledger._append = appending  # type: ignore[method-assign]
        federation.run(grid)
    pipe.send(steps.passed)
