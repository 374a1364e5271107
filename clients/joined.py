"""Joining, at the partner: its request, the admission that answers it, and what runs afterwards reads of it.

Keys are made here and stay here. A node's key is made once; a renewal makes the next one beside it, which is put in its
place together with the admission that names it, so that the partner stays connected until then.
"""

import datetime
from pathlib import Path

from coterie.clients.workspace import Workspace
from coterie.privacy.durable import sync_folder, write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.joining.admission import Admission, read_admission
from coterie.privacy.joining.forms import JoinFault
from coterie.privacy.joining.nodekey import make_node_key, public_of
from coterie.privacy.joining.request import make_request
from coterie.privacy.policy import read_policy

__all__ = ["authority_file", "first_request", "install", "joined", "known_coordinator", "renewed_request"]

_LONGEST = 65536
_REQUEST = "coterie partner request FOLDER --output request.json"


def first_request(workspace: Workspace, *, version: str, now: datetime.datetime) -> bytes:
    """Return the workspace's request to join, with the key of its node; that is made once and never overwritten.

    Args:
        workspace: The partner's.
        version: Version of coterie.
        now: The time.

    Raises:
        FileFault: A file cannot be read or written.
        JoinFault: keys/node is damaged.
        WorkspaceBusy: Another process holds the workspace.

    Leaks: the partner's name, two public keys, coterie's version and the time, to whoever the operator sends it.
    """
    return _request(workspace, workspace.node_key, version=version, now=now)


def renewed_request(workspace: Workspace, *, version: str, now: datetime.datetime) -> bytes:
    """Return a request with the next key of the workspace's node, which is not used before `install`.

    Asked again before an admission came, it names the same next key. Arguments, errors and leaks are those of
    `first_request`.
    """
    return _request(workspace, _next(workspace), version=version, now=now)


def known_coordinator(workspace: Workspace) -> str:
    """Return the key of the coordinator whom the operator compared already; "" where there is none.

    The policy's word counts; without a policy, the admission's that is installed.

    Raises:
        FileFault: The policy or the admission is damaged.
        JoinFault: The admission is.
    """
    if workspace.policy.exists():
        return read_policy(workspace.policy).coordinator
    if _admission(workspace).exists():
        return read_admission(_content(_admission(workspace))).coordinator
    return ""


def install(workspace: Workspace, data: bytes, *, bundle: str, now: datetime.datetime) -> Admission:
    """Put an admission in force; the coordinator's fingerprint has been compared.

    It may be called again after a crash: each file is whole at any time, and the same admission completes the rest.

    Args:
        workspace: The partner's.
        data: What the coordinator sent.
        bundle: Digest of the Flower bundle of the coterie installed here, "sha256:" and 64 hex digits.
        now: The time.

    Returns:
        The admission.

    Raises:
        FileFault: A file cannot be read or written, or the policy is damaged.
        JoinFault: The admission is malformed, altered, expired, for another partner or another coterie, or by a
            coordinator that is not the one whom the policy names.
        WorkspaceBusy: Another process holds the workspace.
    """
    admission = read_admission(data)
    if workspace.policy.exists() and read_policy(workspace.policy).coordinator != admission.coordinator:
        fix = "compare fingerprints; if this is the right coordinator, put its key into policy.toml and install again"
        raise JoinFault(Fault("admission.coordinator", "is not the coordinator whom policy.toml names", fix))
    admission.check_dates(now)
    admission.check_bundle(bundle)
    with workspace.lock():
        here = {path: public_of(_content(path)) for path in (workspace.node_key, _next(workspace)) if path.exists()}
        admission.check_holder(workspace.name, workspace.identity.public, tuple(here.values()))
        workspace.federation.mkdir(mode=0o700, exist_ok=True)
        write_durably(authority_file(workspace), admission.authority.encode())
        write_durably(_admission(workspace), data)
        if here.get(workspace.node_key) != admission.node:
            _next(workspace).replace(workspace.node_key)
            sync_folder(workspace.node_key.parent)
        write_durably(workspace.node_key.with_name("node.pub"), f"{admission.node}\n".encode())
    return admission


def joined(workspace: Workspace) -> Admission:
    """Return the installed admission, held against this workspace's name, keys, authority and policy.

    Whether it has expired is for the caller's clock: see `Admission.check_dates`.

    Raises:
        FileFault: There is none, or a file cannot be read.
        JoinFault: It is altered, for another partner or key, by a coordinator that is not the one whom the policy
            names, or authority.pem is not the one that it holds.
    """
    if not _admission(workspace).exists():
        fix = f"send the coordinator a request: {_REQUEST}; then: coterie partner install FOLDER admission.json"
        raise FileFault(Fault(str(workspace.root), "has not joined a coordinator", fix))
    admission = read_admission(_content(_admission(workspace)))
    node = public_of(_content(workspace.node_key))
    admission.check_holder(workspace.name, workspace.identity.public, (node,))
    again = "install the admission again: coterie partner install FOLDER admission.json"
    if _content(authority_file(workspace)) != admission.authority.encode():
        raise JoinFault(Fault(str(authority_file(workspace)), "is not the authority of the admission", again))
    if known_coordinator(workspace) != admission.coordinator:
        fix = "put the right coordinator's key into policy.toml, or install its admission"
        raise JoinFault(Fault("admission.coordinator", "is not the coordinator whom policy.toml names", fix))
    return admission


def authority_file(workspace: Workspace) -> Path:
    """Return where the certificates lie by which this partner knows the coordinator's server."""
    return workspace.federation / "authority.pem"


def _request(workspace: Workspace, node: Path, *, version: str, now: datetime.datetime) -> bytes:
    with workspace.lock():
        if not node.exists():
            write_durably(node, make_node_key())
        private = _content(node)
        if node == workspace.node_key:
            write_durably(node.with_name("node.pub"), f"{public_of(private)}\n".encode())
        return make_request(workspace.name, workspace.identity, private, version=version, now=now)


def _next(workspace: Workspace) -> Path:
    return workspace.node_key.with_name("node.next")


def _admission(workspace: Workspace) -> Path:
    return workspace.federation / "admission.json"


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST + 1)  # an admission that is longer is refused as such
    except OSError as error:
        raise FileFault(Fault(str(path), f"cannot be read ({error.strerror})", "check its path and rights")) from None
