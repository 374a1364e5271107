"""Joining at the partner: keys are made once, an admission is installed whole, and read with suspicion."""

import dataclasses
import datetime
import os
import stat

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from coterie.clients import joined as joining
from coterie.clients.joined import (
    authority_file,
    first_request,
    install,
    joined,
    known_coordinator,
    renewed_request,
)
from coterie.clients.workspace import Workspace, WorkspaceBusy
from coterie.privacy.errors import FileFault
from coterie.privacy.identity import Identity
from coterie.privacy.joining.admission import Admission, sign_admission
from coterie.privacy.joining.certificates import make_authority
from coterie.privacy.joining.forms import JoinFault, stamp
from coterie.privacy.joining.nodekey import public_of
from coterie.privacy.joining.request import read_request

NOW = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
YEAR = datetime.timedelta(days=365)
BUNDLE = "sha256:" + "ab" * 32
COORDINATOR = Identity.create()
AUTHORITY = make_authority("ministry", NOW).certificate.decode()

POLICY = """
coordinator = "{}"
customer = "customer"
labels = ["bought"]
purposes = ["campaign"]
columns = ["age"]
families = ["logistic"]
trust = ["local"]
minimum_partners = 3
minimum_customers = 100
[budget]
study_epsilon = 1.0
lifetime_epsilon = 4.0
delta = 1e-6
[consent.elsewhere]
campaign = "tests: made-up customers"
"""


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "bank", "bank")


def ask(workspace, make=first_request):
    return make(workspace, version="1.2.3", now=NOW)


def answer(request, coordinator=COORDINATOR, **changes):
    asked = read_request(request)
    fields = {
        "name": asked.name,
        "key": asked.key,
        "node": asked.node,
        "coordinator": coordinator.public,
        "address": "studies.example:443",
        "authority": AUTHORITY,
        "bundle": BUNDLE,
        "admitted": stamp(NOW),
        "expires": stamp(NOW + YEAR),
    }
    return sign_admission(Admission(**{**fields, **changes}), coordinator)


def put(workspace, data, *, bundle=BUNDLE, now=NOW):
    return install(workspace, data, bundle=bundle, now=now)


def files(workspace):
    return {path.relative_to(workspace.root): path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}


def test_a_request_names_the_workspace_and_its_keys(workspace):
    asked = read_request(ask(workspace))
    assert (asked.name, asked.version, asked.at) == ("bank", "1.2.3", stamp(NOW))
    assert asked.key == workspace.identity.public
    assert asked.node == public_of(workspace.node_key.read_bytes())
    assert workspace.node_key.with_name("node.pub").read_text() == asked.node + "\n"


def test_a_node_s_key_is_made_once(workspace):
    assert read_request(ask(workspace)) == read_request(ask(workspace))
    key = workspace.node_key.read_bytes()
    ask(workspace, renewed_request)
    ask(workspace)
    assert workspace.node_key.read_bytes() == key


def test_no_private_key_leaves(workspace):
    request, renewal = ask(workspace), ask(workspace, renewed_request)
    secrets = [workspace.group_key, workspace.identity._key.private_bytes_raw()]
    secrets += [(workspace.root / "keys" / name).read_bytes() for name in ("node", "node.next", "identity.pem")]
    for name in ("node", "node.next"):
        private = load_ssh_private_key((workspace.root / "keys" / name).read_bytes(), None)
        secrets.append(private.private_numbers().private_value.to_bytes(48, "big"))
    for data in (request, renewal):
        for secret in secrets:
            assert secret not in data
            assert secret.hex().encode() not in data


def test_everything_is_readable_by_its_owner_alone(workspace):
    before = os.umask(0)
    try:
        put(workspace, answer(ask(workspace)))
        ask(workspace, renewed_request)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in workspace.root.rglob("*")}
    assert {"node", "node.next", "node.pub", "federation", "admission.json", "authority.pem"} <= set(modes)
    assert not {name: oct(mode) for name, mode in modes.items() if mode not in (0o600, 0o700)}


def test_an_installed_admission_is_what_readers_get(workspace):
    admission = put(workspace, answer(ask(workspace)))
    assert joined(workspace) == admission
    assert authority_file(workspace).read_text() == AUTHORITY
    assert known_coordinator(workspace) == COORDINATOR.public


def test_before_joining_there_is_nothing_to_read(workspace):
    assert known_coordinator(workspace) == ""
    with pytest.raises(FileFault, match=r"has not joined a coordinator.*coterie partner request"):
        joined(workspace)


@pytest.mark.parametrize("what", ["name", "key", "node"])
def test_an_admission_of_another_partner_is_not_installed(workspace, tmp_path, what):
    other = Workspace.create(tmp_path / "shop", "shop")
    request = ask(workspace)
    stranger = dataclasses.asdict(read_request(ask(other)))
    before = files(workspace)
    with pytest.raises(JoinFault, match=f"admission.{what}: is not this partner's"):
        put(workspace, answer(request, **{what: stranger[what]}))
    assert files(workspace) == before


@pytest.mark.parametrize(
    ("now", "bundle", "said"),
    [
        (NOW + YEAR, BUNDLE, "has passed"),
        (NOW - datetime.timedelta(hours=2), BUNDLE, "ahead of this machine's clock"),
        (NOW, "sha256:" + "cd" * 32, "same version of coterie"),
    ],
)
def test_an_admission_that_is_not_in_force_here_is_not_installed(workspace, now, bundle, said):
    data = answer(ask(workspace))
    before = files(workspace)
    with pytest.raises(JoinFault, match=said):
        put(workspace, data, bundle=bundle, now=now)
    assert files(workspace) == before


