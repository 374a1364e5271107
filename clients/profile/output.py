"""Writing a profile: a folder that its owner alone can enter, and in it a page and the same as JSON."""

import json
from pathlib import Path

from coterie.clients.profile.facts import Profile, as_table
from coterie.clients.profile.page import render
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault

__all__ = ["PAGE", "TABLE", "write_profile"]

PAGE, TABLE = "profile.html", "profile.json"
_OWNER, _OTHERS = 0o700, 0o077


def write_profile(profile: Profile, folder: Path) -> None:
    """Write both files, each whole or not at all, over those of an earlier profile.

    Args:
        profile: What they say.
        folder: A new folder, or one that others cannot enter.

    Raises:
        FileFault: The folder is open to others, is no folder, or cannot be written.

    Leaks:
        To whoever reads the folder: counts, shares, and names of columns. Nothing is sent.
    """
    try:
        folder.mkdir(mode=_OWNER, parents=True, exist_ok=True)
        open_to_others = folder.stat().st_mode & _OTHERS
    except OSError as error:
        rule = f"cannot be made ({error.strerror})"
        raise FileFault(Fault(str(folder), rule, "choose another folder, or check its rights")) from None
    if open_to_others:
        rule = "can be entered by other users"
        raise FileFault(Fault(str(folder), rule, "choose a new folder, or close it: chmod 700"))
    table = json.dumps(as_table(profile), indent=1, ensure_ascii=False, allow_nan=False)
    write_durably(folder / PAGE, render(profile).encode())
    write_durably(folder / TABLE, table.encode())
