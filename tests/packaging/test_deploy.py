"""What is provided for running coterie as a service: units, a container file and a proxy's configuration."""

import contextlib
import datetime
import http.client
import ipaddress
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.main import get_command

from coterie.cli.main import app
from coterie.server.running.gateway import CALLS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = DEPLOY / "container" / "Containerfile"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SITE = DEPLOY / "nginx" / "coterie-fleet.conf"
NAME = "coordinator.example.com"


def needed(program, package):
    """Return where a program is."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    assert found, f"{program} is missing: install the system package {package}"
    return found


def known_options(words):
    """Return the options of the command that these words name, and what follows its name."""
    command, words = get_command(app), list(words)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not getattr(command, "commands", None), "a group, not a command"
    return {option for parameter in command.params for option in parameter.opts}, words


def hadolint(path):
    command = [Path(sys.executable).with_name("hadolint"), path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- the container file


def test_the_container_file_passes_its_linter():
    done = hadolint(CONTAINERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_finds_what_is_wrong(tmp_path):
    text = CONTAINERFILE.read_text(encoding="utf-8").replace("WORKDIR /src", "RUN cd /src")
    (tmp_path / "Containerfile").write_text(text)
    done = hadolint(tmp_path / "Containerfile")
    assert done.returncode != 0
    assert "DL3003" in done.stdout


def test_the_container_file_takes_every_folder_that_is_packaged_and_no_other():
    """No `COPY . .`: a workspace or a key that lies in the tree would become part of the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = {folder.split("/")[0] for folder in project["tool"]["setuptools"]["package-dir"].values()}
    copied = re.findall(r"^COPY (?!--from)(.+)$", CONTAINERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    folders = {line.split("/")[0] for line in copied if "/ " in line}
    assert folders == packaged
    (extra,) = re.findall(r"^ARG EXTRAS=(.+)$", CONTAINERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert extra in project["project"]["optional-dependencies"]
    assert [line for line in copied if "/ " not in line] == ["pyproject.toml constraints.txt README.md LICENSE ./"]


def test_the_container_runs_as_nobody_in_particular_a_command_that_exists():
    text = CONTAINERFILE.read_text(encoding="utf-8")
    last = text.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001$", last, flags=re.MULTILINE)
    assert last.index("\nUSER 10001") < last.index("\nENTRYPOINT")
    words = json.loads(re.search(r"^CMD (\[.*\])$", last, flags=re.MULTILINE)[1])
    known, arguments = known_options(words)
    assert {word for word in arguments if word.startswith("--")} <= known
    port = arguments[arguments.index("--health-port") + 1]
    assert f"http://127.0.0.1:{port}/health" in last


# --- the units


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_exists_and_may_write_its_folder_alone(unit):
    text = unit.read_text(encoding="utf-8")
    program, *words = re.search(r"^ExecStart=(.*)$", text, flags=re.MULTILINE)[1].split()
    known, arguments = known_options(words)
    folder = arguments[0]
    assert program == "/opt/coterie/bin/coterie"
    assert {word for word in arguments if word.startswith("--")} <= known
    assert re.findall(r"^ReadWritePaths=(.*)$", text, flags=re.MULTILINE) == [folder]
    assert "ProtectSystem=strict" in text.splitlines()


def test_both_units_are_hardened_alike():
    """What the two differ in is which command they start, and how long it may take to end."""
    hardened = [
        set(text.split("RestartSec=5\n")[1].split("TasksMax=512")[0].splitlines())
        for text in (unit.read_text(encoding="utf-8") for unit in UNITS)
    ]
    assert len(hardened) == 2
    assert hardened[0] == hardened[1]


def unit_files(folder):
    """Write the units as they would be where this interpreter's coterie is the installed one."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/coterie/bin/coterie", sys.executable)
        (folder / unit.name.replace("@.", "@bank.")).write_text(text)
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    analyze = needed("systemd-analyze", "systemd")
    for unit in unit_files(tmp_path):
        done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
        done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
        assert "NoNewPrivilege" in done.stderr, "a wrong word is not found"


@pytest.mark.slow
def test_systemd_counts_the_exposure_of_the_units_as_low(tmp_path):
    analyze = needed("systemd-analyze", "systemd")
    for unit in unit_files(tmp_path):
        command = [analyze, "security", "--offline=true", "--threshold=20", unit]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


# --- the proxy


def test_the_proxy_lets_the_same_calls_through_as_the_gateway():
    (calls,) = re.findall(r"\(\?<call>([a-z|-]+)\)", SITE.read_text(encoding="utf-8"))
    assert {f"/v1/fleet/{call}" for call in calls.split("|")} == set(CALLS)


class Stub(ThreadingHTTPServer):
    """Stands for the gateway, and remembers what reaches it."""

    def __init__(self, certificate, key):
        self.asked = []
        super().__init__(("127.0.0.1", 0), _Remembers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)


class _Remembers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.do_POST()

    def do_PUT(self):
        self.do_POST()

    def do_DELETE(self):
        self.do_POST()

    def log_message(self, *_):
        pass


def certify(folder):
    """Write a certificate that is its own authority; return the files of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    moment = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(hours=1))
        .not_valid_after(moment + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (folder / "public.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "public.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "public.pem", folder / "public.key"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class Proxy:
    """nginx with the site as provided; only addresses and paths of files are others."""

    def __init__(self, folder):
        nginx = needed("nginx", "nginx-light")
        folder.chmod(0o755)
        certificate, key = certify(folder)
        self.stub, self.port, self.log = Stub(certificate, key), free_port(), folder / "coterie.log"
        text = SITE.read_text(encoding="utf-8")
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            ("server 127.0.0.1:9443;", f"server 127.0.0.1:{self.stub.server_port};"),
            ("/var/lib/coterie/coordinator/keys/server.pem", str(certificate)),
            ("/var/lib/coterie/coordinator/keys/server.key", str(key)),
            ("/var/lib/coterie/coordinator/keys/authority.pem", str(certificate)),
            ("/var/log/nginx/coterie.log", str(self.log)),
        ):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (folder / "site.conf").write_text(text)
        places = "".join(
            f"{what}_temp_path {folder}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main = f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
        (folder / "nginx.conf").write_text(f"{main} http {{ {places} include {folder}/site.conf; }}")
        self.command = [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        self.context = ssl.create_default_context(cafile=str(certificate))

    def __enter__(self):
        threading.Thread(target=self.stub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), 5):
                return self
            assert self.process.poll() is None, "nginx has ended"
            assert time.monotonic() < end, "nginx does not listen"
            threading.Event().wait(0.05)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.stub.shutdown()
        self.stub.server_close()

    def ask(self, target, *, method="POST", body=b"", headers=()):
        """Send a request as it is written, and return the status and the body."""
        with self._connect() as tls:
            lines = [
                f"{method} {target} HTTP/1.1",
                f"Host: {NAME}",
                f"Content-Length: {len(body)}",
                "Connection: close",
            ]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
                tls.sendall("\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body)
            answer = http.client.HTTPResponse(tls, method=method)
            answer.begin()
            return answer.status, answer.read()

    def _connect(self, context=None):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return (context or self.context).wrap_socket(plain, server_hostname=NAME)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    with Proxy(tmp_path_factory.mktemp("proxy")) as started:
        yield started


@pytest.mark.slow
def test_nginx_finds_nothing_wrong_with_the_site(proxy):
    done = subprocess.run([*proxy.command, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("call", sorted(CALLS))
def test_a_call_of_a_node_passes_with_its_body_and_headers(proxy, call):
    headers = ("flwr-public-key: abc", "Cookie: c", "Authorization: a", "X-Forwarded-For: 192.0.2.1")
    assert proxy.ask(call, body=b"content", headers=headers) == (200, b"content")
    method, path, got, body = proxy.stub.asked[-1]
    assert (method, path, body, got["flwr-public-key"]) == ("POST", call, b"content", "abc")
    assert not {"Cookie", "Authorization", "X-Forwarded-For"} & set(got)


FORBIDDEN = [
    ("POST", "/v1/control/start-run"),
    ("POST", "/v1/control/list-runs"),
    ("POST", "/v1/control/stop-run"),
    ("POST", "/v1/control/register-node"),
    ("POST", "/v1/runtime/acquire-task"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/health"),
    ("GET", "/"),
    ("POST", "/v1/fleet/"),
    ("POST", "/v1/fleet/register-node"),
    ("POST", "/v1/fleet/unregister-node"),
    ("POST", "/v1/fleet/pull-messages/"),
    ("POST", "/v1/fleet/pull-messages%00"),
    ("POST", "/v1/fleet/../control/list-runs"),
    ("POST", "/v1/fleet/%2e%2e/control/list-runs"),
    ("POST", "/v1/fleet/pull-messages/../../control/list-runs"),
    ("POST", "/V1/FLEET/PULL-MESSAGES"),
    ("GET", "/v1/fleet/pull-messages"),
    ("PUT", "/v1/fleet/pull-messages"),
    ("DELETE", "/v1/fleet/pull-messages"),
    ("OPTIONS", "/v1/fleet/pull-messages"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "target"), FORBIDDEN, ids=lambda value: value)
def test_nothing_else_reaches_what_is_behind_the_proxy(proxy, method, target):
    before = len(proxy.stub.asked)
    status, _ = proxy.ask(target, method=method)
    assert status in {400, 403, 405}
    assert len(proxy.stub.asked) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "/v1/control/../fleet/pull-messages",
        "/v1/control/%2e%2e/fleet/pull-messages",
        "//v1//fleet//pull-messages",
        "/v1/fleet/pull-messages?run=1",
        "/v1/fleet/pull%2Dmessages",
        f"https://{NAME}/v1/fleet/pull-messages",
    ],
)
def test_other_ways_to_write_a_call_arrive_as_the_one_way(proxy, target):
    """nginx decides on the path as it reads it; what is behind must not be handed another that reads differently."""
    assert proxy.ask(target)[0] == 200
    assert proxy.stub.asked[-1][1] == "/v1/fleet/pull-messages"


@pytest.mark.slow
def test_a_request_that_is_too_large_is_refused_before_it_is_read(proxy):
    before = len(proxy.stub.asked)
    with proxy._connect() as tls:
        lines = [
            "POST /v1/fleet/push-object HTTP/1.1",
            f"Host: {NAME}",
            f"Content-Length: {33 << 20}",
            "",
            "",
        ]
        tls.sendall("\r\n".join(lines).encode())
        answer = http.client.HTTPResponse(tls)
        answer.begin()
        assert answer.status == 413
    assert len(proxy.stub.asked) == before
    assert proxy.ask("/v1/fleet/push-object", body=bytes(6 << 20))[0] == 200


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_of_tls_are_refused(proxy):
    context = ssl.create_default_context(cafile=str(proxy.log.with_name("public.pem")))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        proxy._connect(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with proxy._connect(context) as tls:
        assert tls.version() == "TLSv1.2"


@pytest.mark.slow
def test_refusals_are_logged_one_line_of_json_each(proxy):
    proxy.ask("/v1/control/logged?secret=canary", body=b"canary")
    end = time.monotonic() + 10
    while "/v1/control/logged" not in (text := proxy.log.read_text()):
        assert time.monotonic() < end
        threading.Event().wait(0.05)
    (line,) = [json.loads(line) for line in text.splitlines() if "/v1/control/logged" in line]
    assert (line["peer"], line["method"], line["status"]) == ("127.0.0.1", "POST", 403)
    assert "canary" not in text
