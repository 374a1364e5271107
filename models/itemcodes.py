"""Item codes that several partners can mean the same thing by: GTINs, or the words of an agreed taxonomy.

A code has one normal form, so that "4006381333931" in one partner's table and "04006381333931" in another's are one
item. A GTIN is kept at 14 digits, filled with zeros on the left (GS1 General Specifications, section 3 and 7.9); a
taxonomy's code is kept as it is written, in Unicode's form NFC and without white space at its ends.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "LONGEST_CODE", "NormalCodes", "normal_codes", "normal_text", "unprintable"]

KINDS = ("gtin", "taxonomy")
"""What the codes of a catalogue may be."""

LONGEST_CODE = 100
"""Greatest length of a code, in characters."""

_GTIN_LENGTHS = frozenset({8, 12, 13, 14})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class NormalCodes:
    """Codes in their normal form; its `repr` shows none of them.

    Args:
        codes: The normal form of each, "" for what is no code of this kind.
        refused: What is wrong -> how many codes it is wrong with; empty when all are good.
    """

    codes: list[str]
    refused: Mapping[str, int]

    def __repr__(self) -> str:
        """Return a text without any code."""
        return "NormalCodes(...)"


def normal_codes(texts: Sequence[str], kind: str) -> NormalCodes:
    """Bring codes into their normal form.

    Args:
        texts: Codes as they are written.
        kind: One of `KINDS`.

    Returns:
        As many codes, and how many were refused and why.

    Raises:
        ValueError: No such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is not one of {', '.join(KINDS)}")
    trimmed = [normal_text(text) for text in texts]
    refused: Counter[str] = Counter()
    empty = trimmed.count("")
    if empty:
        refused["are empty"] = empty
    codes = _gtins(trimmed, refused) if kind == "gtin" else _taxonomy(trimmed, refused)
    return NormalCodes(codes, dict(refused))


def normal_text(text: str) -> str:
    """Return a text in form NFC, without white space at its ends."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def unprintable(text: str) -> bool:
    """Return whether a text holds a control character, or half a character."""
    return _CONTROL.search(text) is not None


def _taxonomy(texts: list[str], refused: Counter[str]) -> list[str]:
    codes = []
    for text in texts:
        if len(text) > LONGEST_CODE:
            refused[f"are longer than {LONGEST_CODE} characters"] += 1
        elif unprintable(text):
            refused["hold control characters"] += 1
        else:
            codes.append(text)
            continue
        codes.append("")
    return codes


def _gtins(texts: list[str], refused: Counter[str]) -> list[str]:
    codes = [
        text.rjust(14, "0") if len(text) in _GTIN_LENGTHS and text.isascii() and text.isdigit() else ""
        for text in texts
    ]
    candidates = np.array([place for place, code in enumerate(codes) if code], dtype=np.int64)
    misshapen = sum(1 for text in texts if text) - len(candidates)
    if misshapen:
        refused["are not 8, 12, 13 or 14 digits"] = misshapen
    wrong = candidates[~_checks([code for code in codes if code])]
    for place in wrong:
        codes[place] = ""
    if len(wrong):
        refused["have a wrong check digit"] = len(wrong)
    return codes


def _checks(codes: list[str]) -> NDArray[np.bool_]:
    """Return whether each code's last digit is the one that the others ask for.

    Digits weigh 3 and 1 by turns, so that the last one weighs 1, and a code's weighted sum is a multiple of 10 (GS1
    General Specifications, section 7.9.1).
    """
    digits = np.array(codes, dtype="S14").view(np.uint8).reshape(len(codes), 14) - ord("0")
    whole = 3 * digits[:, ::2].sum(axis=1, dtype=np.int64) + digits[:, 1::2].sum(axis=1, dtype=np.int64)
    checks: NDArray[np.bool_] = whole % 10 == 0
    return checks
