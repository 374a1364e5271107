"""Structured logs: one JSON object a line, made of names and numbers, never of texts that carry data.

A record is an event's name and fields. Numbers and short strings pass; of an exception its type's name alone is
written, and of anything else the name of its type. A text that was logged in the ordinary way is dropped, and the line
of code that logged it named. The files are readable by their owner alone, and are rotated by size.
"""

import datetime
import json
import logging
import logging.handlers
import math
import os
import re
import sys
import threading
import types
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

from coterie.privacy.plain import plain

__all__ = ["KeptFile", "event", "hush", "json_log"]

_NAME = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_OWN = frozenset({"at", "level", "component", "event"})
_LONGEST = 200  # characters of a field
_MOST = 64  # entries of a list
_SIZE = 10 * 1024 * 1024  # bytes of a file
_FILES = 5  # beside the one that is written


def json_log(path: Path | None, *, component: str, clock: Callable[[], datetime.datetime]) -> logging.Logger:
    """Set up the logger "coterie" of this process; whatever it was set up to before is let go.

    Args:
        path: The file; None for standard error.
        component: Which process writes, such as "supervisor".
        clock: Returns the time in UTC.

    Returns:
        The logger, for `event`.

    Raises:
        OSError: The file cannot be opened.

    Guarantees: no exception's text, no traceback and no free text reaches the file.
    """
    handler = logging.StreamHandler(sys.stderr) if path is None else KeptFile(path)
    handler.setFormatter(_Lines(component, clock))
    logger = logging.getLogger("coterie")
    for before in logger.handlers[:]:
        logger.removeHandler(before)
        before.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def event(logger: logging.Logger, name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log that something happened.

    Args:
        logger: What `json_log` returned, or a child of it.
        name: Small letters, digits, "." and "-"; a name of any other form is written as "unnamed".
        level: As in `logging`.
        fields: Numbers, short strings, lists of them; an exception is written as its type's name.
    """
    logger.log(level, "%s", name, extra={"coterie_event": name, "coterie_fields": fields}, stacklevel=2)


def hush(logger: logging.Logger) -> None:
    """Have this process's uncaught exceptions logged by the names of their types, and printed nowhere."""

    def main(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        del error, trace
        if not issubclass(kind, KeyboardInterrupt):
            event(logger, "crashed", level=logging.CRITICAL, error=kind.__name__)

    def thread(what: threading.ExceptHookArgs) -> None:
        event(logger, "thread-crashed", level=logging.CRITICAL, error=what.exc_type.__name__)

    def unraisable(what: "sys.UnraisableHookArgs") -> None:
        event(logger, "crashed-unseen", level=logging.ERROR, error=what.exc_type.__name__)

    sys.excepthook, threading.excepthook, sys.unraisablehook = main, thread, unraisable


class KeptFile(logging.handlers.RotatingFileHandler):
    """A log file of bounded size: 10 MiB, and five older ones beside it.

    A full disk loses lines and stops nobody.

    Args:
        path: The file; its folder exists.
        size: Bytes after which a new file is begun.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, *, size: int = _SIZE) -> None:
        super().__init__(path, maxBytes=size, backupCount=_FILES, encoding="utf-8", errors="replace")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Say nothing: the ordinary way prints the record's arguments and a traceback."""

    def _open(self) -> TextIOWrapper:
        """Open for the owner alone."""
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="replace")


class _Lines(logging.Formatter):
    """Writes a record as a line of JSON."""

    def __init__(self, component: str, clock: Callable[[], datetime.datetime]) -> None:
        super().__init__()
        self._component, self._clock = _text(component), clock

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        name = getattr(record, "coterie_event", None)
        line: dict[str, object] = {
            "at": self._clock().astimezone(datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "component": self._component,
            "event": name if isinstance(name, str) and _NAME.fullmatch(name) else "unnamed",
        }
        if line["event"] == "unnamed":
            line["where"] = f"{record.module}:{record.lineno}"
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        for key, value in getattr(record, "coterie_fields", {}).items():
            line[f"{key}_" if key in _OWN else key] = _plain(value)
        return json.dumps(line)


def _plain(value: object) -> object:
    """Return what may be written of a value."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) in {int, float}:
        return value if math.isfinite(value) else "not finite"  # type: ignore[arg-type]  # a number, by its type
    if type(value) is str:
        return _text(value)
    if isinstance(value, list | tuple | set | frozenset) and len(value) <= _MOST:
        entries = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(entry) if isinstance(entry, int | float | str) else _kind(entry) for entry in entries]
    return _kind(value)


def _kind(value: object) -> str:
    return f"<{type(value).__name__}>"


def _text(value: str) -> str:
    return plain(value if len(value) <= _LONGEST else f"{value[: _LONGEST - 3]}...")
