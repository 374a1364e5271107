"""A partner whose noise is known, for tests of byte-for-byte equality: the shipped node with another worker.

    python seeded.py partner WORKSPACE      as `coterie partner start WORKSPACE`
    python seeded.py worker WORKSPACE       as its worker, with a seeded source

No shipped command takes a seed: the source is exchanged here, in a program of the tests.
"""

import dataclasses
import sys
import threading
from pathlib import Path

from coterie.clients.app import client_app
from coterie.clients.running import service, worker
from coterie.privacy.randomness import SeededSource

SEED = b"noise"


def partner(folder):
    """Run a partner's node with the worker of this file."""
    shipped = service.children

    def children(workspace, environment):
        ours = (sys.executable, __file__, "worker", str(workspace.root.absolute()))
        return tuple(
            dataclasses.replace(child, command=ours) if child.name == "worker" else child
            for child in shipped(workspace, environment)
        )

    service.children = children
    service.run(folder, health_port=0, stop=threading.Event(), ready=lambda _: None)


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "worker":
        worker.main(where, client_app(lambda _: where, random=SeededSource(SEED)))
    else:
        partner(where)
