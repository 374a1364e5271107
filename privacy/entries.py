"""Entries of the ledger: what each may say, held to the shapes, and the bytes that the tree commits to.

The same shapes hold in three places: the ledger writes by them, the export lets nothing else leave, and the reviewer
believes nothing else. Meanings never change; kinds and optional fields are added.
"""

from typing import Any

from coterie.privacy.canonical import canonical
from coterie.privacy.charges import Charge, Entry
from coterie.privacy.errors import Fault, LedgerFault
from coterie.privacy.events import event_to_dict
from coterie.privacy.merkle import leaf_hash
from coterie.privacy.shapes import SHAPES

__all__ = ["charge_body", "check_entry", "entry_bytes", "leaf_of"]

# Names that an entry of a kind must have, and may have.
_NAMES = {kind: (shape.fields.keys() - shape.optional, shape.fields.keys()) for kind, shape in SHAPES.items()}


def check_entry(entry: Entry) -> None:
    """Check that an entry is of a known kind and says exactly what entries of its kind say.

    Raises:
        LedgerFault: It does not; the fault names the entry and the field, never a value.
    """
    shape = SHAPES.get(entry.kind)
    if shape is None:
        raise LedgerFault(Fault(f"entry {entry.seq}", "is of an unknown kind", "use a newer coterie"))
    body = entry.body
    required, allowed = _NAMES[entry.kind]
    if required <= body.keys() <= allowed and all(shape.fields[name](value) for name, value in body.items()):
        return
    unknown = sorted(set(body) - set(shape.fields))
    missing = sorted(set(shape.fields) - set(body) - shape.optional)
    wrong = sorted(name for name, holds in shape.fields.items() if name in body and not holds(body[name]))
    for names, rule in ((unknown, "has unknown fields"), (missing, "lacks fields"), (wrong, "has fields out of range")):
        if names:
            known = ", ".join(name for name in names if name in shape.fields) or f"{len(names)}"
            raise LedgerFault(Fault(f"entry {entry.seq} ({entry.kind})", f"{rule}: {known}", "ask for it again"))


def entry_bytes(entry: Entry, body: bytes = b"") -> bytes:
    """Return what the tree commits to: the entry's canonical JSON (RFC 8785).

    Args:
        entry: The entry.
        body: The canonical JSON of its body, where the caller has it.
    """
    at, kind, salt = (canonical(text) for text in (entry.at, entry.kind, entry.salt))
    fields = (at, body or canonical(entry.body), kind, salt, entry.seq)
    return b'{"at":%b,"body":%b,"kind":%b,"salt":%b,"seq":%d}' % fields


def leaf_of(entry: Entry) -> bytes:
    """Return the hash of an entry's leaf."""
    return leaf_hash(entry_bytes(entry))


def charge_body(charge: Charge, rows: str = "") -> dict[str, Any]:
    """Return the body of the entry that reserves a charge.

    Args:
        charge: What is reserved.
        rows: Commitment to what was opened for it; "" for none.

    Raises:
        LedgerFault: `rows` is something else; written, it could never be exported.
    """
    if rows and not SHAPES["reserve"].fields["rows"](rows):
        raise LedgerFault(Fault("the commitment to rows", "is no digest", "give what was kept of the counts"))
    body: dict[str, Any] = {
        "plan": charge.plan,
        "purpose": charge.purpose,
        "step": charge.step,
        "attempt": charge.attempt,
        "group": charge.group,
        "event": event_to_dict(charge.event),
        "random": charge.random,
    }
    body |= {"segments": list(charge.segments)} if charge.segments else {}
    return body | ({"rows": rows} if rows else {})
