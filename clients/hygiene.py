"""What a process that opens rows does so that the machine keeps no copy of its memory.

Guarantees:
    After `forbid_dumps`, a crash of this process writes no core file, and on Linux no other process of the same user
    reads its memory. Programs that it starts begin anew, and may be dumped.

Leaks:
    What the kernel swaps out or hibernates: whether that is encrypted cannot be seen from here. An administrator reads
    everything.
"""

import ctypes
import resource
import stat
import sys
from pathlib import Path

from coterie.privacy.errors import Fault, FileFault

__all__ = ["check_rights", "forbid_dumps", "swap_warning"]

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_SWAPS = Path("/proc/swaps")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def forbid_dumps() -> tuple[str, ...]:
    """Forbid core files of this process, and say by what.

    Two things, because a system that hands dumps to a program (`core_pattern` with a pipe, as systemd-coredump does)
    does not ask the limit (core(5)), and a system without prctl has the limit alone.

    Returns:
        "limit", and "undumpable" where the kernel granted that.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    if sys.platform != "linux":
        return ("limit",)
    granted = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    return ("limit", "undumpable") if granted else ("limit",)


def swap_warning(swaps: Path = _SWAPS) -> str | None:
    """Return a warning where the machine may write memory to a disk, or None.

    Args:
        swaps: The kernel's list of what it swaps to.
    """
    try:
        areas = swaps.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except OSError:
        return "whether swap is on cannot be seen here"
    on_disk = [area for area in areas if not area.startswith("/dev/zram")]
    return (
        f"swap is on ({len(on_disk)} areas): encrypt it, or turn it off, so that no row lies there" if on_disk else None
    )


def check_rights(folder: Path) -> int:
    """Refuse a folder of sealed things that other users may enter, read or change anything of.

    Args:
        folder: The vault.

    Returns:
        How many files and folders were looked at.

    Raises:
        FileFault: Something is open to others; one fault for all of it, which says how much.
    """
    paths = [folder, *folder.rglob("*")]
    opened = [path for path in paths if path.lstat().st_mode & _OTHERS and not path.is_symlink()]
    if opened:
        place = str(opened[0]) if len(opened) == 1 else f"{opened[0]} and {len(opened) - 1} more"
        raise FileFault(Fault(place, "is open to other users", f"chmod -R go-rwx {folder}"))
    return len(paths)
