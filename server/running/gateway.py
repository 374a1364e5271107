"""The gateway: the only thing of the coordinator that partners reach.

    python -m coterie.server.running.gateway FOLDER

Flower serves fleet, operator and runtime calls on one port, and asks operators for no password: whoever reaches the
port could list, submit and stop runs, register nodes, or take the task of the coordinator's own app. So the SuperLink
listens on the loopback interface alone, and this reverse proxy lets through just the calls that an admitted partner's
SuperNode makes. Everything else is refused here, before Flower sees it, and logged.
"""

import asyncio
import base64
import binascii
import logging
import ssl
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError
from coterie.processes.logs import event, hush, json_log
from coterie.processes.tally import Tally
from coterie.server.office import Office
from coterie.server.running.counting import Counting
from coterie.server.running.members import admitted_keys

__all__ = ["CALLS", "Limits", "gateway", "main"]

_log = logging.getLogger("coterie.gateway")

CALLS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-fab",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    )
)
"""The calls of a registered SuperNode; registering and unregistering are the operator's."""

_KEY = "flwr-public-key"
_PASSED = ("content-type", "accept", "accept-encoding", "traceparent")
_MOST_CALLERS = 10_000


@dataclass(frozen=True)
class Limits:
    """What one caller may ask.

    Args:
        body: Bytes of a request; Flower cuts arrays into pieces of 5 MiB.
        rate: Requests a second, lasting.
        burst: Requests at once.
        seconds: For one request to be read and answered.
    """

    body: int = 32 << 20
    rate: float = 200.0
    burst: float = 2000.0
    seconds: float = 120.0


class _Rates:
    """A bucket of requests for every caller; those that were silent longest are forgotten first."""

    def __init__(self, limits: Limits, monotonic: Callable[[], float]) -> None:
        self._limits, self._monotonic = limits, monotonic
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, caller: str) -> bool:
        """Return whether a caller may ask once more, and take the request from its bucket."""
        at = self._monotonic()
        left, since = self._left.pop(caller, (self._limits.burst, at))
        left = min(self._limits.burst, left + (at - since) * self._limits.rate)
        self._left[caller] = (max(0.0, left - 1), at)
        if len(self._left) > _MOST_CALLERS:
            self._left.popitem(last=False)
        return left >= 1


