"""The door: the only way out of a partner.

It stands outside everything else that the partner's Flower app does, and looks at the message itself:
- a message must be exactly one Release of a known kind;
- the ledger must hold its digest, settled (or recorded, for consents and refusals);
- its numbers must be finite;
- it is made anew from what was checked, so that nothing else of the handler's message leaves;
- a coordinator that asks for it is told the ledger's checkpoint beside it;
- any exception becomes a code that is free of data; neither its text nor its trace is sent or logged;
- every refusal is a line in the partner's own log, and its reasons are lines in the partner's own reports.
Whatever else fails leaves as the code "fault". That no array is a customer's row is checked where a release is
settled (`charging.py`): once it has become bytes, no mark is left to see.
"""

import datetime
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from coterie.clients.matchwire import MATCH
from coterie.clients.records import WireFault
from coterie.clients.refusals import Notes, TaskRefused
from coterie.clients.sumwire import DEAL, KEYS, REVEAL, SIGN
from coterie.clients.taint import refuse_tainted
from coterie.clients.wire import (
    CLOSE,
    EVALUATE,
    PROPOSE,
    TRAIN,
    decode_release,
    encode_release,
    split_witness,
    with_head,
)
from coterie.clients.workspace import Workspace, WorkspaceBusy
from coterie.privacy.checkpoint import noted_size
from coterie.privacy.errors import Fault, ReleaseRefused
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, PoissonGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.release import CODES, LedgerHead, Refused, Release, release_digest

__all__ = ["ERROR_CODE", "KNOWN", "Answering", "Door", "check_release", "ledger_head"]

ERROR_CODE = {code: 100 + place for place, code in enumerate(CODES)}
"""Flower's error number for each word; 0 to 99 are Flower's own."""

_log = logging.getLogger("coterie.door")
KNOWN = frozenset({PROPOSE, TRAIN, EVALUATE, KEYS, DEAL, SIGN, REVEAL, MATCH, CLOSE})

# The door compares digests, which do not cover the event (the ledger's charge does): any will do.
_ANY_UPDATE, _ANY_HISTOGRAM = PoissonGaussian(1.0, 1.0, 1), DiscreteGaussian(1.0, 1)
_ANY_SUM = DistributedGaussian(64, 1, 1, 1.0, 1)


class Door:
    """A Flower mod; it must be the outermost one.

    Args:
        locate: Finds the workspace of the context's partner.
        clock: Returns the time in UTC.
    """

    def __init__(self, locate: Callable[[Context], Path], clock: Callable[[], datetime.datetime]) -> None:
        self._locate = locate
        self._clock = clock

    def __call__(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        """Let a reply pass, or put a code in its place."""
        try:
            workspace = self._locate(context)
            release = self._release(call_next(message, context), workspace)
            # Made anew from what was checked: whatever else the reply carried stays here.
            content = encode_release(release)
            note, _ = split_witness(message.content)
            # Whoever asks without a signed plan, or while there is no policy, is told nothing.
            if note is not None and not (isinstance(release, Refused) and not release.plan):
                content = with_head(content, ledger_head(Workspace(workspace), note, self._clock))
            reply = Message(content, reply_to=message)
        except TaskRefused as refused:
            self._report(context, refused.faults)
            return _error(refused.code, message)
        except WireFault as error:
            self._report(context, error.faults)
            return _fault(error, message)
        except WorkspaceBusy:
            return _error("busy", message)
        except Exception as error:  # noqa: BLE001 - nothing may leave as text, whatever it is
            return _fault(error, message)
        if isinstance(release, Refused):
            _tell(message, ", ".join(release.codes))
        return reply

    def _report(self, context: Context, faults: tuple[Fault, ...]) -> None:
        """Write down, for the partner's operator, why something was refused."""
        try:
            reports = self._locate(context) / "reports"
            if reports.is_dir():
                Notes(reports).write("refusals.log", faults)
        except Exception as error:  # noqa: BLE001 - a full disk must not keep the answer back, nor speak in it
            kind = type(error).__name__
            _log.error("a refusal could not be written down: %s", kind, extra=_named("unwritten", error=kind))

    def _release(self, reply: Message, workspace: Path) -> Release:
        """Read a reply on its way out, and check it.

        Raises:
            ReleaseRefused: It is not a charged release.
            WireFault: It is not a release at all.
        """
        if reply.has_error():
            raise ReleaseRefused(Fault("the reply", "is an error with a text", "raise TaskRefused"))
        release = decode_release(
            reply.content, update=_ANY_UPDATE, histogram=_ANY_HISTOGRAM, summed=_ANY_SUM, listed=_ANY_HISTOGRAM
        )
        check_release(release, workspace / "ledger.sqlite", self._clock)
        return release


class Answering(ClientApp):
    """A partner's app that answers anything: no exception of Flower's own comes out of it.

    Flower looks for a handler before it asks the door, and where there is none it raises an error with the peer's text.

    Args:
        app: The partner's app, behind its door.
    """

    def __init__(self, app: Callable[[Message, Context], Message]) -> None:
        super().__init__()
        self._app = app

    def __call__(self, message: Message, context: Context) -> Message:
        """Return the app's answer, or one word where it has none."""
        try:
            return self._app(message, context)
        except Exception as error:  # noqa: BLE001 - nothing may leave as text, whatever it is
            return _fault(error, message)


def check_release(release: Release, ledger: Path, clock: Callable[[], datetime.datetime]) -> None:
    """Check that a release may leave.

    Raises:
        ReleaseRefused: It is uncharged, tainted or not finite.
    """
    refuse_tainted(release)
    for array in release.arrays:
        if not np.isfinite(array).all():
            raise ReleaseRefused(Fault(release.kind, "holds numbers that are not finite", "lower the step size"))
    with Ledger(ledger, clock) as book:
        if not book.paid_for(release_digest(release)):
            raise ReleaseRefused(Fault(release.kind, "is not charged in the ledger", "settle it first"))


def ledger_head(workspace: Workspace, note: str, clock: Callable[[], datetime.datetime]) -> LedgerHead:
    """Return the ledger's checkpoint, and that it extends the one that the coordinator showed.

    Args:
        workspace: The partner's.
        note: What the coordinator showed and the node has checked; "" for nothing.
        clock: Returns the time in UTC.
    """
    with Ledger(workspace.ledger, clock) as book:
        since = noted_size(note) if note else 0
        shown = book.checkpoint(workspace.identity)
        size = noted_size(shown)
        return LedgerHead(shown, since, tuple(step.hex() for step in book.proof_since(since, size)))


def _fault(error: Exception, message: Message) -> Message:
    # Type names are ours or a library's, never data; the text is not logged either.
    kind = type(error).__name__
    _log.error("a reply was stopped at the door: %s", kind, extra=_named("stopped", error=kind))
    return _error("fault", message)


def _error(code: str, message: Message) -> Message:
    _tell(message, code)
    return Message(Error(code=ERROR_CODE[code], reason=code), reply_to=message)


def _tell(message: Message, words: str) -> None:
    kind = message.metadata.message_type  # a peer's word, unless it is one of ours
    asked = kind if kind in KNOWN else "another question"
    _log.warning("%s was refused: %s", asked, words, extra=_named("refused", asked=asked, code=words))


def _named(event: str, **fields: str) -> dict[str, object]:
    """Return what the log of a process in service writes of a record (`processes/logs.py`): it writes no free text."""
    return {"coterie_event": event, "coterie_fields": fields}
