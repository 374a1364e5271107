"""The bundle that Flower asks for with every run: a constant of the installed coterie, without any code in it.

Flower ships a bundle (FAB) from the SuperLink to every SuperNode, and by default runs what is in it. Ours only names
what is installed at both ends. A partner computes the bundle from its own installation and takes no other, so nothing
that a coordinator sends is ever unpacked.
"""

import functools
import hashlib
import io
import zipfile

__all__ = ["bundle", "bundle_digest"]

_PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "coterie-app"
version = "1.0.0"
description = "Names the installed coterie; carries no code."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "coterie"
fab-include = ["pyproject.toml"]

[tool.flwr.app.components]
serverapp = "coterie.server.running.deployed:app"
clientapp = "coterie.clients.running.worker:app"

[tool.flwr.app.config]
plan = ""
"""
_DATE = (1980, 1, 1, 0, 0, 0)


@functools.cache
def bundle() -> bytes:
    """Return the bundle: a ZIP file that is the same, byte for byte, wherever this coterie is installed.

    It is stored, not deflated: compressors differ from machine to machine.
    """
    project = _PROJECT.encode()
    manifest = f"pyproject.toml,{hashlib.sha256(project).hexdigest()},{8 * len(project)}".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as packed:
        for name, content in (("pyproject.toml", project), (".info/CONTENT", manifest)):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3
            entry.external_attr = 0o600 << 16
            packed.writestr(entry, content)
    return buffer.getvalue()


def bundle_digest() -> str:
    """Return the SHA-256 of the bundle, as Flower names it: 64 hex digits."""
    return hashlib.sha256(bundle()).hexdigest()
