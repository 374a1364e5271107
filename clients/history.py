"""What a partner's ledger says of the partner itself, and how it is held to what was seen of it outside.

A ledger alone cannot show that it was put back to an older state. The coordinator keeps the last checkpoint that it
saw and shows it with every question; a ledger that does not extend it answers nothing (PRIVACY rule 21).
"""

import hashlib
import hmac
from pathlib import Path

from coterie.clients.refusals import refused
from coterie.clients.workspace import Workspace
from coterie.privacy.canonical import digest
from coterie.privacy.checkpoint import read_note
from coterie.privacy.errors import Fault, FileFault, LedgerFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.policy import Policy, read_rules
from coterie.privacy.shapes import FORMAT

__all__ = ["hold_to", "introduce", "note_policy"]

_GROUPS = b"coterie/groups-commitment/v1\n"


def introduce(ledger: Ledger, workspace: Workspace) -> None:
    """Write down once whose ledger it is, and hold the workspace's keys to it from then on.

    Args:
        ledger: Open; entries that are there already were carried over from version 1.
        workspace: Whose name and keys they are.

    Raises:
        FileFault: The identity or the key that decides customer groups is not the one of before: with other groups,
            customers would move between budgets.
    """
    key = workspace.identity.public
    groups = "sha256:" + hmac.new(workspace.group_key, _GROUPS, hashlib.sha256).hexdigest()
    opened = next(ledger.entries("opened"), None)
    if opened is None:
        body = {"format": FORMAT, "partner": workspace.name, "key": key, "groups": groups, "carried": ledger.size}
        ledger.record("opened", body)
        return
    for name, now, file in (("key", key, "identity.pem"), ("groups", groups, "groups.key")):
        if opened.body[name] != now:
            place = str(workspace.root / "keys" / file)
            raise FileFault(Fault(place, "is not the key that the ledger was opened with", "restore it"))


def note_policy(ledger: Ledger, path: Path) -> tuple[Policy, str]:
    """Read the partner's rules once, and write them down in full where they are not the last ones written down.

    Returns:
        The rules, and their digest.

    Raises:
        FileFault: The policy is missing or breaks its schema.
    """
    policy, content = read_rules(path)
    named = digest(content)
    last = None
    for entry in ledger.entries("policy"):
        last = entry.body["policy"]
    if last != named:
        ledger.record("policy", {"policy": named, "content": content})
    return policy, named


def hold_to(ledger: Ledger, note: str, *, partner: str, coordinator: str) -> None:
    """Check that the ledger extends a checkpoint of it that the coordinator cosigned, and keep that checkpoint.

    Args:
        ledger: Open.
        note: What the coordinator showed; "" for nothing.
        partner: The partner's public key, which signed the checkpoint.
        coordinator: The coordinator's.

    Raises:
        TaskRefused: It is no such checkpoint, the ledger does not extend it, or nothing was shown by a coordinator
            that has cosigned before.
    """
    fix = "restore the newest ledger; an older one would give the budget back"
    if not note:
        if ledger.cosigned_by(coordinator):
            rule = "shows none of the checkpoints that it cosigned"
            raise refused("rollback", "the coordinator", rule, "ask it to restore them")
        return
    try:
        seen, cosigned = read_note(note, partner=partner, coordinators=(coordinator,))
    except LedgerFault as error:
        raise refused("rollback", "the coordinator's checkpoint", error.faults[0].rule, "compare keys") from None
    if not cosigned:
        raise refused("rollback", "the coordinator's checkpoint", "is not cosigned", "ask the coordinator")
    if seen.size > ledger.size or ledger.root(seen.size) != seen.root:
        raise refused("rollback", "the ledger", "does not extend what the coordinator saw of it", fix)
    ledger.keep_checkpoint(seen.size, note, coordinator)
