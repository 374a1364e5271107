"""The page over a live workspace: read-only to the byte, for this machine's browser, whatever a node does meanwhile."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coterie.cli.serve import Server, serve
from coterie.clients.live import live_bundle, live_stamp
from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError, FileFault, LedgerFault
from coterie.tests.clients.federation import files_of
from coterie.tests.privacy.review.bundles import began, made, opened, verdict_of

ROOT = Path(__file__).parents[2]
START = f"import sys; sys.path.insert(0, {str(ROOT / '.dev')!r})"
NODE = f"""{START}
from pathlib import Path
from coterie.privacy.randomness import OsSource
from coterie.tests.clients.federation import Federation
federation = Federation(Path(sys.argv[1]))
federation.random = OsSource()
with federation.node() as node:
    node.propose(federation.signed.to_bytes())
    print("ready", flush=True)
    for line in sys.stdin:
        kind, step = line.split()
        getattr(node, kind)(federation.task(int(step)))
        print("done", flush=True)
"""
# A shell may have started the tests with the signal ignored, as it does in the background.
SERVE = f"""{START}
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from coterie.cli.serve import serve
serve(Path(sys.argv[1]), port=0, show=lambda line: print(line, flush=True))
"""


WHOLE = {"form", "signature", "entries", "tree", "time", "consents", "charges", "randomness", "budgets"}


def sound(checks):
    """Whether nothing contradicts a bundle, and all that can be told while a study runs is told."""
    status = {check["name"]: check["status"] for check in checks}
    return "fails" not in status.values() and {status[name] for name in WHOLE} == {"holds"}


class Node:
    """A partner's node at work in another process."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-c", NODE, str(root)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, kind, step):
        self.process.stdin.write(f"{kind} {step}\n")
        self.process.stdin.flush()

    def wait(self):
        assert self.process.stdout.readline() == "done\n"

    def do(self, kind, step):
        self.begin(kind, step)
        self.wait()

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


@pytest.fixture
def node():
    """Start a node beside this process, which never opens that workspace as a node does."""
    nodes = []

    def start(root):
        nodes.append(Node(root))
        return nodes[-1]

    yield start
    for started in nodes:
        if started.process.poll() is None:
            started.kill()
        started.process.stdin.close()
        started.process.stdout.close()


class Asked:
    """A server in a thread, and what it told its operator."""

    def __init__(self, folder, host="127.0.0.1") -> None:
        self.told = []
        self.server = Server(folder, (host, 0), show=self.told.append)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def get(self, path="/", method="GET", **headers):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=120)) as line:
            line.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = line.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def raw(self, data):
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=60) as line:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: line.recv(65536), b""))

    def end(self):
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def asked():
    started = []

    def start(folder, *args):
        started.append(Asked(folder, *args))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def folder(tmp_path):
    """A partner's workspace after a whole study."""
    return Path(shutil.copytree(made().federation.folders["amber"], tmp_path / "amber"))


def foreseen():
    """Wait until every outlook is worked out."""
    for thread in threading.enumerate():
        if "_foresee" in thread.name:
            thread.join()


# --- what is served ---------------------------------------------------------------------------------------


