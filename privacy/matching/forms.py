"""What becomes of an identifier as somebody wrote it: one canonical text, or the reason why it is rejected.

Nothing is guessed: what is not clearly an identifier of its kind is rejected, counted and left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["LONGEST", "REASONS", "SPACES", "Canonical", "accepted", "rejected", "trimmed"]

LONGEST = 254  # characters of an identifier; an address may have as many bytes (RFC 5321, section 4.5.3.1.3)

# Every reason says nothing of the text but the rule that it breaks.
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "empty": "there is no identifier",
        "too-long": f"it has more than {LONGEST} characters",
        "hidden-characters": "it has control, invisible or unassigned characters, or spaces that are not plain ones",
        "not-an-address": "it is not one e-mail address: a local part, @, and a domain with a dot",
        "no-region": "it is a national telephone number, and the contract names no region for it",
        "not-a-number": "it is not written as a telephone number",
        "not-valid": "no telephone number is given out like that (phonenumbers, is_valid_number)",
        "second": "the customer has another identifier of this kind",
    }
)

# White space that tables have around their cells; what else is invisible is not trimmed but rejected.
SPACES = "\t\n\v\f\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


@dataclass(frozen=True)
class Canonical:
    """An identifier's canonical form, or why it has none.

    Args:
        value: The form that is equal for equal identifiers; None where the text is rejected. No log shows it.
        reason: A key of `REASONS` where the text is rejected; "" where it is not.
    """

    value: str | None = field(repr=False)
    reason: str


def accepted(value: str) -> Canonical:
    """Return the form of a text that is an identifier."""
    return Canonical(value, "")


def rejected(reason: str) -> Canonical:
    """Return what becomes of a text that is rejected for a key of `REASONS`."""
    return Canonical(None, reason)


def trimmed(text: str | None) -> tuple[str, str]:
    """Return a text without white space around it, and "" or the reason why no kind of identifier takes it.

    Args:
        text: As the table has it; None where it has nothing.
    """
    inner = (text or "").strip(SPACES)
    if not inner:
        return "", "empty"
    if len(inner) > LONGEST:
        return "", "too-long"
    # Everything of Unicode's categories C and Z but the plain space, surrogates and NUL among them.
    return (inner, "") if inner.isprintable() else ("", "hidden-characters")
