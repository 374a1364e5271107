"""Holding a workspace that a running node holds during a task alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from coterie.clients.workspace import Workspace, WorkspaceBusy

__all__ = ["patiently"]

_SECONDS, _POLL = 10.0, 0.05


@contextmanager
def patiently(
    workspace: Workspace,
    *,
    seconds: float = _SECONDS,
    elapsed: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold a workspace that a running node holds during a task alone.

    Args:
        workspace: The partner's.
        seconds: How long to wait.
        elapsed: Returns seconds since some moment.
        sleep: Waits for some seconds.

    Raises:
        WorkspaceBusy: Another process held it all the while.
        FileFault: There is no workspace.
    """
    end = elapsed() + seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(workspace.lock())
                break
            except WorkspaceBusy:
                if elapsed() >= end:
                    raise
                sleep(_POLL)
        yield
