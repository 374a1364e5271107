"""A mock of a key server's transit engine: its documented HTTP API over real sockets, and AES-GCM of its own.

What it answers was compared with a real server's answers; `test_sources_transit_real.py` holds both to one suite.
"""

import base64
import json
import os
import re
import ssl
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from Crypto.Cipher import AES

TOKEN = "hvs.canary-token-of-the-mock"  # noqa: S105


class Refused(Exception):
    def __init__(self, status, body=None) -> None:
        super().__init__(status)
        self.status, self.body = status, body if body is not None else {"errors": ["no"]}


class Key:
    """A named key ring, as the engine keeps it."""

    def __init__(self, kind) -> None:
        self.keys, self.latest = {1: os.urandom(32)}, 1
        self.told = {
            "type": kind,
            "derived": False,
            "exportable": False,
            "allow_plaintext_backup": False,
            "min_available_version": 0,
            "min_decryption_version": 1,
            "min_encryption_version": 0,
        }

    def read(self):
        return {**self.told, "latest_version": self.latest, "keys": {str(n): 1 for n in self.keys}}

    def rotate(self, _):
        self.latest += 1
        self.keys[self.latest] = os.urandom(32)
        return self.read()

    def config(self, body):
        new = {**self.told, **body}
        least = new["min_decryption_version"], new["min_encryption_version"]
        if max(least) > self.latest or 0 < least[1] < least[0] or min(least) < self.told["min_available_version"]:
            raise Refused(400)
        self.told = new
        return self.read()

    def trim(self, body):
        least = body["min_available_version"]
        allowed = min(self.told["min_decryption_version"], self.told["min_encryption_version"])
        if not self.told["min_available_version"] <= least <= allowed or least < 1:
            raise Refused(400)
        self.told["min_available_version"] = least
        self.keys = {number: key for number, key in self.keys.items() if number >= least}
        return self.read()

    def encrypt(self, item):
        number = item.get("key_version") or self.latest
        if number > self.latest or number < (self.told["min_encryption_version"] or self.latest):
            raise ValueError
        nonce = os.urandom(12)
        aead = AES.new(self.keys[number], AES.MODE_GCM, nonce=nonce)
        aead.update(base64.b64decode(item.get("associated_data", "")))
        sealed = b"".join(aead.encrypt_and_digest(base64.b64decode(item["plaintext"])))
        return {"ciphertext": f"vault:v{number}:{base64.b64encode(nonce + sealed).decode()}", "key_version": number}

    def decrypt(self, item):
        number, text = re.fullmatch(r"vault:v([0-9]+):(.+)", item["ciphertext"]).groups()
        if int(number) < self.told["min_decryption_version"]:
            raise ValueError
        data = base64.b64decode(text, validate=True)
        aead = AES.new(self.keys[int(number)], AES.MODE_GCM, nonce=data[:12])
        aead.update(base64.b64decode(item.get("associated_data", "")))
        return {"plaintext": base64.b64encode(aead.decrypt_and_verify(data[12:-16], data[-16:])).decode()}


class Mock:
    """What the server holds, and how it is told to misbehave."""

    def __init__(self) -> None:
        self.rings, self.calls, self.lock = {}, [], threading.Lock()
        self.sealed, self.old, self.pause = False, False, 0.0
        self.denied, self.answer = re.compile("(?!)"), None  # a pattern of paths; status, headers and body for all

    def respond(self, method, path, headers, body):
        self.calls.append((method, path, headers, body))
        time.sleep(self.pause)
        if self.answer is not None:
            return self.answer
        try:
            with self.lock:
                data = self.handle(method, path.removeprefix("/v1/"), headers, body)
        except Refused as refused:
            return refused.status, {}, json.dumps(refused.body).encode()
        return 200, {}, json.dumps({"data": data}).encode()

    def handle(self, method, path, headers, body):
        if self.sealed:
            raise Refused(503, {"errors": ["Vault is sealed"]})
        if headers.get("X-Vault-Token") != TOKEN or self.denied.search(path):
            raise Refused(403, {"errors": ["permission denied"]})
        engine, _, rest = path.partition("/")
        words = rest.split("/")
        if engine != "transit":
            raise Refused(404)
        asked = json.loads(body) if body else {}
        if words[0] in ("encrypt", "decrypt"):
            return self.batch(self.ring(words[1], 400), words[0], asked["batch_input"])
        if len(words) == 3:
            return getattr(self.ring(words[1], 400), words[2])(asked)
        if method == "POST":
            self.rings.setdefault(words[1], Key(asked["type"]))
        return self.ring(words[1], 404).read()

    def ring(self, name, status):
        if name not in self.rings:
            raise Refused(status, {"errors": []})
        return self.rings[name]

    def batch(self, ring, verb, items):
        results, failed = [], False
        for item in items:
            try:
                results.append(getattr(ring, verb)({**item, "associated_data": ""} if self.old else item))
            except (ValueError, KeyError, AttributeError):
                results.append({"error": "cipher: message authentication failed"})
                failed = True
        if failed:
            raise Refused(400, {"data": {"batch_results": results}})
        return {"batch_results": results}


def handler(mock):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, answer = mock.respond(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *words):
            pass

    return Handler


class Quiet(ThreadingHTTPServer):
    """A caller that hung up, or that does not trust the certificate, is no error of the server's."""

    daemon_threads, block_on_close = True, False

    def handle_error(self, request, client_address):
        pass


@contextmanager
def serving(mock, certificate=None):
    """Serve a mock on a free port of the loopback; with a certificate (chain and key files), over TLS."""
    server = Quiet(("127.0.0.1", 0), handler(mock))
    if certificate is not None:
        trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trust.load_cert_chain(*certificate)
        server.socket = trust.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