def test_an_altered_admission_is_not_installed(workspace):
    data = answer(ask(workspace))
    with pytest.raises(JoinFault):
        put(workspace, data.replace(b"studies.example", b"studies.exumple"))
    assert not workspace.federation.exists()


def test_the_policy_decides_who_the_coordinator_is(workspace):
    data = answer(ask(workspace))
    workspace.policy.write_text(POLICY.format(Identity.create().public))
    with pytest.raises(JoinFault, match=r"is not the coordinator whom policy\.toml names"):
        put(workspace, data)
    assert not workspace.federation.exists()
    workspace.policy.write_text(POLICY.format(COORDINATOR.public))
    assert known_coordinator(workspace) == COORDINATOR.public
    put(workspace, data)
    joined(workspace)
    workspace.policy.write_text(POLICY.format(Identity.create().public))
    with pytest.raises(JoinFault, match=r"is not the coordinator whom policy\.toml names"):
        joined(workspace)


def test_a_damaged_policy_is_never_taken_for_none(workspace):
    data = answer(ask(workspace))
    workspace.policy.write_text("coordinator = 7\n")
    with pytest.raises(FileFault):
        put(workspace, data)
    with pytest.raises(FileFault):
        known_coordinator(workspace)


def test_a_renewal_keeps_the_old_key_at_work_until_it_is_installed(workspace):
    first = put(workspace, answer(ask(workspace)))
    renewal = ask(workspace, renewed_request)
    assert read_request(renewal).node != first.node
    assert read_request(ask(workspace, renewed_request)) == read_request(renewal)
    assert joined(workspace) == first
    second = put(workspace, answer(renewal))
    assert joined(workspace) == second
    assert public_of(workspace.node_key.read_bytes()) == second.node == read_request(renewal).node
    assert workspace.node_key.with_name("node.pub").read_text() == second.node + "\n"
    assert not workspace.node_key.with_name("node.next").exists()
    assert read_request(ask(workspace, renewed_request)).node not in (first.node, second.node)


def test_more_time_for_the_same_key_leaves_a_renewal_that_waits(workspace):
    request = ask(workspace)
    put(workspace, answer(request))
    ask(workspace, renewed_request)
    put(workspace, answer(request, expires=stamp(NOW + 2 * YEAR)))
    assert workspace.node_key.with_name("node.next").exists()
    assert joined(workspace).expires == stamp(NOW + 2 * YEAR)


def test_an_old_admission_is_refused_once_its_key_is_gone(workspace):
    first = answer(ask(workspace))
    put(workspace, first)
    put(workspace, answer(ask(workspace, renewed_request)))
    with pytest.raises(JoinFault, match="node: is not this partner's"):
        put(workspace, first)


@pytest.mark.parametrize("step", range(4))
def test_after_a_crash_at_any_write_installing_again_completes_it(workspace, monkeypatch, step):
    put(workspace, answer(ask(workspace)))
    data = answer(ask(workspace, renewed_request))
    steps = iter(range(10))

    def dies(original):
        def call(*arguments):
            if next(steps) == step:
                raise KeyboardInterrupt
            return original(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(joining, "write_durably", dies(joining.write_durably))
        patch.setattr(joining, "sync_folder", dies(joining.sync_folder))
        with pytest.raises(KeyboardInterrupt):
            put(workspace, data)
    admission = put(workspace, data)
    assert joined(workspace) == admission
    assert workspace.node_key.with_name("node.pub").read_text() == admission.node + "\n"


@pytest.mark.parametrize("harm", ["admission", "authority", "node", "identity", "name"])
def test_what_was_changed_since_is_noticed_by_readers(workspace, harm):
    put(workspace, answer(ask(workspace)))
    if harm == "admission":
        path = workspace.federation / "admission.json"
        path.write_bytes(path.read_bytes().replace(b"studies.example", b"studies.exumple"))
    elif harm == "authority":
        authority_file(workspace).write_bytes(make_authority("ministry", NOW).certificate)
    elif harm == "node":
        ask(workspace, renewed_request)
        (workspace.root / "keys" / "node.next").replace(workspace.node_key)
    elif harm == "identity":
        (workspace.root / "keys" / "identity.pem").unlink()
        Identity.create().save(workspace.root / "keys" / "identity.pem")
    else:
        (workspace.root / "coterie.toml").write_text('name = "shop"\n')
    with pytest.raises(JoinFault):
        joined(workspace)


def test_a_missing_or_damaged_key_is_named_and_not_made_anew(workspace):
    put(workspace, answer(ask(workspace)))
    workspace.node_key.write_bytes(b"canary-4711")
    for use in (joined, ask):
        with pytest.raises(JoinFault, match="keys/node") as caught:
            use(workspace)
        assert "4711" not in str(caught.value)
    assert workspace.node_key.read_bytes() == b"canary-4711"
    workspace.node_key.unlink()
    with pytest.raises(FileFault, match="cannot be read"):
        joined(workspace)


def test_an_endless_admission_file_is_not_read_whole(workspace):
    put(workspace, answer(ask(workspace)))
    with (workspace.federation / "admission.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(JoinFault, match="at most 65536 bytes"):
        joined(workspace)


def test_a_workspace_in_use_is_left_alone(workspace):
    data = answer(ask(workspace))
    before = files(workspace)
    with workspace.lock():
        for use in (lambda: ask(workspace), lambda: put(workspace, data)):
            with pytest.raises(WorkspaceBusy):
                use()
    assert files(workspace) == before
