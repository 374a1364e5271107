"""The bias review of a recommender, for an ethics board: whom it serves how well, and which items it shows.

Exact, so in a simulation alone. Groups are public: items by an attribute of the catalogue, customers by partner and by
how many items they have, at round numbers.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.models import rankbias
from coterie.models.catalogue import NAME, SEPARATOR, Catalogue
from coterie.simulations.rankexact import Served, span

__all__ = ["item_groups", "review"]

_MOST_GROUPS = 12
_OTHERS, _NONE = "all others", "not stated"
_EDGES = (10, 30, 100)
"""Items that customers have, where one group ends and the next begins."""


def item_groups(catalogue: Catalogue) -> tuple[str, tuple[str, ...]] | None:
    """Return a public attribute and the group of each item by it; None where no attribute divides the items.

    It is the attribute of words with the fewest different ones, at least 2, where each item goes by its first word. The
    groups with most items of the catalogue are named, and the rest are together.
    """
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for name in sorted(set(catalogue.attributes) - {NAME}):
        cells = catalogue.attributes[name]
        if isinstance(cells, tuple):
            words = tuple(cell.split(SEPARATOR)[0].strip() or _NONE for cell in cells)
            found += [(len(set(words)), name, words)] if len(set(words)) > 1 else []
    if not found:
        return None
    _, attribute, words = min(found)
    counts = Counter(words)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    kept = set(ordered if len(ordered) <= _MOST_GROUPS else ordered[: _MOST_GROUPS - 1])
    return attribute, tuple(word if word in kept else _OTHERS for word in words)


def review(
    served: Mapping[str, Served],
    lengths: Mapping[str, NDArray[np.int64]],
    held: NDArray[np.int64],
    *,
    popularity: NDArray[np.float64],
    catalogue: Catalogue,
) -> dict[str, Any]:
    """Return the bias review of one model.

    Args:
        served: What each partner's customers get that were asked about.
        lengths: How many items each of these has, by partner.
        held: Their held-out items, all partners' one after the other.
        popularity: How many customers have each item, shape (items,).
        catalogue: The items.

    Returns:
        As "review" in `docs/formats/report.md`.
    """
    values = np.concatenate([part.values for part in served.values()])
    partner = [name for name, part in served.items() for _ in part.values]
    size = np.digitize(np.concatenate(list(lengths.values())), _EDGES)
    customers = {"partner": _quality(values, partner), "items before": _quality(values, [_sizes()[at] for at in size])}
    groups = item_groups(catalogue)
    if groups is None:
        return {"attribute": None, "items": [], "customers": customers}
    attribute, words = groups
    customers[f"{attribute} of the item looked for"] = _quality(values, [words[item] for item in held])
    shown = rankbias.exposure(np.concatenate([part.lists for part in served.values()]), len(catalogue))
    shares = rankbias.exposure_by_group(shown, popularity, words)
    items = [
        {"group": name, "catalogue": one.catalogue, "popularity": one.popularity, "exposure": one.exposure}
        for name, one in sorted(shares.items(), key=lambda pair: (pair[0] == _OTHERS, -pair[1].popularity))
    ]
    return {"attribute": attribute, "items": items, "customers": customers}


def _quality(values: NDArray[np.float64], groups: list[str]) -> list[dict[str, Any]]:
    found = rankbias.quality_by_group(values, groups)
    order = _sizes()
    ranked = sorted(found, key=lambda name: (order.index(name) if name in order else -1, name == _OTHERS, name))
    return [{"group": name, "customers": found[name].customers, **_held_in(span(found[name]))} for name in ranked]


def _held_in(figure: dict[str, float | None]) -> dict[str, float | None]:
    """Return an interval of a share within 0 and 1, where the normal approximation leaves them."""
    return {name: None if value is None else min(max(value, 0.0), 1.0) for name, value in figure.items()}


def _sizes() -> tuple[str, ...]:
    """Return the names of the groups by the number of items, in their order."""
    between = [f"{low} to {high - 1}" for low, high in itertools.pairwise(_EDGES)]
    return (f"under {_EDGES[0]}", *between, f"{_EDGES[-1]} or more")
