"""What goes through the gateway, counted: requests by what became of them, and bytes of messages."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.processes.tally import Tally

__all__ = ["Counting"]


class Counting:
    """An app before the gateway, which counts and changes nothing.

    Args:
        app: The gateway.
        tally: Where it counts.
    """

    def __init__(self, app: ASGIApp, tally: Tally) -> None:
        self._app, self._tally = app, tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return

        async def received() -> Message:
            message = await receive()
            self._tally.count("coterie_bytes", len(message.get("body", b"")), direction="received")
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._tally.count("coterie_requests", outcome=_outcome(message["status"]))
            self._tally.count("coterie_bytes", len(message.get("body", b"")), direction="sent")
            await send(message)

        await self._app(scope, received, sent)

    async def keep_written(self, pause: float) -> None:
        """Write the counts again and again until cancelled.

        Args:
            pause: Seconds between two writings.
        """
        while True:
            await asyncio.sleep(pause)
            self._tally.write()


def _outcome(status: int) -> str:
    if status < 400:
        return "passed"
    return "refused" if status < 500 else "failed"
