"""A fact about a study: what it is about, what is so, and what that rests on."""

from dataclasses import dataclass

__all__ = ["BASES", "DECLARED", "RECOMPUTED", "TOPICS", "VERIFIED", "Fact"]

RECOMPUTED, VERIFIED, DECLARED = "recomputed", "verified", "declared"
BASES = (RECOMPUTED, VERIFIED, DECLARED)

TOPICS: tuple[str, ...] = (
    "verdict",
    "unit",
    "contribution bound",
    "neighbouring relation",
    "guarantee",
    "zero-concentrated differential privacy",
    "privacy profile",
    "composition inside the study",
    "composition across studies",
    "sampling",
    "trust",
    "several partners",
    "randomness",
    "floating point",
    "public inputs",
    "tuning",
    "metrics",
    "retention",
    "encryption at rest",
    "software",
    "not covered",
    "cannot be proved",
)
"""Every topic, in order; each has at least one fact, whatever the bundle lacks."""


@dataclass(frozen=True)
class Fact:
    """One fact.

    Args:
        topic: One of `TOPICS`.
        name: What it is about.
        value: What is so, in plain text; nothing in it can steer a terminal.
        basis: One of `BASES`.
    """

    topic: str
    name: str
    value: str
    basis: str
