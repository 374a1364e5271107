"""One form for a telephone number: E.164, as `phonenumbers` finds it, and only if such a number is given out.

A number begins with + or needs the region that the contract names. It is written in digits, grouped by spaces, dots,
hyphens and brackets, or by one stroke; an extension after it is dropped. Words before it, letters in place of digits
and several numbers in one cell are rejected (901820/21 is two numbers: after a stroke come 5 digits or more). A reader
of telephone numbers would guess.

`is_possible_number` is not enough: it takes 555-0100 in the United States, or 65 1243 5678 in Singapore, for numbers of
people. What is valid changes with the library's metadata, so its version is part of the rules' version.
"""

import re

from coterie.privacy.matching.errors import misused
from coterie.privacy.matching.forms import SPACES, Canonical, accepted, rejected, trimmed

__all__ = ["metadata_version", "phone"]

_NUMBER = re.compile(
    r"(?P<main>[+\uff0b]?[\d ().\u2010-\u2015-]{1,40}?(?:/ ?\d[\d .\u2010-\u2015-]{4,20}?)?)"
    r"(?:[,;]? ?(?:ext(?:ension|n)?[.=]?|x|\#) ?\d{1,9})?",
    flags=re.IGNORECASE,
)
_PLAIN = str.maketrans(dict.fromkeys(SPACES, " "))


def metadata_version() -> str:
    """Return the version of the library that knows which numbers there are."""
    import phonenumbers  # noqa: PLC0415 - loaded only where telephone numbers are matched

    return str(phonenumbers.__version__)


def phone(text: str | None, region: str | None = None) -> Canonical:
    """Return a telephone number's canonical form: + and at most 15 digits.

    Args:
        text: As the table has it; None where it has nothing.
        region: Country of numbers that do not begin with +, two capital letters (ISO 3166-1); None if all do.

    Raises:
        MatchFault: The region is not one that `phonenumbers` knows.
    """
    import phonenumbers  # noqa: PLC0415 - as above

    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        raise misused("a region must be two capital letters of a country that has telephone numbers")
    # Some countries group digits with spaces that do not break a line.
    inner, reason = trimmed((text or "").translate(_PLAIN))
    if reason:
        return rejected(reason)
    written = _NUMBER.fullmatch(inner)
    if written is None:
        return rejected("not-a-number")
    main = written["main"]
    if region is None and main[0] not in "+\uff0b":
        return rejected("no-region")
    try:
        found = phonenumbers.parse(main, region)
    except phonenumbers.NumberParseException:  # its text would hold the number
        return rejected("not-a-number")
    if not phonenumbers.is_valid_number(found):
        return rejected("not-valid")
    return accepted(phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164))
