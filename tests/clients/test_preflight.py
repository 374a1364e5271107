"""What a partner tests before its first study: every fault is really made, and is found by its name with its fix."""

import contextlib
import datetime
import importlib.metadata
import os
import re
import resource
import shutil
import tempfile
from types import SimpleNamespace

import pyarrow as pa
import pytest

from coterie.clients.history import introduce
from coterie.clients.preflight import checks_here, run_checks
from coterie.clients.sealing import stage
from coterie.clients.vault import CUSTOMERS, IDENTIFIERS, open_vault
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.tests.clients.federation import table_of
from coterie.tests.clients.joinedsite import admitted, copied, joined_site

NAMES = ("workspace", "ledger", "policy", "vault and contracts", "hygiene", "admission", "versions", "disk")
DAY = datetime.timedelta(days=1)
NOBODY = 65534


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return joined_site(tmp_path_factory.mktemp("preflight") / "site")


@pytest.fixture
def bank(site, tmp_path):
    return copied(site, tmp_path / "bank")


def found(workspace, *names, clock=now):
    """Run checks by their names; the dry round has tests of its own."""
    chosen = [(name, check) for name, check in checks_here(workspace, clock) if name in (names or NAMES)]
    return {check.name: check for check in run_checks(iter(chosen))}


def failures(workspace, clock=now):
    return {name: check.said for name, check in found(workspace, clock=clock).items() if not check.fine}


def contract_file(bank):
    (path,) = (bank.root / "contracts").glob("*.json")
    return path


def test_a_partner_that_is_ready_passes_every_check(bank):
    checks = found(bank)
    assert tuple(checks) == NAMES
    assert {name: check.said for name, check in checks.items() if not check.fine} == {}
    assert "1 approved" in checks["vault and contracts"].said
    assert "1.41." in checks["versions"].said


def open_key(bank):
    (bank.root / "keys" / "identity.pem").chmod(0o640)


def open_folder(bank):
    bank.root.chmod(0o755)


def damaged_identity(bank):
    (bank.root / "keys" / "identity.pem").write_bytes(b"canary-4711")


def short_group_key(bank):
    (bank.root / "keys" / "groups.key").write_bytes(b"canary-4711")


def no_ledger(bank):
    bank.ledger.unlink()


def emptied_ledger(bank):
    bank.ledger.write_bytes(b"")


def no_policy(bank):
    bank.policy.unlink()


def policy_of_another_coordinator(bank):
    lines = bank.policy.read_text().splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("coordinator = ")]
    lines[at] = f'coordinator = "{Identity.create().public}"'
    bank.policy.write_text("\n".join(lines))


def no_contract(bank):
    contract_file(bank).unlink()


def changed_contract(bank):
    path = contract_file(bank)
    path.write_bytes(path.read_bytes().replace(b'"high":90', b'"high":91'))


def cut_contract(bank):
    path = contract_file(bank)
    path.write_bytes(path.read_bytes()[:40])


def put(bank, rows, dataset=CUSTOMERS):
    """Seal a table as it is, past the checks."""
    with open_vault(bank.root, now) as vault:
        stage(vault, dataset, rows.to_batches(), schema=rows.schema, customer="customer").commit("sealed")


def table_without_a_column(bank):
    put(bank, table_of().drop_columns(["spend"]))


def table_without_its_label(bank):
    put(bank, table_of().drop_columns(["bought"]))


def no_table(bank):
    shutil.rmtree(bank.vault / "customers")


def damaged_table(bank):
    for path in (bank.vault / "customers" / "manifests").iterdir():
        path.write_bytes(b"canary-4711")


def plain_table(bank):
    (bank.vault / "customers.parquet").write_bytes(b"canary-4711")
    (bank.vault / "customers.parquet").chmod(0o600)


def never_joined(bank):
    shutil.rmtree(bank.federation)


def other_node_key(bank):
    bank.node_key.unlink()