def test_three_addresses_tell_of_one_bundle(asked, folder):
    site = asked(folder)
    status, headers, page = site.get("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    told = json.loads(site.get("/verdict.json")[2])
    bundle = site.get("/bundle")[2]
    assert told["status"] == "holds"
    assert told["root"] in page.decode()
    assert verdict_of(bundle).root == told["root"]
    assert opened(bundle).header["made"] == told["made"]


def test_nothing_is_made_again_while_the_ledger_stays(asked, folder, monkeypatch):
    site = asked(folder)
    site.get("/")
    foreseen()
    first = site.get("/bundle")[2]
    monkeypatch.setattr("coterie.cli.serve.live_bundle", None)
    assert site.get("/bundle")[2] == first


def test_the_outlook_comes_once_it_was_worked_out(asked, folder):
    site = asked(folder)
    assert b"load the page again" in site.get("/")[2]  # a page does not wait for it
    foreseen()
    assert b"data-outlook" in site.get("/")[2]


# --- the workspace stays as it is -------------------------------------------------------------------------


def test_reading_changes_no_byte_where_no_node_runs(asked, folder):
    before, names = files_of(folder), sorted(path.name for path in folder.iterdir())
    site = asked(folder)
    for path in ("/", "/verdict.json", "/bundle"):
        assert site.get(path)[0] == 200
    assert files_of(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_node_works_on_and_is_seen_working(asked, node):
    federation = began()
    folder = federation.folders["amber"]
    running = node(federation.root)
    site = asked(folder)
    sizes = []
    for kind, step in (("train", 1), ("measure", 1), ("train", 2)):
        before = files_of(folder)
        told = json.loads(site.get("/verdict.json")[2])
        assert sound(told["checks"])
        assert files_of(folder) == before
        sizes.append(told["size"])
        running.do(kind, step)
    sizes.append(json.loads(site.get("/verdict.json")[2])["size"])
    assert sizes == [sizes[0] + 2 * number for number in range(4)]
    running.end()
    assert json.loads(site.get("/verdict.json")[2])["size"] == sizes[-1]


def test_every_moment_of_a_node_at_work_gives_a_whole_bundle(node):
    federation = began()
    folder = federation.folders["amber"]
    running = node(federation.root)
    seen = set()
    for kind, step in (("train", 1), ("measure", 1), ("train", 2), ("measure", 2)):
        running.begin(kind, step)
        for _ in range(15):
            verdict = verdict_of(live_bundle(folder, now))
            assert sound(verdict.to_dict()["checks"]), verdict.line
            seen.add(verdict.size)
        running.wait()
    running.end()
    assert len(seen) > 2


@pytest.mark.parametrize("restored", [False, True], ids=["killed", "restored without the index"])
def test_what_a_killed_node_left_is_read_as_it_lies(node, restored):
    federation = began()
    folder = federation.folders["amber"]
    running = node(federation.root)
    running.do("train", 1)
    running.kill()
    assert (folder / "ledger.sqlite-wal").stat().st_size > 0
    if restored:
        (folder / "ledger.sqlite-shm").unlink()
    before = files_of(folder)
    verdict = verdict_of(live_bundle(folder, now))
    assert sound(verdict.to_dict()["checks"]), verdict.line
    assert verdict.studies[0].settled == 1
    assert files_of(folder) == before


def test_the_private_copy_is_gone_afterwards(folder, tmp_path, monkeypatch):
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(private))
    live_bundle(folder, now)
    assert list(private.iterdir()) == []


def test_a_ledger_of_another_version_is_not_carried_over_in_a_copy(folder):
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(LedgerFault, match="has format 1"):
        live_bundle(folder, now)


def test_what_is_no_workspace_is_refused(tmp_path, folder):
    for call in (lambda path: live_bundle(path, now), live_stamp):
        with pytest.raises(FileFault, match="is not a workspace"):
            call(tmp_path)
    (folder / "ledger.sqlite").unlink()
    for call in (lambda path: live_bundle(path, now), live_stamp):
        with pytest.raises(LedgerFault, match="is missing"):
            call(folder)


# --- who may ask what -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/x", "/coterie.toml", "/../coterie.toml", "//x", "/?a", "/bundle/", "/keys/identity.pem", "/%2e%2e/"]
)
def test_anything_else_is_not_there(asked, folder, path):
    status, headers, body = asked(folder).get(path)
    assert (status, body) == (404, b"404 Not Found\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_nothing_but_reading_is_allowed(asked, folder, method):
    status, headers, body = asked(folder).get("/", method)
    assert (status, headers["Allow"], body) == (405, "GET", b"405 Method Not Allowed\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("[::1]:{port}", 200),
        ("localhost", 421),
        ("localhost:1", 421),
        ("evil.example:{port}", 421),
        ("127.0.0.1.evil.example:{port}", 421),
        ("evil.example@localhost:{port}", 421),
        ("localhost.:{port}", 421),
        ("", 421),
    ],
)
def test_a_name_that_a_stranger_points_here_is_not_answered(asked, folder, host, status):
    site = asked(folder)
    assert site.get("/bundle", Host=host.format(port=site.server.server_port))[0] == status


def test_requests_that_are_none_get_a_number_and_no_more(asked, folder):
    site = asked(folder)
    port = site.server.server_port
    assert b" 421 " in site.raw(b"GET / HTTP/1.0\r\n\r\n").splitlines()[0]
    two = f"GET / HTTP/1.0\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n".encode()
    assert b" 421 " in site.raw(two).splitlines()[0]
    for data in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET " + b"/" * 70_000 + b"\r\n",
        b"<script>\r\n\r\n",
    ):
        answer = site.raw(data)
        assert b"Traceback" not in answer
        assert b"<" not in answer
    assert site.get("/")[0] == 200


def test_every_answer_is_kept_from_other_sites_and_caches(asked, folder):
    site = asked(folder)
    for path, method in (("/", "GET"), ("/verdict.json", "GET"), ("/bundle", "GET"), ("/x", "GET"), ("/", "POST")):
        headers = site.get(path, method)[1]
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "Python" not in headers["Server"]
        assert not [name for name in headers if name.lower().startswith("access-control")]


def test_the_operator_is_told_why_and_the_client_is_not(asked, folder, monkeypatch):
    site = asked(folder)
    (folder / "ledger.sqlite").rename(folder / "away")
    assert site.get("/")[::2] == (503, b"503 Service Unavailable\n")
    assert "is missing" in site.told[-1]
    (folder / "away").rename(folder / "ledger.sqlite")
    assert site.get("/")[0] == 200

    def fault(path):
        raise RuntimeError("a secret")

    monkeypatch.setattr(site.server.site, "body", fault)
    answer = site.raw(f"GET / HTTP/1.0\r\nHost: localhost:{site.server.server_port}\r\n\r\n".encode())
    assert b"secret" not in answer
    assert b"Traceback" not in answer
    assert site.told[-1] == "error: a request could not be answered (RuntimeError)."


# --- the command ------------------------------------------------------------------------------------------


def test_it_listens_on_this_machine_alone_unless_told(asked, folder, monkeypatch):
    assert asked(folder).server.loopback
    told = []

    def interrupted(self, poll_interval):
        assert self.server_address[0] == "0.0.0.0"  # noqa: S104 - as the operator asked
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    serve(folder, "0.0.0.0", port=0, show=told.append)  # noqa: S104 - likewise
    assert told[0].startswith("WARNING: 0.0.0.0 is no loopback address")
    assert told[-1] == "ended"


def test_an_address_that_cannot_be_had_is_one_clear_error(asked, folder):
    port = asked(folder).server.server_port
    for host, number in (("127.0.0.1", port), ("127.0.0.1", 70_000), ("203.0.113.7", 0)):
        with pytest.raises(CoterieError, match="cannot be listened on"):
            serve(folder, host, port=number, show=print)


def test_ctrl_c_ends_it_cleanly(folder, tmp_path):
    private = tmp_path / "private"
    private.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(private)},
    )
    while "Ctrl-C" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "ended\n", "")
    assert list(private.iterdir()) == []
