"""Identifiers of customers, each kind in one canonical form: what two partners must agree on for a match to find it.

The rules of each kind stand in its own module, and are specified in `docs/formats/identifiers.md`. Their version is
signed with every list: lists that were made by different rules are not matched. One thing is not part of it: a
character that a partner's Python does not know yet is rejected there, and cannot match.
"""

from coterie.privacy.matching.emails import email
from coterie.privacy.matching.errors import misused
from coterie.privacy.matching.forms import REASONS, Canonical
from coterie.privacy.matching.loyalty import loyalty
from coterie.privacy.matching.phones import metadata_version, phone

__all__ = ["KINDS", "REASONS", "RULES", "Canonical", "canonical", "item", "rules_version"]

KINDS = ("email", "phone", "loyalty")
RULES = "1"  # of the rules of all kinds: raised whenever one text gets another form
_ITEM = b"coterie/match/item/v1\x00"


def rules_version(kind: str) -> str:
    """Return the version of the rules by which identifiers of a kind are made.

    Args:
        kind: One of `KINDS`.

    Raises:
        MatchFault: There is no such kind.
    """
    _check(kind)
    return f"{RULES}+phonenumbers-{metadata_version()}" if kind == "phone" else RULES


def canonical(kind: str, text: str | None, *, region: str | None = None) -> Canonical:
    """Return the one form of an identifier, or the reason why it has none.

    Args:
        kind: One of `KINDS`.
        text: As the table has it; None where it has nothing.
        region: Country of telephone numbers that do not begin with +, two capital letters; other kinds have none.

    Raises:
        MatchFault: There is no such kind; or the region is given for another kind, or is not a country's.

    Guarantees:
        A canonical form's own canonical form is itself.
    """
    _check(kind)
    if kind == "phone":
        return phone(text, region)
    if region is not None:
        raise misused("a region is for telephone numbers alone")
    return email(text) if kind == "email" else loyalty(text)


def item(kind: str, value: str) -> bytes:
    """Return the bytes of an identifier that are hashed to the group; no two identifiers of any kinds share them.

    Args:
        kind: One of `KINDS`.
        value: A canonical form.

    Raises:
        MatchFault: There is no such kind, or the value cannot be written in UTF-8.
    """
    _check(kind)
    try:
        return _ITEM + kind.encode() + b"\x00" + value.encode()
    except UnicodeEncodeError:  # its text would hold the value
        raise misused("an identifier must be a canonical form") from None


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise misused(f"the kind of an identifier must be one of {', '.join(KINDS)}")