HARMS = [
    (open_key, "workspace", r"identity\.pem: is open to other users\. Fix: chmod go-rwx \S+identity\.pem"),
    (open_folder, "workspace", r"is open to other users\. Fix: chmod go-rwx"),
    (damaged_identity, "workspace", r"identity\.pem: is not a readable identity key\. Fix: restore it"),
    (short_group_key, "workspace", r"groups\.key: must hold 32 bytes\. Fix: restore it"),
    (no_ledger, "ledger", r"ledger\.sqlite: is missing\. Fix: restore it"),
    (emptied_ledger, "ledger", r"ledger\.sqlite: is not a ledger\. Fix: restore it"),
    (no_policy, "policy", r"policy\.toml: cannot be read .*Fix: check the path"),
    (
        policy_of_another_coordinator,
        "admission",
        r"is not the coordinator whom policy\.toml names\. Fix: put",
    ),
    (no_contract, "vault and contracts", r"none is approved.*Fix: seal the table: coterie partner seal"),
    (changed_contract, "vault and contracts", r"is not the contract that was approved\. Fix: remove it, and seal"),
    (cut_contract, "vault and contracts", r"is not the contract that was approved\. Fix: remove it, and seal"),
    (table_without_a_column, "vault and contracts", r"has no column spend\. Fix: seal the table"),
    (table_without_its_label, "vault and contracts", r"has no column bought\. Fix: seal the table"),
    (no_table, "vault and contracts", r"lacks the manifest that the ledger names.*Fix: restore the vault"),
    (damaged_table, "vault and contracts", r"is not a manifest of a vault.*Fix: restore the vault"),
    (plain_table, "hygiene", r"customers\.parquet: lies there in plain.*Fix: seal the table.*; then remove it"),
    (never_joined, "admission", r"has not joined a coordinator\. Fix: .*coterie partner request"),
    (other_node_key, "admission", r"node: cannot be read .*Fix: check its path"),
]


# What else cannot be tested then: the vault is opened by keys and ledger, and an admission is an identity's.
FOLLOWS = {
    damaged_identity: ("ledger", "vault and contracts", "admission"),
    short_group_key: ("ledger", "vault and contracts"),
    no_ledger: ("vault and contracts",),
    emptied_ledger: ("vault and contracts",),
}


@pytest.mark.parametrize(("harm", "name", "said"), HARMS, ids=[harm.__name__ for harm, _, _ in HARMS])
def test_each_fault_is_found_with_its_fix(bank, harm, name, said):
    harm(bank)
    failed = failures(bank)
    assert re.search(said, failed[name]), failed[name]
    assert "4711" not in " ".join(failed.values())
    assert set(failed) == {name, *FOLLOWS.get(harm, ())}


def test_several_faults_are_all_found(bank):
    for harm in (open_key, no_policy, no_table, never_joined):
        harm(bank)
    assert set(failures(bank)) == {"workspace", "policy", "vault and contracts", "admission"}


def test_a_folder_that_is_no_workspace_is_named(tmp_path):
    (check,) = found(Workspace(tmp_path)).values()
    assert not check.fine
    assert "is not a workspace. Fix: make one with: coterie partner init" in check.said
    assert list(tmp_path.iterdir()) == []


def test_the_keys_are_those_that_the_ledger_was_opened_with(bank):
    with Ledger(bank.ledger, now) as ledger:
        introduce(ledger, bank)
        size = ledger.size
    assert failures(bank) == {}
    (bank.root / "keys" / "groups.key").write_bytes(bytes(32))
    said = failures(bank)["ledger"]
    assert "groups.key: is not the key that the ledger was opened with. Fix: restore it." in said
    with Ledger(bank.ledger, now) as ledger:
        assert ledger.size == size


def test_checking_writes_nothing_of_its_own(bank):
    def files():
        return {path: path.read_bytes() for path in bank.root.rglob("*") if path.is_file() and path.suffix != ".sqlite"}

    def entries():
        with Ledger(bank.ledger, now) as ledger:
            return list(ledger.entries())

    before, written = files(), entries()
    found(bank, *NAMES, "dry round")
    assert files() == before
    assert entries() == written


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (31 * DAY, "admission.expires: has passed. Fix: renew it: coterie partner request"),
        (-DAY, "is more than an hour ahead of this machine's clock. Fix: set both clocks right"),
    ],
)
def test_an_admission_is_held_to_the_clock(bank, shift, said):
    assert said in failures(bank, clock=lambda: now() + shift)["admission"]
    assert failures(bank, clock=lambda: now() + 29 * DAY) == {}


