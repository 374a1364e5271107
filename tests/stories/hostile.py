"""Bundles of a hostile coordinator: each holds code that would leave a mark, were it ever run at a partner."""

import hashlib
import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

PROJECT = """[project]
name = "{name}"
version = "1.0.0"
description = ""
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "coterie"

[tool.flwr.app.components]
serverapp = "hostile.server:app"
clientapp = "{client}"

[tool.flwr.app.config]
plan = ""
told = ""
go = ""
"""

# Sends what a study would send and what it never would, and writes down what comes back.
SERVER = """
import json, pathlib, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    told, go = (pathlib.Path(str(context.run_config[name])) for name in ("told", "go"))
    told.with_suffix(".here").touch()
    end = time.monotonic() + 60
    while time.monotonic() < end and not (go.exists() and len(list(grid.get_node_ids())) >= 3):
        time.sleep(0.1)
    kinds = ("query.propose", "train", "evaluate", "query")
    content = RecordDict({"config": ConfigRecord({"a": 1})})
    messages = [Message(content, dst_node_id=node, message_type=kind) for node in grid.get_node_ids() for kind in kinds]
    wanted, replies = set(grid.push_messages(messages)), []
    end = time.monotonic() + 60
    while wanted and time.monotonic() < end:
        for reply in grid.pull_messages(wanted):
            error = [reply.error.code, reply.error.reason] if reply.has_error() else None
            replies.append({"kind": reply.metadata.message_type, "error": error})
            wanted.discard(reply.metadata.reply_to_message_id)
        time.sleep(0.1)
    part = told.with_suffix(".part")
    part.write_text(json.dumps({"asked": len(messages), "replies": replies}))
    part.rename(told)
"""

# Marks that it ran, and carries off what it finds beside it.
EVIL = """
import os, pathlib
mark = pathlib.Path({mark!r})
mark.parent.mkdir(parents=True, exist_ok=True)
with mark.open("a") as file:
    file.write(str(os.getpid()) + "\\n")
for table in pathlib.Path({root!r}).glob("site/partners/*/vault/*"):
    (mark.parent / table.name).write_bytes(table.read_bytes())
from flwr.clientapp import ClientApp
app = ClientApp()
"""


def packed(files: dict[str, str]) -> bytes:
    """A bundle in Flower's form."""
    lines = [f"{name},{hashlib.sha256(text.encode()).hexdigest()},{8 * len(text)}" for name, text in files.items()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**files, ".info/CONTENT": "\n".join(lines)}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def thief(root: Path, mark: Path) -> bytes:
    """A bundle whose app reads the vault and carries it off."""
    evil = EVIL.format(mark=str(mark), root=str(root))
    project = PROJECT.format(name="thief", client="hostile.client:app")
    files = {"hostile/__init__.py": "", "hostile/server.py": SERVER, "hostile/client.py": evil}
    return packed({"pyproject.toml": project, **files})


def shadow(root: Path, mark: Path) -> bytes:
    """A bundle that says it runs the installed coterie, and has one of its own."""
    evil = EVIL.format(mark=str(mark), root=str(root))
    project = PROJECT.format(name="coterie-app", client="coterie.clients.running.worker:app")
    rooms = ("coterie", "coterie/clients", "coterie/clients/running", "coterie/privacy")
    files = {f"{room}/__init__.py": evil for room in rooms}
    files |= {"coterie/clients/running/worker.py": evil, "coterie/clients/app.py": evil, "sitecustomize.py": evil}
    return packed({"pyproject.toml": project, "hostile/__init__.py": "", "hostile/server.py": SERVER, **files})


def plain(name: str) -> bytes:
    """A bundle without evil code at the partner; what the SuperLink has in its place is exchanged afterwards."""
    project = PROJECT.format(name=name, client="coterie.clients.running.worker:app")
    return packed({"pyproject.toml": project, "hostile/__init__.py": "", "hostile/server.py": SERVER})


def bomb() -> bytes:
    """An archive of a few hundred kilobytes that would be 300 megabytes."""
    buffer = io.BytesIO()
    packing = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED)
    with packing as archive, archive.open("pyproject.toml", "w", force_zip64=True) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    return buffer.getvalue()


class Hostile:
    """A coordinator that starts a run of its own choosing, past `coterie coordinator run`.

    Args:
        live: The federation.
        name: Of the run, for its files.
    """

    def __init__(self, live, name: str) -> None:
        self.live, self.office = live, live.site.office
        folder = live.root / f"hostile-{name}"
        folder.mkdir()
        self.told, self.here, self.go = folder / "told.json", folder / "told.here", folder / "go"

    def start(self, fab: bytes) -> int:
        """Start a run, and return its number."""
        told = user_config_to_proto({"told": str(self.told), "go": str(self.go)})
        request = StartRunRequest(fab=Fab(hash_str=hashlib.sha256(fab).hexdigest(), content=fab), override_config=told)
        with ControlHttpClient.from_server_address(
            f"127.0.0.1:{self.office.settings.superlink_port}",
            insecure=False,
            root_certificates=self.office.loopback_authority.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        ) as client:
            return int(client.StartRun(request).run_id)

    def exchange(self, fab: bytes, content: bytes) -> None:
        """Have the SuperLink ship something else under a bundle's digest."""
        with closing(sqlite3.connect(self.office.superlink / "state.db", timeout=30)) as db, db:
            changed = db.execute(
                "UPDATE fab SET content = ? WHERE fab_hash = ?", (content, hashlib.sha256(fab).hexdigest())
            )
            assert changed.rowcount == 1

    def replies(self) -> dict:
        """What the run's messages brought back."""
        return json.loads(self.told.read_text(encoding="utf-8"))
