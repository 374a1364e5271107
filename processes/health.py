"""Health, metrics and status of one process, on this machine alone.

`/health` answers 200 or 503, `/metrics` in Prometheus' text format, `/status` as JSON. Nothing is asked of the caller,
so nothing but a loopback address is listened on, and only requests that name one are answered: a stranger's web page
can make a name of its own point here, but not an address.
"""

import ipaddress
import json
import logging
import re
import socket
import socketserver
import sys
import threading
import types
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from coterie.privacy.errors import CoterieError, Fault
from coterie.processes.logs import event
from coterie.processes.metrics import CONTENT_TYPE, Metrics

__all__ = ["Health", "serve"]

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::[0-9]{1,5})?")
_PATIENCE = 5.0  # seconds for one request


class Health:
    """What listens; ends with `close`, or at the end of a `with` block."""

    def __init__(self, server: "_Server") -> None:
        self._server = server
        self.port: int = server.server_port
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        """Return what listens."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Listen no more."""
        self.close()


def serve(host: str, port: int, *, metrics: Metrics, status: Callable[[], Mapping[str, object]]) -> Health:
    """Begin to answer on a loopback address, in a thread.

    Args:
        host: "127.0.0.1", "::1", another loopback address, or "localhost".
        port: 0 for any that is free.
        metrics: What `/metrics` tells.
        status: Returns what `/status` tells: names, counts and times, of which "ok" decides over `/health`. Called from
            several threads, and anew for each request.

    Returns:
        What listens; its `port` is the real one.

    Raises:
        CoterieError: The address is not a loopback address, or cannot be had.
    """
    if not _is_loopback(host):
        fault = Fault(host, "is no loopback address, and these pages ask for no password", "use 127.0.0.1")
        raise CoterieError(fault)
    try:
        # The name is not looked up: it might be taken for another address.
        return Health(_Server("127.0.0.1" if host.lower() == "localhost" else host, port, metrics, status))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "there is no such port"
        fault = Fault(f"{host} port {port}", f"cannot be listened on ({why})", "choose another port")
        raise CoterieError(fault) from None


class _Server(ThreadingHTTPServer):
    """Listens on a loopback address."""

    daemon_threads = True

    def __init__(self, host: str, port: int, metrics: Metrics, status: Callable[[], Mapping[str, object]]) -> None:
        self.metrics, self.status = metrics, status
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind, without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what kind of error it was; the ordinary way prints a traceback."""
        del request, client_address
        kind = sys.exc_info()[0]
        if kind is not None and not issubclass(kind, ConnectionError | TimeoutError):
            event(logging.getLogger("coterie"), "health-unanswered", level=logging.ERROR, error=kind.__name__)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Server
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Answer with one of three things."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or (named := _HOST.fullmatch(hosts[0])) is None or not _is_loopback(named[1].strip("[]")):
            self.send_error(421)
        elif self.path == "/metrics":
            self._answer(200, self.server.metrics.text(), CONTENT_TYPE)
        elif self.path == "/health":
            fine = self.server.status().get("ok") is True
            self._answer(200 if fine else 503, json.dumps({"ok": fine}).encode() + b"\n", "application/json")
        elif self.path == "/status":
            self._answer(200, json.dumps(dict(self.server.status())).encode() + b"\n", "application/json")
        else:
            self.send_error(404)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with a number and its fixed words: nothing of the request or of this machine."""
        del message, explain
        code = 405 if code == 501 else code
        words = self.responses.get(code, ("Error", ""))[0]
        self._answer(code, f"{code} {words}\n".encode(), "text/plain; charset=utf-8")

    def version_string(self) -> str:
        """Name the software, without versions."""
        return "coterie"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Write nothing: what is asked for is a stranger's text."""

    def _answer(self, code: int, body: bytes, kind: str) -> None:
        self.close_connection = True
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
