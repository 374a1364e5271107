"""One form for a loyalty programme's identifier: as it is written, but for the grouping of a card's digits.

1. It is brought into Unicode's form NFC, and white space around it is dropped. Small and capital letters stay: two
   customers' identifiers may differ in nothing else.
2. Where it is 8 to 19 ASCII digits, which is what a card has (ISO/IEC 7812-1), in groups with a plain space or a hyphen
   between, the groups are joined: a card is printed `6335 1234 5678 9010` and stored as one number.
3. Everywhere else spaces and hyphens stay. Without knowing the programme nobody can say whether `AB-1 2` is `AB12`;
   partners that write one identifier in two ways must agree on one before they seal it. Leading zeros stay too.
"""

import re
import unicodedata

from coterie.privacy.matching.forms import LONGEST, Canonical, accepted, rejected, trimmed

__all__ = ["loyalty"]

_GROUPED = re.compile(r"[0-9]+(?:[ -][0-9]+)+")
_LEAST, _MOST = 8, 19  # digits of a card


def loyalty(text: str | None) -> Canonical:
    """Return a loyalty identifier's canonical form.

    Args:
        text: As the table has it; None where it has nothing.
    """
    inner, reason = trimmed(text)
    if reason:
        return rejected(reason)
    value = inner if inner.isascii() else unicodedata.normalize("NFC", inner)
    if len(value) > LONGEST:
        return rejected("too-long")
    digits = value.replace(" ", "").replace("-", "")
    if _GROUPED.fullmatch(value) and _LEAST <= len(digits) <= _MOST:
        return accepted(digits)
    return accepted(value)
