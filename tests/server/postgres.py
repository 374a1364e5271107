"""A PostgreSQL server of a test's own: in a folder of its own, for its own user, gone afterwards."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

PASSWORD = secrets.token_hex(12)
_PLACES = [None, *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]


def program(name):
    """Find one of PostgreSQL's programs, or fail with the package that has it."""
    for place in _PLACES:
        found = shutil.which(name, path=place)
        if found:
            return found
    return pytest.fail(f"{name} is missing: install the package postgresql, which this proof needs")


class Server:
    """A running server; its operating-system user is unprivileged, as it insists."""

    def __init__(self, folder, **user) -> None:
        self.folder, self._user = folder, user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        self._call("initdb", "--username=coterie", "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8")
        self.control("start")

    def control(self, verb, *words):
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c max_connections=60"
        log = self.folder / "server.log"
        self._call(
            "pg_ctl", "--wait", "--silent", "--timeout=180", f"--log={log}", f"--options={options}", *words, verb
        )

    def url(self, database, password=PASSWORD):
        return f"postgresql://coterie:{password}@127.0.0.1:{self.port}/{database}"

    def emptied(self):
        """Return the URL of an empty database; one for all tests, because making one writes megabytes."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute("ALTER DATABASE postgres RESET ALL")
            db.execute("DROP SCHEMA public CASCADE")
            db.execute("CREATE SCHEMA public")
            db.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")  # as a new database has it
        return self.url("postgres")

    def _call(self, name, *words):
        command = [program(name), f"--pgdata={self.folder / 'data'}", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        subprocess.run(command, check=True, timeout=240, cwd=self.folder, **quiet, **self._user)


@contextmanager
def server():
    """Start a server and stop it in the end; as root, under an unprivileged user of this machine."""
    folder = Path(tempfile.mkdtemp(prefix="coterie-postgres-"))  # pytest's own folders are closed to other users
    user = {}
    if os.geteuid() == 0:
        known = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = known.get("postgres") or known["nobody"]
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    running = None
    try:
        running = Server(folder, **user)
        yield running
    finally:
        if running is not None:
            running.control("stop", "--mode=immediate")
        shutil.rmtree(folder)
