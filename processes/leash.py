"""Becomes another program that the kernel ends when the process which started it is gone, even by SIGKILL.

Run as a file, `python leash.py PARENT COMMAND...`: it asks for the signal, looks whether the parent is still there, and
replaces itself by the command. The setting survives that (prctl(2), PR_SET_PDEATHSIG), so nothing stays between. A
`preexec_fn` could do the same but may deadlock in a process that has threads (Python's `subprocess`).
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["leash"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def leash(parent: int, command: Sequence[str]) -> None:
    """Become `command`, to be killed when the thread that started this process ends.

    Args:
        parent: Process id of whoever started this process.
        command: Program, looked up along PATH, and its arguments.

    Raises:
        OSError: There is no such program, or the kernel knows no such signal.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before the signal was asked for
        sys.exit(0)
    os.execvp(command[0], list(command))  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    try:
        leash(int(sys.argv[1]), sys.argv[2:])
    except OSError as error:
        sys.stderr.write(f"{sys.argv[2]} cannot be started: {error.strerror}\n")
        sys.exit(127)
