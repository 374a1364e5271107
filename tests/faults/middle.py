"""Somebody in the middle who has the federation's certificate: it duplicates, delays, loses and reorders messages.

It stands where partners connect and passes what they say on to the gateway. What a partner hands in is recorded, so
that it can be seen whether a repeated question got the same bytes.
"""

import asyncio
import base64
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx
import uvicorn
from flwr.proto.fleet_pb2 import PullMessagesResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

KINDS = ("duplicated", "delivered twice", "stale after newer", "delayed", "acknowledgement lost", "lost")
PUSH, PULL, OBJECT = "/v1/fleet/push-messages", "/v1/fleet/pull-messages", "/v1/fleet/push-object"


class Middle:
    """A TLS proxy in a thread of its own.

    Args:
        port: Where partners connect.
        gateway: Port of the gateway, on loopback.
        pair: Files of certificate and key.
        names: Whose a node's public key is.
    """

    def __init__(self, port: int, gateway: int, pair: tuple[Path, Path], names: Mapping[bytes, str]) -> None:
        self._names = names
        self.armed: dict[str, deque[tuple[str, float]]] = {name: deque() for name in names.values()}
        self.done: list[tuple[str, str]] = []
        self.objects: list[tuple[str, bytes]] = []
        self._twice: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._stale: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._client: httpx.AsyncClient | None = None
        self._gateway = f"https://127.0.0.1:{gateway}"
        certificate, key = pair
        config = uvicorn.Config(
            Starlette(routes=[Route("/{path:path}", self._handle, methods=["GET", "POST"])]),
            host="127.0.0.1",
            port=port,
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
            log_level="error",
            access_log=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        end = time.monotonic() + 30
        while not self._server.started and time.monotonic() < end:
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def arm(self, partner: str, kind: str, seconds: float = 0.0) -> None:
        """Do something to a partner's next message."""
        self.armed[partner].append((kind, seconds))

    def waiting(self, partner: str) -> int:
        """Return how many faults of a partner have not happened yet."""
        return len(self.armed[partner])

    async def _handle(self, request: Request) -> Response:
        name = self._names.get(base64.b64decode(request.headers.get("flwr-public-key", "")), "")
        body, path = await request.body(), request.url.path
        headers = {key: value for key, value in request.headers.items() if key not in {"host", "content-length"}}
        if path == OBJECT:
            self.objects.append((name, body))
        kind, seconds = self._next(name, path)
        if kind == "delayed":
            await asyncio.sleep(seconds)
        if kind == "lost":
            return Response(status_code=503)
        if path == PULL and name in self._twice:
            content, told = self._twice.pop(name)
            return Response(content, 200, told)
        answer = await self._ask(path, body, headers)
        if path == PUSH:
            await self._once_more(name, kind, body, headers)
            return Response(status_code=503) if kind == "acknowledgement lost" else answer
        if path == PULL and self._armed(name) == "delivered twice" and _brings(answer):
            self._happen(name)
            self._twice[name] = (bytes(answer.body), dict(answer.headers))
        return answer

    async def _once_more(self, name: str, kind: str, body: bytes, headers: dict[str, str]) -> None:
        """Hand in a partner's message a second time, at once or after its next one."""
        if kind == "duplicated":
            await self._ask(PUSH, body, headers)
        if name in self._stale:
            await self._ask(PUSH, *self._stale.pop(name))
        if kind == "stale after newer":
            self._stale[name] = (body, headers)

    def _armed(self, name: str) -> str:
        queue = self.armed.get(name)
        return queue[0][0] if queue else ""

    def _happen(self, name: str) -> tuple[str, float]:
        kind, seconds = self.armed[name].popleft()
        self.done.append((name, kind))
        return kind, seconds

    def _next(self, name: str, path: str) -> tuple[str, float]:
        """Return what is to be done to this request."""
        armed = self._armed(name)
        return self._happen(name) if path == PUSH and armed and armed != "delivered twice" else ("", 0.0)

    async def _ask(self, path: str, body: bytes, headers: dict[str, str]) -> Response:
        if self._client is None:
            # The certificate of the gateway is what some faults are about; here it is let pass.
            self._client = httpx.AsyncClient(base_url=self._gateway, verify=False, timeout=120.0)  # noqa: S501
        try:
            answer = await self._client.post(path, content=body, headers=headers)
        except httpx.HTTPError:
            return Response(status_code=503)
        kept = {k: v for k, v in answer.headers.items() if k == "content-type" or k.startswith("flwr-")}
        return Response(answer.content, answer.status_code, kept)


def _brings(answer: Response) -> bool:
    """Return whether an answer to a pull brings a message."""
    return answer.status_code == 200 and bool(PullMessagesResponse.FromString(bytes(answer.body)).messages_list)
