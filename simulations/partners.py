"""Simulated partners: real workspaces, made from a source's tables, under a policy that fits the plan."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from flwr.app import Context

from coterie.clients.catalogues import write_catalogue
from coterie.clients.identifiers import Identified
from coterie.clients.identifying import take_in_identifiers
from coterie.clients.intake import take_in, take_in_interactions
from coterie.clients.tables.held import HeldTable
from coterie.clients.vault import Vault, open_vault
from coterie.clients.workspace import Workspace
from coterie.models.catalogue import Catalogue
from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.identity import Identity
from coterie.privacy.matching.identifiers import KINDS
from coterie.privacy.plan import COUNTS, Plan
from coterie.privacy.signed import SignedPlan, sign

__all__ = ["equip", "folder_of", "group_key_of", "partner_folders", "provision", "workspace_of"]

_EVALUATED = 10**9
"""Points that a simulated partner evaluates in a year: room for some matches, at which nobody guesses."""


def provision(
    root: Path,
    plan: Plan,
    tables: Mapping[str, pa.Table],
    *,
    seed: int,
    catalogue: Catalogue | None = None,
    identifiers: Mapping[str, pa.Table] | None = None,
) -> SignedPlan:
    """Make a coordinator and a workspace for each partner, or find those that an interrupted run left.

    Args:
        root: Folder of one simulated federation.
        plan: The study, without keys.
        tables: The partners' tables by name.
        seed: Decides which customers are held out, alike at all partners; it has no part in any noise.
        catalogue: The items of a plan that recommends.
        identifiers: The partners' tables of identifiers by name, for a plan that matches.

    Returns:
        The signed plan, with the partners' keys in its roster.

    Raises:
        FileFault: The plan's roster and the source's partners differ.
    """
    names = {partner.name for partner in plan.partners}
    held = (identifiers or {}) if plan.matches else tables
    if names != set(held):
        rule = "must name the partners of the source: " + ", ".join(sorted(held))
        raise FileFault(Fault("partners", rule, "correct the study file"))
    coordinator = root / "coordinator"
    stored = coordinator / "plan.json"
    key = coordinator / "identity.pem"
    if stored.exists():
        return SignedPlan.from_bytes(stored.read_bytes(), coordinator=Identity.load(key).public)
    coordinator.mkdir(parents=True, exist_ok=True)
    identity = Identity.create()
    key.unlink(missing_ok=True)
    identity.save(key)
    public = identity.public
    keyed = equip(root, plan, tables, seed=seed, catalogue=catalogue, identifiers=identifiers, coordinator=public)
    signed = sign(keyed, identity)
    write_durably(stored, signed.to_bytes())
    return signed


def equip(  # noqa: PLR0913 - all of it is the edge of the program
    root: Path,
    plan: Plan,
    tables: Mapping[str, pa.Table],
    *,
    seed: int,
    coordinator: str,
    catalogue: Catalogue | None = None,
    identifiers: Mapping[str, pa.Table] | None = None,
) -> Plan:
    """Make a workspace for each partner, with its tables in the vault and a policy that fits the plan.

    Args:
        root: Folder of one federation; workspaces are made in its folder `partners`.
        plan: The study, without keys.
        tables: The partners' tables by name; none for a plan that matches and nothing else.
        seed: Decides which customers are held out, alike at all partners; it has no part in any noise.
        coordinator: The public key that the policies pin.
        catalogue: The items of a plan that recommends.
        identifiers: The partners' tables of identifiers by name, for a plan that matches.

    Returns:
        The plan, with the partners' keys in its roster.
    """
    group_key = group_key_of(seed)
    workspaces = {
        partner.name: _workspace(root / "partners" / folder_of(partner.name), partner.name, group_key)
        for partner in plan.partners
    }
    keyed = tuple(dataclasses.replace(p, key=workspaces[p.name].identity.public) for p in plan.partners)
    for name, workspace in workspaces.items():
        with open_vault(workspace.root, now) as vault:
            if not plan.matches:
                _seal(vault, HeldTable(tables[name], f"the table of {name}"), plan, catalogue)
            if plan.matching is not None and identifiers is not None:
                own = identifiers[name]
                where = Identified(plan.contract.customer, {kind: kind for kind in KINDS if kind in own.schema.names})
                take_in_identifiers(vault, HeldTable(own, f"the identifiers of {name}"), where)
        peers = {partner.name: partner.key for partner in keyed if partner.name != name}
        write_durably(workspace.policy, _policy(plan, coordinator, peers).encode())
    return dataclasses.replace(plan, partners=keyed)


def _seal(vault: Vault, source: HeldTable, plan: Plan, catalogue: Catalogue | None) -> None:
    """Seal the table that a plan trains on."""
    if catalogue is None:
        take_in(vault, source, plan.contract)
        return
    items = vault.workspace.root / "items.parquet"
    write_catalogue(catalogue, items)
    take_in_interactions(vault, source, plan, items)
    items.unlink()


def group_key_of(seed: int) -> bytes:
    """Return the key that decides who is held out at every partner of a seed."""
    return hashlib.sha256(f"coterie/simulated-groups/v1/{seed}".encode()).digest()


def folder_of(name: str) -> str:
    """Return a partner's name as the name of its folder; different names have different folders."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "partner"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def partner_folders(root: Path, plan: Plan) -> list[Path]:
    """Return the partners' workspaces in the roster's order."""
    return [root / "partners" / folder_of(partner.name) for partner in plan.partners]


