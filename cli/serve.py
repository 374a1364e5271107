"""The reviewer's page over a live workspace: three addresses to read, on this machine alone unless told otherwise.

Nothing in the workspace is locked or written. What is served is a bundle of the ledger as it is now, its verdict, and
the page made from both; they are made again once the ledger has changed.
"""

import dataclasses
import datetime
import ipaddress
import json
import re
import socket
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from coterie.clients.live import live_bundle, live_stamp
from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.review.kept import file_digest
from coterie.privacy.review.page.content import Reviewed
from coterie.privacy.review.page.outlook import outlook
from coterie.privacy.review.page.render import content_policy, render
from coterie.privacy.review.proofs import named_in, proofs_of
from coterie.privacy.review.verdict import Verdict
from coterie.privacy.review.verify import verify_bundle

__all__ = ["Server", "serve"]

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_TYPES = {
    "/": "text/html; charset=utf-8",
    "/verdict.json": "application/json",
    "/bundle": "application/octet-stream",
}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?")
_PATIENCE = 10.0  # seconds for one request


def serve(folder: Path, host: str = "127.0.0.1", *, port: int = 8765, show: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        folder: The partner's workspace; its node may be at work.
        host: Address to listen on; anything but a loopback address lets others read the ledger.
        port: 0 for any that is free.
        show: Takes what the operator is to read, line by line.

    Raises:
        CoterieError: There is no workspace, its ledger cannot be read, or the address cannot be had.
    """
    live_stamp(folder)
    try:
        with Server(folder, (host, port), show=show) as server:
            if not server.loopback:
                show(f"WARNING: {host} is no loopback address: whoever reaches it can read this ledger, unencrypted")
            show("reading the ledger")
            server.site.body("/")
            show(f"the audit of {folder} is at {server.url} (Ctrl-C ends it)")
            server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        show("ended")


class Server(ThreadingHTTPServer):
    """Serves one workspace; listens as soon as it is made.

    Args:
        folder: The workspace.
        address: Host and port.
        show: As in `serve`.
        clock: Returns the time in UTC.

    Raises:
        CoterieError: The address cannot be had.
    """

    daemon_threads = False  # a request that is being answered is answered, and its private copies removed

    def __init__(
        self,
        folder: Path,
        address: tuple[str, int],
        *,
        show: Callable[[str], None],
        clock: Callable[[], datetime.datetime] = now,
    ) -> None:
        host = address[0].lower()
        self.site = _Site(folder, clock)
        self.show, self._host = show, host
        self.loopback = host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, address[1]), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "there is no such port"
            fault = Fault(f"{host} port {address[1]}", f"cannot be listened on ({why})", "choose another")
            raise CoterieError(fault) from None
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def server_bind(self) -> None:
        """Bind, without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Tell the operator what kind of error it was, and the client nothing."""
        del request, client_address
        kind = sys.exc_info()[0]
        if kind is not None and not issubclass(kind, ConnectionError | TimeoutError):
            self.show(f"error: a request could not be answered ({kind.__name__}).")

    def answers_to(self, hosts: list[str]) -> bool:
        """Return whether a request means this server.

        A page of a stranger can make a name of its own point here, and would then be asked for by that name: names
        are taken only where the operator gave them. An address cannot be made to point elsewhere.
        """
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None or int(found[2] or 80) != self.server_port:
            return False
        name = found[1].strip("[]").lower()
        return name in {self._host, "localhost"} or _is_address(name)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Answer with one of three things."""
        if not self.server.answers_to(self.headers.get_all("Host") or []):
            self.send_error(421)
        elif self.path not in _TYPES:
            self.send_error(404)
        else:
            try:
                body = self.server.site.body(self.path)
            except CoterieError as error:
                for fault in error.faults:
                    self.server.show(f"error: {fault}")
                self.send_error(503)
            else:
                self._answer(200, body, _TYPES[self.path])

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
        policy = content_policy() if kind.startswith("text/html") else "default-src 'none'; sandbox"
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", f"{policy}; frame-ancestors 'none'")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if code == 405:
            self.send_header("Allow", "GET")
        if kind == _TYPES["/bundle"]:
            self.send_header("Content-Disposition", 'attachment; filename="live.bundle"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@dataclass(frozen=True)
class _Made:
    """What was made from one state of the ledger."""

    stamp: tuple[object, int]
    verdict: Verdict
    bodies: dict[str, bytes]


class _Site:
    """What there is to be read, made anew where the ledger has changed."""

    def __init__(self, folder: Path, clock: Callable[[], datetime.datetime]) -> None:
        self._folder, self._clock = folder, clock
        self._making = threading.Lock()
        self._made: _Made | None = None
        self._begun: set[str] = set()  # plans whose outlook is worked out or was
        self._known: set[str] = set()  # those whose outlook was

    def body(self, path: str) -> bytes:
        """Return what is at one of the addresses."""
        with self._making:
            stamp = (live_stamp(self._folder), len(self._known))
            if self._made is None or self._made.stamp != stamp:
                self._made = self._make(stamp, self._made)
            return self._made.bodies[path]

    def _make(self, stamp: tuple[object, int], before: _Made | None) -> _Made:
        bundle = live_bundle(self._folder, self._clock)
        with tempfile.TemporaryDirectory(prefix="coterie-") as folder:
            path = Path(folder) / "bundle"
            path.write_bytes(bundle)
            verdict = verify_bundle(path)
            if before is not None and before.stamp[1] == stamp[1] and _same(before.verdict, verdict):
                return dataclasses.replace(before, stamp=stamp)
            proofs, name = proofs_of(path, named=named_in(verdict)), file_digest(path)
        plan = verdict.studies[-1].plan if verdict.studies else ""
        known = plan in self._known
        reviewed = Reviewed(
            verdict, proofs, outlook(verdict) if known else None, name, working=bool(plan) and not known
        )
        if reviewed.working and plan not in self._begun:
            self._begun.add(plan)
            threading.Thread(target=self._foresee, args=(plan, verdict), daemon=True).start()
        page, told = render([reviewed]), json.dumps(verdict.to_dict())
        return _Made(stamp, verdict, {"/": page.encode(), "/verdict.json": told.encode(), "/bundle": bundle})

    def _foresee(self, plan: str, verdict: Verdict) -> None:
        """Work an outlook out once, which takes long; what is kept of it makes the next time short."""
        outlook(verdict)
        self._known.add(plan)


def _same(before: Verdict, after: Verdict) -> bool:
    """Return whether two verdicts differ in nothing but when their bundles were made."""
    return dataclasses.replace(after, made=before.made) == before


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