def test_an_admission_for_another_bundle_is_found(site, bank):
    admitted(site, bank, bundle="sha256:" + "ab" * 32)
    assert "Fix: install the same version of coterie at both ends" in failures(bank)["admission"]


def test_another_flower_is_found(bank, monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.42.0" if name == "flwr" else real(name))
    said = failures(bank)["versions"]
    assert "flwr: is 1.42.0" in said
    assert "Fix: pip install 'flwr==1.41.*'" in said


@contextlib.contextmanager
def unprivileged():
    """Work as an ordinary user: for the superuser no folder is read-only."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_read_only_folder_is_found(bank, monkeypatch):
    monkeypatch.chdir(bank.root)  # the ordinary user may not walk here from the root of the disk
    bank.root.chmod(0o555)
    with unprivileged():
        check = found(Workspace(bank.root.relative_to(bank.root)), "disk")["disk"]
    assert not check.fine
    assert check.said == "run: cannot be used (Permission denied). Fix: check the path, its rights and the disk."


def test_a_disk_that_takes_nothing_is_found(bank):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        check = found(bank, "disk")["disk"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not check.fine
    assert "Fix: check the path, its rights and the disk." in check.said
    assert not (bank.run / "probe").exists()


def test_a_disk_with_little_room_is_found(bank, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=700 << 20))
    assert "has 700 MiB free of the 1024 it wants. Fix: make room." in failures(bank)["disk"]


YEAR = {"earliest": "2030-01-01", "latest": "2031-01-01"}
INTERACTIONS = Contract(customer="card", interactions=Interactions(item="ean", time="at", value="amount", **YEAR))


@pytest.mark.parametrize("missing", ["card", "ean", "at", "amount"])
def test_a_table_of_interactions_is_held_to_its_contract(bank, missing):
    bank.approve(INTERACTIONS)
    whole = pa.table({name: pa.array([], pa.string()) for name in ("card", "ean", "at", "amount", "more")})
    put(bank, whole, "interactions")
    assert "2 approved" in found(bank)["vault and contracts"].said
    put(bank, whole.drop_columns([missing]), "interactions")
    said = failures(bank)["vault and contracts"]
    assert f"interactions: has no column {missing}. Fix: seal the table" in said


def test_a_partner_that_only_matches_is_ready_with_sealed_identifiers_alone(bank):
    no_contract(bank)
    bank.approve_identifiers()
    assert "holds nothing sealed" in failures(bank)["vault and contracts"]
    put(
        bank, pa.table({"customer": ["a"], "kind": ["email"], "value": ["a@mail.example"], "rules": ["1"]}), IDENTIFIERS
    )
    said = found(bank, "vault and contracts")["vault and contracts"]
    assert said.fine
    assert "identifiers may be matched" in said.said


def test_what_is_approved_automatically_is_said(bank):
    assert "are approved by themselves" in found(bank)["policy"].said
    text = bank.policy.read_text()
    assert text.count("automatic_epsilon") == text.count("[approval]") == 1
    kept = [line for line in text.splitlines() if "automatic_epsilon" not in line and line != "[approval]"]
    bank.policy.write_text("\n".join(kept))
    assert "every plan waits for your approval" in found(bank)["policy"].said


def test_a_dry_round_that_cannot_be_made_is_found(bank, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    check = found(bank, "dry round")["dry round"]
    assert not check.fine
    assert "Fix: check the path, its rights and the disk." in check.said


def test_the_table_of_a_partner_holds_more_than_it_needs(bank):
    put(bank, table_of().append_column("extra", pa.array(["x"] * 150)))
    assert failures(bank) == {}
