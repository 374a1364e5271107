"""One form for an e-mail address: the rules of UID2, in Unicode's form NFC, with domains as the wire has them.

1. White space around it is dropped and letters are made small (UID2, "Email Address Normalization").
2. At gmail.com alone, dots of the local part and all that follows its first + are dropped (UID2, as above). Everywhere
   else both stay: `+work` may be another person's.
3. What is not an address of RFC 5321, section 4.1.2 (a dotted local part; quoted ones are rejected), with the letters
   of RFC 6531, is rejected.
4. A domain that is not ASCII is written with the A-labels of RFC 5890, which is how others write it already. Letters
   that the domain name system would map to others (full-width ones among them) are rejected.

`googlemail.com` stays itself, as UID2 has it. Nothing else about a provider is known here: no aliases, no guesses.
"""

import re
import unicodedata

from coterie.privacy.matching.forms import LONGEST, Canonical, accepted, rejected, trimmed

__all__ = ["email"]

_LOCAL_LONGEST = 64  # bytes, RFC 5321, section 4.5.3.1.1
_LABEL_LONGEST = 63  # bytes, RFC 1035, section 2.3.4
_NOT_LOCAL = re.compile(r"""[\s()<>\[\]:;@\\,"]""")  # RFC 5322, section 3.2.3: specials, but the dot
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")  # RFC 1123, section 2.1
_PREFIX = "xn--"  # of A-labels, RFC 5890, section 2.3.2.1


def email(text: str | None) -> Canonical:
    """Return an e-mail address's canonical form.

    Args:
        text: As the table has it; None where it has nothing.
    """
    inner, reason = trimmed(text)
    if reason:
        return rejected(reason)
    local, at, written = _lower(inner).rpartition("@")
    domain = _domain(written)
    if not at or domain is None or not _is_local(local):
        return rejected("not-an-address")
    if domain == "gmail.com":
        local = local.partition("+")[0].replace(".", "")
    found = f"{local}@{domain}"
    if not local or len(found.encode()) > LONGEST:
        return rejected("not-an-address")
    return accepted(found)


def _lower(text: str) -> str:
    # Small letters may compose anew: İ becomes two characters.
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _is_local(local: str) -> bool:
    dotted = all(local.split("."))  # no dot at an end, nor two together
    return dotted and not _NOT_LOCAL.search(local) and len(local.encode()) <= _LOCAL_LONGEST


def _domain(written: str) -> str | None:
    """Return a domain of small letters as its labels on the wire, or None if it is not one."""
    labels = [_label(label) for label in written.split(".")]
    if len(labels) < 2 or None in labels:
        return None
    # A domain's last label is no number: 192.0.2.1 is an address of a machine (RFC 3696, section 2).
    return None if str(labels[-1]).isdigit() else ".".join(map(str, labels))


def _label(label: str) -> str | None:
    if not label.isascii():
        return _a_label(label)
    if not _LABEL.fullmatch(label) or len(label) > _LABEL_LONGEST:
        return None
    if not label.startswith(_PREFIX):
        return label
    try:
        meant = label[len(_PREFIX) :].encode("ascii").decode("punycode")
    except UnicodeError:  # its text would hold the label
        return None
    # An A-label is the one that its own U-label has: nobody else's letters hide in it.
    return label if not meant.isascii() and _lower(meant) == meant and _a_label(meant) == label else None


def _a_label(label: str) -> str | None:
    """Return the A-label of letters, marks and digits that nothing maps to others (RFC 5892, sections 2.1 and 2.2)."""
    stable = unicodedata.normalize("NFKC", label) == label
    known = all(character == "-" or unicodedata.category(character)[0] in "LMN" for character in label)
    if not stable or not known or label[0] == "-" or label[-1] == "-" or unicodedata.category(label[0])[0] == "M":
        return None
    found = _PREFIX + label.encode("punycode").decode("ascii")
    return found if len(found) <= _LABEL_LONGEST else None
