"""Wrapping and unwrapping by a transit engine: batches out, batches back, everything that comes back checked.

A wrapped key is the server's text as it is, `vault:vN:` and base64 of nonce, ciphertext and tag (AES-256-GCM).
"""

import base64
import hmac
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KEY_BYTES
from coterie.privacy.fields.sources.transitcalls import TransitCalls
from coterie.privacy.fields.wiping import wipe, wiped

__all__ = ["check_binding", "unwrap_all", "wrap_all"]

# Keys in a request: OpenBao takes 1000 texts of JSON in one (max_request_json_strings), and a key comes with five.
_BATCH = 100
_UNOPENED = Fault(
    "a data key",
    "does not open under this version of the key server's key: another key, or a changed file",
    "name the key that sealed it in [keys], or restore the file",
)


def wrap_all(
    calls: TransitCalls, pairs: Sequence[tuple[bytes | bytearray, bytes]], *, epoch: str, number: int
) -> list[bytes]:
    """Return data keys wrapped under one version.

    Args:
        calls: The server's key.
        pairs: Data keys with their contexts.
        epoch: The version's name.
        number: The version.

    Raises:
        KeyFault: The server does not answer, takes nothing under this version any more, or wraps under another.
    """
    rule = f"refuses to wrap under {epoch}: another version may be current by now"
    refused = Fault(calls.place, rule, "start again")
    wrapped: list[bytes] = []
    for part in _parts(pairs):
        items = [
            {"plaintext": _text(key), "associated_data": _text(context), "key_version": number} for key, context in part
        ]
        answer = calls.post("encrypt", {"batch_input": items}, refused=refused)
        wrapped += [text.encode() for text in _results(calls, answer, "ciphertext", len(part))]
    if not all(_is_of(key, epoch) for key in wrapped):
        raise KeyFault(Fault(calls.place, f"wrapped under another version than {epoch}", "check the server"))
    return wrapped


def unwrap_all(calls: TransitCalls, pairs: Sequence[tuple[bytes, bytes]], *, epoch: str) -> list[bytearray]:
    """Return the data keys that were wrapped under one version, for the caller to wipe.

    Raises:
        KeyFault: The server does not answer, or a key was not wrapped under this version and for its context.
    """
    if not all(_is_of(key, epoch) for key, _ in pairs):
        raise KeyFault(_UNOPENED)
    opened: list[bytearray] = []
    try:
        for part in _parts(pairs):
            items = [{"ciphertext": key.decode(), "associated_data": _text(context)} for key, context in part]
            answer = calls.post("decrypt", {"batch_input": items}, refused=_UNOPENED)
            opened += [bytearray(_bytes(text)) for text in _results(calls, answer, "plaintext", len(part))]
        if not all(len(key) == KEY_BYTES for key in opened):
            raise KeyFault(_UNOPENED)
    except KeyFault:
        wipe(opened)
        raise
    return opened


def check_binding(calls: TransitCalls, wrapped: bytes, pair: tuple[bytes | bytearray, bytes], *, epoch: str) -> None:
    """Refuse a server whose wrapping does not open again, or opens for another context.

    Servers before Vault 1.13 leave associated data aside without a word.

    Raises:
        KeyFault: It is such a server, or does not answer.
    """
    key, context = pair
    with wiped(unwrap_all(calls, [(wrapped, context)], epoch=epoch)) as opened:
        if not hmac.compare_digest(opened[0], key):
            raise KeyFault(Fault(calls.place, "unwraps to another key than it wrapped", "check the server"))
    try:
        with wiped(unwrap_all(calls, [(wrapped, context + b"!")], epoch=epoch)):
            rule = "opens a data key for another thing than it was wrapped for"
            raise KeyFault(Fault(calls.place, rule, "take Vault 1.13 or later, or OpenBao"))
    except KeyFault as fault:
        if fault.faults != (_UNOPENED,):
            raise


def _parts(pairs: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (pairs[start : start + _BATCH] for start in range(0, len(pairs), _BATCH))


def _results(calls: TransitCalls, answer: Mapping[str, Any], field: str, count: int) -> list[str]:
    results = answer.get("batch_results")
    told = [item.get(field) for item in results if isinstance(item, dict)] if isinstance(results, list) else []
    texts = [text for text in told if isinstance(text, str) and text.isascii()]
    if not len(results or ()) == len(texts) == count:
        raise KeyFault(Fault(calls.place, "did not answer for each key that it was asked", "check the server"))
    return texts


def _is_of(wrapped: bytes, epoch: str) -> bool:
    """Return whether this is what the server writes under an epoch, in the one spelling of it."""
    label = f"vault:{epoch}:".encode()
    text = wrapped[len(label) :]
    return wrapped.startswith(label) and bool(text) and base64.b64encode(_bytes(text)) == text


def _bytes(text: str | bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _text(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()
