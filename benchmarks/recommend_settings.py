"""The settings of `recommend.py`, frozen before its test items were looked at, and how many were tried."""

from collections.abc import Mapping
from typing import Any

__all__ = ["CONTENT", "FAMILIES", "KINDS", "TRIED", "settings_of"]

CONTENT = "+content"
"""Behind a family's name: with the local content term."""

KINDS = ("popularity", "item-gram", "ials", "two-tower", "mf-bpr", "mf-softmax", "neumf")
FAMILIES = tuple(name for kind in KINDS for name in (kind, kind + CONTENT))

TRIED = {
    "movies": "on validation items, with 1 to 8 noise seeds each: about 1,320 settings times epsilon for item-gram, "
    "popularity and content, about 1,000 for ials, 27 for the trained families",
    "baskets": "on validation items, mostly of 2,500 to 4,000 customers: about 650 settings times epsilon for "
    "item-gram, popularity and content; ials and the trained families have those of movies",
}

_GRAM: Mapping[tuple[str, float], Mapping[str, Any]] = {
    ("movies", 1.0): {"counts": 0.7, "keep": 100, "ridge": 0.02, "rank": 64},
    ("movies", 2.0): {"counts": 0.7, "keep": 200, "ridge": 0.02, "rank": 64},
    ("movies", 4.0): {"counts": 0.2, "keep": 500, "ridge": 0.02, "rank": 64},
    ("movies", 8.0): {"counts": 0.2, "keep": 700, "ridge": 0.02, "rank": 64},
    ("baskets", 1.0): {"counts": 0.1, "keep": 400, "ridge": 0.03, "rank": 64},
    ("baskets", 2.0): {"counts": 0.1, "keep": 500, "ridge": 0.03, "rank": 64},
    ("baskets", 4.0): {"counts": 0.1, "keep": 1000, "ridge": 0.02, "rank": 64},
    ("baskets", 8.0): {"counts": 0.1, "keep": 700, "ridge": 0.01, "rank": 256},
}
_TASTE = {"movies": 0.6, "baskets": 0.5}
_STEPS = {1.0: (6, 4, 0.5), 2.0: (20, 8, 0.5), 4.0: (20, 8, 0.3), 8.0: (40, 8, 0.2)}
"""For the trained families: steps, dimension, and the share of the budget for popularity."""


def settings_of(data: str, family: str, epsilon: float) -> dict[str, Any]:
    """Return what a plan changes of the defaults: parts `training`, `recommendation` and `secure`."""
    kind = family.removesuffix(CONTENT)
    taste = {"content": _TASTE[data]} if family.endswith(CONTENT) else {}
    if kind == "popularity":
        return {"recommendation": taste}
    if kind == "item-gram":
        return {"recommendation": {**_GRAM[data, epsilon], **taste}}
    if kind == "ials":
        wide = epsilon in {1.0, 8.0}
        how = {"keep": 700, "dimension": 16 if wide else 8, "ridge": 0.03 if epsilon == 1.0 else 0.01, **taste}
        return {"training": {"rounds": 2}, "recommendation": how}
    steps, dimension, counts = _STEPS[epsilon]
    sampled = {"sample_rate": 0.1} if data == "baskets" else {}
    return {
        "training": {"rounds": steps, "learning_rate": 60.0 if kind == "mf-bpr" else 20.0, "clip": 0.3, **sampled},
        "recommendation": {"dimension": dimension, "negatives": 256, "counts": counts, **taste},
        "secure": {"averaging": 0.9},
    }
