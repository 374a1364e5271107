"""What makes a column look as if it told who somebody is: one test of a text for each kind, and when a column counts.

Rules this module enforces:
- a test sees one text and keeps nothing; what a column is called is looked at in `naming.py`, apart from this;
- a column counts when the share of a sample that passes reaches the kind's threshold, and so many would not pass by
  chance: with n values of which m pass, and chance p, below exp(-n D(m/n, p)) < 1e-6 (Hoeffding 1963, theorem 1);
- a kind whose shape says little by itself (`weak`) counts only where the column's name says the same.
"""

import datetime
import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import phonenumbers

from coterie.clients.profile import checkdigits

__all__ = ["DETECTORS", "Detector", "bare", "counts", "share_of"]

_UNLIKELY = 1e-6
_REGIONS = ("GB", "DE", "FR", "IT", "ES", "NL", "US", "IN", "CN")  # whose national numbers are known
_EMAIL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}\b")
_PHONE = re.compile(r"[+(]?[\d ()./-]{7,24}")
_SEPARATORS = str.maketrans("", "", " -.\u00a0")
_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ].*)?|(\d\d?)[./-](\d\d?)[./-](\d{4})")
_PLACE = re.compile(r"\(?\s*-?\d{1,2}\.\d{3,}\s*[,; ]\s*-?\d{1,3}\.\d{3,}\s*\)?")
_DEGREES = re.compile(r"-?(1[0-7]\d|\d{1,2})\.\d{3,}")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '\u2019-][^\W\d_]+\.?){0,4}")
_BORN_BEFORE, _BORN_AFTER = 2015, 1900  # years in which people who are customers were born


@dataclass(frozen=True)
class Detector:
    """One kind of thing that a column may hold.

    Args:
        kind: What it is, in words.
        matches: Tells whether one text is it.
        threshold: Share of the sample from which on a column counts, in (0, 1].
        chance: Share of other texts of that shape that pass too, in (0, 1).
        note: When it is wrong.
        weak: Whether the column's name must say it too.
        most: Values of the sample that are tested at most.
        bare: Whether the test sees texts without separators, as `bare` returns them.
    """

    kind: str
    matches: Callable[[str], bool]
    threshold: float
    chance: float
    note: str
    weak: bool = False
    most: int = 2000
    bare: bool = False


def share_of(detector: Detector, sample: Sequence[str]) -> tuple[int, int]:
    """Return how many values of a sample pass, and how many were tested.

    Args:
        detector: The test.
        sample: Different values of a column, in random order; as `bare` returns them where the detector wants it so.
    """
    tested = sample[: detector.most]
    return sum(map(detector.matches, tested)), len(tested)


def bare(text: str) -> str:
    """Return a text without the separators that people write into numbers, and without the ".0" of a float."""
    return text.removesuffix(".0").translate(_SEPARATORS).upper()


def counts(detector: Detector, passed: int, tested: int) -> bool:
    """Return whether so many passes are enough, and more than chance; `weak` is the caller's to look at."""
    if not passed or passed / tested < detector.threshold:
        return False
    share, chance = passed / tested, detector.chance
    if share <= chance:
        return False
    rest = (1 - share) * math.log((1 - share) / (1 - chance)) if share < 1 else 0.0
    return math.exp(-tested * (share * math.log(share / chance) + rest)) < _UNLIKELY


def _email(text: str) -> bool:
    return "@" in text and _EMAIL.search(text) is not None


def _international_phone(text: str) -> bool:
    return text.startswith(("+", "00")) and _phone(re.sub("^00", "+", text), None)


def _national_phone(text: str) -> bool:
    return not text.startswith("+") and any(_phone(text, region) for region in _REGIONS)


def _phone(text: str, region: str | None) -> bool:
    if not _PHONE.fullmatch(text):
        return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


def _hyphenated_ssn(text: str) -> bool:
    return re.fullmatch(r"\d{3}-\d\d-\d{4}", text) is not None and checkdigits.ssn(bare(text))


