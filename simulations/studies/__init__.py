"""The studies that come with coterie, by name.

A built-in study is one TOML file of this folder, in the same form as anybody's own.
"""

from pathlib import Path

from coterie.privacy.errors import Fault, FileFault

__all__ = ["names", "path"]


def names() -> tuple[str, ...]:
    """Return the names of the built-in studies, in alphabetical order."""
    return tuple(sorted(file.stem for file in Path(__file__).parent.glob("*.toml")))


def path(name: str) -> Path:
    """Return the file of a built-in study.

    Args:
        name: One of `names()`.

    Raises:
        FileFault: There is no such study.
    """
    if name not in names():
        known = ", ".join(names())
        raise FileFault(Fault("study", "must be a built-in study or a file", f"name one of {known}, or a path"))
    return Path(__file__).parent / f"{name}.toml"