def gateway(
    client: httpx.AsyncClient,
    keys: Callable[[], Mapping[bytes, str]],
    *,
    limits: Limits | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Starlette:
    """Make the reverse proxy.

    Args:
        client: Reaches the SuperLink.
        keys: Returns the public keys of the nodes that are admitted now, and whose they are.
        limits: What one caller may ask.
        monotonic: Clock for rates.

    Guarantees: no call but those in `CALLS`, by a holder of an admitted public key's name, reaches the SuperLink; that
        the caller holds the private key is checked there (Flower's node authentication).
    """
    bounds = limits or Limits()
    rates = _Rates(bounds, monotonic)

    async def passed(request: Request) -> Response:
        if request.url.path not in CALLS or request.url.query:
            return _refuse(request, "not a call of a node", 403)
        name = keys().get(_public_key(request))
        if name is None:
            return _refuse(request, "not an admitted node", 401)
        if not rates.admit(f"{_peer(request)} {name}"):
            return _refuse(request, "too many requests", 429)
        body = await _body(request, bounds)
        if body is None:
            return _refuse(request, "too large, or too slow", 413)
        try:
            answer = await client.post(request.url.path, content=body, headers=_headers(request))
        except httpx.HTTPError as error:
            event(_log, "superlink-silent", level=logging.WARNING, error=type(error).__name__)
            return Response(status_code=503)
        if answer.status_code in (401, 403):  # a false signature, or another's number: Flower says no, and we say who
            event(_log, "refused", level=logging.WARNING, why="by Flower", path=request.url.path[:80], partner=name)
        kept = {name: value for name, value in answer.headers.items() if name in _PASSED or name.startswith("flwr-")}
        return Response(answer.content, answer.status_code, {k: v for k, v in kept.items() if k != "accept-encoding"})

    async def unheard(request: Request, error: Exception) -> Response:
        del error  # a method, or a path of odd characters, that no route has
        return _refuse(request, "not a call of a node", 403)

    return Starlette(
        routes=[Route("/health", _healthy, methods=["GET"]), Route("/{path:path}", passed, methods=["POST"])],
        exception_handlers={404: unheard, 405: unheard},
    )


async def _healthy(request: Request) -> Response:
    del request
    return Response(b"ok\n", media_type="text/plain")


def _refuse(request: Request, why: str, status: int) -> Response:
    event(_log, "refused", level=logging.WARNING, why=why, path=request.url.path[:80], peer=_peer(request))
    return Response(status_code=status)


def _peer(request: Request) -> str:
    return request.client.host if request.client else "?"


def _public_key(request: Request) -> bytes:
    """Return the public key that a caller names, empty where it names none."""
    try:
        return base64.b64decode(request.headers.get(_KEY, ""), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _headers(request: Request) -> dict[str, str]:
    return {
        name: value
        for name, value in request.headers.items()
        if name in _PASSED or name.startswith(("flwr-", "x-flwr"))
    }


async def _body(request: Request, limits: Limits) -> bytes | None:
    """Read a request's body; None where it is too large or does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.body:
                    return None
    except (TimeoutError, ClientDisconnect):
        return None
    return bytes(body)


async def _serve(office: Office) -> None:
    """Serve until told to stop; a certificate that was renewed is taken up within seconds."""
    settings = office.settings
    trusted = ssl.create_default_context(cafile=str(office.loopback_authority))
    reach = f"https://127.0.0.1:{settings.superlink_port}"
    limits = Limits()
    async with httpx.AsyncClient(base_url=reach, verify=trusted, timeout=limits.seconds) as client:
        app = Counting(gateway(client, admitted_keys(office), limits=limits), Tally(office.run, "gateway"))
        config = _config(app, office)
        server = uvicorn.Server(config)
        beside = (
            asyncio.create_task(_renew(config, office, 5.0)),
            asyncio.create_task(app.keep_written(2.0)),
        )
        event(_log, "started", listen=settings.listen)
        await server.serve()
        for task in beside:
            task.cancel()
    event(_log, "stopped")


def _config(app: ASGIApp, office: Office) -> uvicorn.Config:
    """Return how the gateway is served."""
    host, _, port = office.settings.listen.rpartition(":")
    config = uvicorn.Config(
        app,
        host=host.strip("[]"),
        port=int(port),
        ssl_certfile=str(office.certificate),
        ssl_keyfile=str(office.key),
        log_level="warning",
        access_log=False,
        ws="none",  # a request to upgrade is a GET like any other, and refused and logged like one
        limit_concurrency=2000,
        server_header=False,
    )
    config.load()
    return config


async def _renew(config: uvicorn.Config, office: Office, pause: float) -> None:
    """Take up a renewed certificate for connections to come, once it and its key are both there."""
    seen = _made(office)
    while True:
        await asyncio.sleep(pause)
        try:
            if _made(office) == seen or config.ssl is None:
                continue
            found = _made(office)
            # Tried elsewhere first: a certificate without its key would leave the gateway with neither.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(office.certificate, office.key)
            config.ssl.load_cert_chain(office.certificate, office.key)
        except OSError as error:  # of which ssl.SSLError is one
            event(_log, "certificate-unusable", level=logging.WARNING, error=type(error).__name__)
            continue
        seen = found
        event(_log, "certificate-renewed")


def _made(office: Office) -> tuple[int, int]:
    """Return when the certificate and its key were written."""
    return office.certificate.stat().st_mtime_ns, office.key.stat().st_mtime_ns


def main(folder: Path) -> None:
    """Run the gateway of a coordinator until it is told to stop.

    Args:
        folder: The coordinator's folder.
    """
    office = Office(folder)
    hush(json_log(office.logs / "gateway.log", component="gateway", clock=now))
    asyncio.run(_serve(office))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except CoterieError as error:
        sys.exit("\n".join(str(fault) for fault in error.faults))