def _address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _birthday(text: str) -> bool:
    found = _DAY.fullmatch(text)
    if found is None:
        return False
    year, month, day, first, second, last = (int(part or 0) for part in found.groups())
    year = year or last
    ways = [(month, day)] if month else [(first, second), (second, first)]
    return _BORN_AFTER <= year < _BORN_BEFORE and any(_is_day(year, m, d) for m, d in ways)


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return True


def _named(text: str) -> bool:
    return len(text) > 1 and text[:1].isupper() and _WORDS.fullmatch(text) is not None


def _told(text: str) -> bool:
    return len(text) > 30 and len(text.split()) > 5


def _kind(kind: str, check: Callable[[str], bool], chance: float, note: str, **terms: float) -> Detector:
    return Detector(kind, check, terms.get("threshold", 0.5), chance, note, bare=True)


_ONE_IN_TEN = "One in ten numbers of that length keeps the check digit by chance"

DETECTORS: tuple[Detector, ...] = (
    Detector(
        "e-mail address",
        _email,
        0.005,
        1e-4,
        "Handles of messengers that hold an @ and a full stop pass too.",
        most=20_000,
    ),
    Detector(
        "telephone number, international",
        _international_phone,
        0.02,
        1e-3,
        "A code that begins with 00 can pass; one with a plus hardly ever.",
    ),
    Detector(
        "telephone number, national",
        _national_phone,
        0.5,
        0.3,
        "Many whole numbers of 8 to 11 digits are somebody's number: it counts only where the column's name says so.",
        weak=True,
        most=1000,
    ),
    _kind("payment card", checkdigits.card, 0.1, f"{_ONE_IN_TEN}, if it begins as cards do."),
    _kind("bank account (IBAN)", checkdigits.iban, 0.011, "One in 97 of that shape passes by chance.", threshold=0.05),
    Detector(
        "social security number (US)",
        _hyphenated_ssn,
        0.5,
        0.01,
        "It has no check digit: any number written 3-2-4 passes but for areas that are never given.",
    ),
    Detector(
        "social security number (US), without hyphens",
        checkdigits.ssn,
        0.5,
        0.3,
        "Nine in ten numbers of nine digits pass: it counts only where the column's name says so.",
        weak=True,
        bare=True,
    ),
    _kind("National Insurance number (UK)", checkdigits.nino, 0.01, "It has no check digit; its shape is rare."),
    _kind("DNI or NIE (Spain)", checkdigits.spanish_identity, 0.044, "One in 23 of that shape passes by chance."),
    _kind("codice fiscale (Italy)", checkdigits.codice_fiscale, 0.04, "One in 26 of that shape passes by chance."),
    _kind("NIR (France)", checkdigits.nir, 0.011, "One in 97 of that shape passes by chance."),
    _kind("Steuer-ID (Germany)", checkdigits.steuer_id, 0.1, f"{_ONE_IN_TEN}, if one digit comes twice or thrice."),
    _kind("resident identity number (China)", checkdigits.resident_identity, 0.091, "One in eleven with a day passes."),
    _kind("Aadhaar number (India)", checkdigits.aadhaar, 0.1, f"{_ONE_IN_TEN}, if it begins with 2 to 9."),
    Detector("IP address", _address, 0.5, 0.01, "Version numbers of four parts pass too."),
    Detector(
        "date of birth",
        _birthday,
        0.9,
        0.1,
        "Any column of days between 1900 and 2014 passes: it counts only where the column's name says so.",
        weak=True,
    ),
    Detector(
        "geographic position", lambda text: _PLACE.fullmatch(text) is not None, 0.5, 0.01, "Pairs of numbers pass."
    ),
    Detector(
        "latitude or longitude",
        lambda text: _DEGREES.fullmatch(text) is not None,
        0.5,
        0.2,
        "Any number below 180 with three decimals passes: it counts only where the column's name says so.",
        weak=True,
    ),
    Detector(
        "name of a person",
        _named,
        0.5,
        0.3,
        "Words with a capital letter pass: it counts only where the column's name says so.",
        weak=True,
    ),
    Detector("free text", _told, 0.2, 0.01, "Long titles of products pass too."),
)
