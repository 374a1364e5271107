"""A coordinator's folder and partners that have joined it, made once for a module; and admissions to somewhere else."""

import dataclasses
import shutil
from pathlib import Path

from coterie.clients import joined
from coterie.clients.bundle import bundle_digest
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.joining.admission import read_admission, sign_admission
from coterie.simulations.deployment import Site, found
from coterie.tests.clients.federation import NAMES, study, table_of

BUNDLE = f"sha256:{bundle_digest()}"


def joined_site(root: Path, **settings: str) -> Site:
    """Three partners whose admissions are installed; nothing runs."""
    return found(root, study(), {name: table_of(name) for name in NAMES}, seed=7, settings=settings)


def copied(site: Site, folder: Path, name: str = "amber") -> Workspace:
    """A partner's workspace, to be harmed."""
    return Workspace(Path(shutil.copytree(site.workspaces[name], folder)))


def admitted(site: Site, workspace: Workspace, *, bundle: str = BUNDLE, **changes: str) -> None:
    """Install another admission of the same coordinator."""
    before = read_admission((workspace.federation / "admission.json").read_bytes())
    data = sign_admission(dataclasses.replace(before, bundle=bundle, **changes), site.office.identity)
    joined.install(workspace, data, bundle=bundle, now=now())
