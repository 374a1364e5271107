"""Calls to a key server's transit secrets engine (HashiCorp Vault, OpenBao): one HTTPS request each, one fault each.

Requests and answers follow the documented HTTP API under `/v1/MOUNT/`. A fault names the server's address, the call and
the status, and never a word of the answer, which may hold what was asked.

Leaks:
    To the server: the data keys (it wraps them), their contexts and when they are used. Beside it, who watches the
    network sees sizes and times. Within this process, data keys pass through texts of JSON that cannot be overwritten.
"""

import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault

__all__ = ["TransitCalls"]

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
_WAIT = httpx.Timeout(15.0, connect=5.0)  # seconds
_LONGEST_TOKEN = 4096


class TransitCalls:
    """One key of one server.

    Args:
        address: "https://HOST:PORT"; "http://" for this machine's loopback addresses alone.
        key: The key's name, after the engine's mount where that is not "transit": "MOUNT/NAME".
        token: Reads the token, afresh for each call: what renews it writes it anew.
        authority: The file of certificates that the server's must chain to; the system's when None.

    Raises:
        KeyFault: The address or the name is not of this form, or the authority's file is no certificate.
    """

    def __init__(self, address: str, key: str, token: Callable[[], str], authority: Path | None = None) -> None:
        parts = key.split("/")
        if not all(_PART.fullmatch(part) for part in parts):
            rule = "must be a name of letters, digits, dots and dashes, after its engine's path if any"
            raise KeyFault(Fault("[keys] key", rule, "write it as NAME or MOUNT/NAME"))
        self._base, self._token = _checked(address), token
        self._mount, self.name = "/".join(parts[:-1]) or "transit", parts[-1]
        # Loading the system's authorities takes a while; without TLS an empty set of them does.
        encrypted = self._base.startswith("https") or authority is not None
        self._trust = _trust(authority) if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @property
    def place(self) -> str:
        """What faults call the key: the server's address and the key's path."""
        return f"{self._base}, key {self._mount}/{self.name}"

    def read(self) -> Mapping[str, Any] | None:
        """Return what the server says of the key, or None where it has none of this name.

        Raises:
            KeyFault: As `post`.
        """
        return self._call("GET", f"keys/{self.name}", None, None, nothing=True)

    def make(self) -> None:
        """Ask for a new key of 256 bits; one that is there is left as it is.

        Raises:
            KeyFault: As `post`.
        """
        self._call("POST", f"keys/{self.name}", {"type": "aes256-gcm96"}, None)

    def post(self, verb: str, body: Mapping[str, Any], *, refused: Fault | None = None) -> Mapping[str, Any]:
        """Ask the server to do something with the key, and return its answer's data.

        Args:
            verb: "encrypt", "decrypt", "rotate", "config" or "trim".
            body: The parameters.
            refused: What it means if the server calls the request wrong (400).

        Raises:
            KeyFault: The server is not to be had or not to be believed, is sealed, refuses the token or the request,
                or has no such key.
        """
        path = f"{verb}/{self.name}" if verb in ("encrypt", "decrypt") else f"keys/{self.name}/{verb}"
        return self._call("POST", path, body, refused) or {}

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, refused: Fault | None, *, nothing: bool = False
    ) -> Mapping[str, Any] | None:
        url, headers = (
            f"{self._base}/v1/{self._mount}/{path}",
            {"X-Vault-Token": self._held(), "X-Vault-Request": "true"},
        )
        try:
            # The environment's proxies are not asked: nobody else is to be handed the token.
            with httpx.Client(verify=self._trust, timeout=_WAIT, trust_env=False, follow_redirects=False) as client:
                answer = client.request(method, url, headers=headers, json=body)
            status, data = answer.status_code, _data(answer)
        except httpx.HTTPError as error:
            raise self._unreached(error) from None
        if nothing and status == httpx.codes.NOT_FOUND:
            return None
        if status == httpx.codes.BAD_REQUEST and refused is not None:
            raise KeyFault(refused)
        if status not in (httpx.codes.OK, httpx.codes.NO_CONTENT):
            raise self._answered(status, f"{self._mount}/{path}")
        if data is None:
            raise KeyFault(
                Fault(self.place, "answers in another form than the transit engine's", "check [keys] address")
            )
        return data

    def _held(self) -> str:
        token = self._token()
        if not 0 < len(token) <= _LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            rule = f"must be one line of 1 to {_LONGEST_TOKEN} printable characters"
            raise KeyFault(Fault("the key server's token", rule, "write a new one to its file or variable"))
        return token

    def _unreached(self, error: httpx.HTTPError) -> KeyFault:
        if isinstance(error, httpx.TimeoutException):
            return KeyFault(
                Fault(self.place, "does not answer in time", "check the server and the network, and try again")
            )
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            rule = "shows a certificate that is not of its name, or not of a trusted authority"
            return KeyFault(
                Fault(self.place, rule, "set [keys] authority to its authority's file, or correct the address")
            )
        rule = f"cannot be reached ({type(error).__name__})"
        return KeyFault(Fault(self.place, rule, "check the address, the server and the network, and try again"))

    def _answered(self, status: int, path: str) -> KeyFault:
        rule, fix = {
            403: (f"refuses the token for {path}", "give one whose policy allows that"),
            404: ("is not there", "make the key or correct [keys] key, and see that the engine is mounted there"),
            503: ("is sealed or in maintenance", "have it unsealed, and try again"),
        }.get(status, (f"answers {status} to {path}", "look into the server's log"))
        if 300 <= status < 400:
            rule, fix = "sends to another server", "set [keys] address to the active one"
        return KeyFault(Fault(self.place, rule, fix))


def _data(answer: httpx.Response) -> Mapping[str, Any] | None:
    if answer.status_code != httpx.codes.OK:
        return {}
    try:
        data = answer.json()["data"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return data if isinstance(data, dict) else None


def _trust(authority: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ValueError):
        rule = "is not a readable file of PEM certificates"
        raise KeyFault(Fault("[keys] authority", rule, "name the file of the server's authority")) from None


def _checked(address: str) -> str:
    fault = Fault("[keys] address", "must be https://HOST or https://HOST:PORT", "correct it; http:// is for loopback")
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, ValueError):
        raise KeyFault(fault) from None
    safe = url.scheme == "https" or (url.scheme == "http" and _loopback(url.host))
    beside = url.userinfo or url.query or url.fragment or url.path != "/"
    if not safe or not url.host or beside or not 0 < (url.port or 443) < 1 << 16:
        raise KeyFault(fault)
    return str(url).rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
