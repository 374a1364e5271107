"""Check digits and letters of numbers that name a person, an account or a card.

Each function takes a text without separators and returns whether it keeps the rule. What a random text of the right
shape keeps by chance is said beside the detectors that use them.
"""

import datetime
import re

__all__ = [
    "aadhaar",
    "card",
    "codice_fiscale",
    "iban",
    "nino",
    "nir",
    "resident_identity",
    "spanish_identity",
    "ssn",
    "steuer_id",
]

_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"  # by the number modulo 23
# Values of signs in odd places (1st, 3rd, ...), 0 to 9 and then A to Z.
_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_ODD_LETTERS = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_TAX = re.compile(r"[A-Z]{6}[0-9LMNPQRSTUV]{2}[ABCDEHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]")
_NATIONAL_INSURANCE = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")
_SOCIAL = re.compile(r"(?!000|666|9)\d{3}(?!00)\d{2}(?!0000)\d{4}")
# Leading digits that card schemes have: Visa, Mastercard, American Express, Discover, JCB, UnionPay, Diners, Maestro.
_SCHEMES = re.compile(r"4|5[0-9]|6[0-9]|2(22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[047]|3[689]|35(2[89]|[3-8])")
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
_FRENCH = re.compile(r"[1-478]\d{4}(\d\d|2A|2B)\d{8}")


def card(text: str) -> bool:
    """Payment card: 13 to 19 digits, a scheme's first digits, Luhn's check digit (ISO/IEC 7812-1, annex B)."""
    if not (_digits(text) and 13 <= len(text) <= 19 and _SCHEMES.match(text)):
        return False
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(text))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def iban(text: str) -> bool:
    """Bank account: country, two check digits, 11 to 30 signs; 1 modulo 97 (ISO 13616-1, ISO/IEC 7064 MOD 97-10)."""
    if not _IBAN.fullmatch(text):
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def ssn(text: str) -> bool:
    """United States: nine digits; area not 000, 666 or 9xx, group not 00, serial not 0000 (SSA, since 2011)."""
    return text.isascii() and _SOCIAL.fullmatch(text) is not None


def nino(text: str) -> bool:
    """United Kingdom: two letters but for those never given, six digits, A to D (HMRC manual NIM39110)."""
    return text.isascii() and _NATIONAL_INSURANCE.fullmatch(text) is not None


def spanish_identity(text: str) -> bool:
    """Spain: DNI, eight digits and a letter, or NIE, X, Y or Z, seven digits and a letter; the number modulo 23."""
    number = text[:1].translate(str.maketrans("XYZ", "012")) + text[1:8]
    return len(text) == 9 and _digits(number) and text[8] == _LETTERS[int(number) % 23]


def codice_fiscale(text: str) -> bool:
    """Italy: 16 signs, the last a letter of the others (decree of 23 December 1976)."""
    if not _TAX.fullmatch(text):
        return False
    total = sum(_odd(sign) if place % 2 == 0 else _even(sign) for place, sign in enumerate(text[:15]))
    return text[15] == chr(ord("A") + total % 26)


def nir(text: str) -> bool:
    """France: 13 signs and a key of two digits, 97 less the number modulo 97; 2A and 2B count as 19 and 18."""
    if not (text.isascii() and _FRENCH.fullmatch(text)):
        return False
    number = text[:13].replace("2A", "19").replace("2B", "18")
    return 97 - int(number) % 97 == int(text[13:])


def steuer_id(text: str) -> bool:
    """Germany: eleven digits, of the first ten one comes twice or thrice; ISO/IEC 7064 MOD 11,10 (AO, section 139b)."""
    if not _digits(text) or len(text) != 11 or text[0] == "0":
        return False
    often = sorted(text[:10].count(digit) for digit in set(text[:10]))
    if often[-1] not in {2, 3} or often[-2] != 1:
        return False
    product = 10
    for digit in text[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(text[10])


def resident_identity(text: str) -> bool:
    """China: region, day of birth, serial, check sign of ISO/IEC 7064 MOD 11-2 (GB 11643-1999)."""
    if len(text) != 18 or not _digits(text[:17]) or text[17] not in "0123456789X" or text[0] == "0":
        return False
    try:
        born = datetime.date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    value = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17]))
    return 1850 <= born.year <= 2100 and "10X98765432"[value % 11] == text[17]


def aadhaar(text: str) -> bool:
    """India: twelve digits, the first 2 to 9, Verhoeff's check digit (1969)."""
    if not _digits(text) or len(text) != 12 or text[0] in "01":
        return False
    check = 0
    for place, digit in enumerate(reversed(text)):
        check = _dihedral(check, _turned(place % 8, int(digit)))
    return check == 0


def _dihedral(left: int, right: int) -> int:
    """The product of the dihedral group of ten elements: 0 to 4 are turns, 5 to 9 are reflections."""
    turn = left + right if left < 5 else left - right
    return turn % 5 + (5 if (left < 5) != (right < 5) else 0)


def _turned(times: int, digit: int) -> int:
    for _ in range(times):
        digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
    return digit


def _odd(sign: str) -> int:
    return _ODD[int(sign)] if sign.isdigit() else _ODD_LETTERS[ord(sign) - ord("A")]


def _even(sign: str) -> int:
    return int(sign) if sign.isdigit() else ord(sign) - ord("A")


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