def workspace_of(folders: tuple[Path, ...], context: Context) -> Path:
    """Find the workspace of a simulated node by its partition."""
    return folders[int(str(context.node_config["partition-id"]))]


def _workspace(folder: Path, name: str, group_key: bytes) -> Workspace:
    # An interruption before the plan was signed may have left a workspace that nobody has used yet.
    return Workspace(folder) if folder.exists() else Workspace.create(folder, name, group_key=group_key)


def _policy(plan: Plan, coordinator: str, peers: Mapping[str, str]) -> str:
    """Write a policy that permits just this plan, several times over a life."""
    pinned = "".join(f"{_quoted(name)} = {_quoted(key)}\n" for name, key in peers.items())
    rows = plan.contract.interactions
    named = [rows.item, rows.time, *([rows.value] if rows.value else [])] if rows else []
    columns = ", ".join(_quoted(name) for name in [*(column.name for column in plan.contract.columns), *named])
    labels = _quoted(plan.contract.label) if plan.contract.label else ""
    special = ", ".join(_quoted(column.name) for column in plan.contract.columns if column.sensitivity == "special")
    return f"""# The rules of a simulated partner: they permit this study, and five or so like it over a life.
coordinator = {_quoted(coordinator)}
customer = {_quoted(plan.contract.customer)}
labels = [{labels}]
purposes = [{_quoted(plan.purpose)}]
columns = [{columns}]
special = [{special}]
families = [{"" if plan.matches else _quoted(plan.model.family)}]
trust = [{_quoted(plan.privacy.trust)}]
minimum_partners = {len(plan.partners)}
minimum_customers = {plan.cohort.minimum_customers}

[budget]
study_epsilon = {plan.privacy.epsilon}
lifetime_epsilon = {6 * plan.privacy.epsilon}
delta = {plan.privacy.delta}

[approval]
automatic_epsilon = {plan.privacy.epsilon}
{"disclosures = true" if plan.discloses else ""}

[consent.elsewhere]
{_quoted(plan.purpose)} = "simulation: made-up or public customers, whom nobody could ask"

[peers]
{pinned}{_match_rules(plan)}"""


def _match_rules(plan: Plan) -> str:
    """Return the part of a policy that permits a plan's match, and a few like it a year."""
    match = plan.matching
    if match is None:
        return ""
    return f"""
[matching]
outcomes = [{_quoted(match.outcome)}]
identifiers = [{_quoted(match.identifier)}]
evaluations = {_EVALUATED}
disclosures = {0 if match.outcome == COUNTS else 6}
least = {match.least}
"""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
