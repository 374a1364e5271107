"""What a reviewer knows already: keys, checkpoints and earlier bundles, each for the ledger that it is of."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie.privacy.checkpoint import origin_of
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.review.bundle import BundleFault, read_parts

__all__ = ["Keys", "check_file", "earlier_note", "earlier_notes", "file_digest"]


@dataclass(frozen=True)
class Keys:
    """Public keys that the reviewer compared out of band.

    Args:
        partners: Of partners; any where there are none.
        coordinators: Of coordinators, likewise.
    """

    partners: frozenset[str] = frozenset()
    coordinators: frozenset[str] = frozenset()


def check_file(path: Path) -> None:
    """Refuse what is no file of its own before it is opened: a pipe would be waited for, for ever.

    Raises:
        BundleFault: It is a folder, a pipe or a device; what is missing is left to whoever opens it.
    """
    if path.exists() and not path.is_file():
        raise BundleFault(Fault(str(path), "is not a file", "give a bundle that is a file on a disk"))


def earlier_note(path: Path) -> str:
    """Return the checkpoint in a file: a note, or the one that an earlier bundle ends with.

    Raises:
        BundleFault: It is neither.
    """
    fault = BundleFault(Fault(str(path), "is neither a checkpoint nor a bundle", "give one that you kept"))
    try:
        with path.open("rb") as file:
            start = file.read(11)
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 65_536))
            tail = file.read()
        if not start.startswith(b'{"bundle":'):
            return tail.decode()
        return str(json.loads(tail.rstrip(b"\n").rsplit(b"\n", 1)[-1])["head"])
    except OSError as error:
        raise BundleFault(Fault(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise fault from None


def earlier_notes(bundles: Sequence[Path], earlier: Sequence[Path]) -> tuple[tuple[str, ...], ...]:
    """Return for each bundle the checkpoints in `earlier` that are of its ledger.

    One that is of no bundle's ledger goes to the first, so that it is found wanting there.

    Raises:
        BundleFault: A bundle's first line is not one's, or a file holds no checkpoint.
    """
    origins = [_origin(path) for path in bundles]
    notes = [earlier_note(path) for path in earlier]
    sorted_in: list[list[str]] = [[] for _ in bundles]
    for note in notes:
        origin = note.split("\n", 1)[0]
        sorted_in[origins.index(origin) if origin in origins else 0].append(note)
    return tuple(tuple(mine) for mine in sorted_in)


def _origin(path: Path) -> str:
    """Return the name of a bundle's ledger."""
    try:
        check_file(path)
        with path.open("rb") as file:
            part, _ = next(read_parts(file))
            return origin_of(part.value.key)
    except OSError as error:
        raise BundleFault(Fault(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
    except BundleFault as error:
        raise BundleFault(*(Fault(f"{path} {f.place}", f.rule, f.fix) for f in error.faults)) from None
    except PlanFault:
        return ""  # the review says so


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, by which two people can say that they hold the same bundle."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
