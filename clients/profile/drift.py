"""How far columns have moved since an earlier profile.

The population stability index of two distributions p and q over the same bins is

    PSI = sum over bins of (p - q) ln(p / q),

Jeffreys' divergence (Jeffreys 1946; Kullback and Leibler 1951), which credit scoring took up under this name (Siddiqi
2006, "Credit Risk Scorecards") with its rule of thumb: below 0.1 little, above 0.25 much. Two samples of n and m rows
of one population have (B - 1)(1 / n + 1 / m) on average over B bins, which is told beside it (Yurdakul 2018,
"Statistical Properties of Population Stability Index": chi-squared with B - 1 degrees of freedom, times 1 / n + 1 / m).
An empty bin counts half a row.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coterie.clients.profile.facts import FORMAT, ColumnFacts, Drift
from coterie.privacy.errors import Fault, FileFault

__all__ = ["LITTLE", "MUCH", "drifts", "read_profile", "stability_index"]

LITTLE, MUCH = 0.1, 0.25
_LARGEST = 1 << 26  # bytes


def stability_index(before: Sequence[int], now: Sequence[int]) -> float:
    """Return the population stability index.

    Args:
        before: Rows of each bin, at least 0, one bin at least.
        now: Likewise, over the same bins.

    Returns:
        At least 0; 0 for equal shares.
    """
    old, new = _shares(before), _shares(now)
    return math.fsum((q - p) * math.log(q / p) for p, q in zip(old, new, strict=True))


def _shares(rows: Sequence[int]) -> list[float]:
    counts = [count or 0.5 for count in rows]
    return [count / math.fsum(counts) for count in counts]


def drifts(columns: Sequence[ColumnFacts], rows: int, earlier: Mapping[str, Any]) -> tuple[Drift, ...]:
    """Return how far each feature has moved; those whose bins or words are others than before are left out.

    Args:
        columns: Of the profile that is being made.
        rows: Its rows, at least 1.
        earlier: An earlier profile, as `read_profile` returns it.
    """
    before = {name: bins for one in earlier["columns"] for name, bins in [_earlier_bins(one)] if bins}
    found = []
    for column in columns:
        bins, old = _bins(column), before.get(column.name)
        if bins and old and list(bins) == list(old):
            now, then = list(bins.values()), list(old.values())
            chance = (len(bins) - 1) * (1 / rows + 1 / earlier["rows"])
            found.append(Drift(column=column.name, index=stability_index(then, now), chance=chance))
    return tuple(found)


def _bins(column: ColumnFacts) -> dict[str, int]:
    if column.numbers is not None:
        bins = {f"{one.low!r} to {one.high!r}": one.rows for one in column.numbers.bins}
    elif column.words is not None:
        bins = {f"word {one.word}": one.rows for one in column.words.words} | {"unknown": column.words.unknown}
    else:
        return {}
    return bins | {"missing": column.missing}


def _earlier_bins(column: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    if column["numbers"]:
        bins = {f"{float(one['low'])!r} to {float(one['high'])!r}": one["rows"] for one in column["numbers"]["bins"]}
    elif column["words"]:
        bins = {f"word {one['word']}": one["rows"] for one in column["words"]["words"]}
        bins["unknown"] = column["words"]["unknown"]
    else:
        return str(column["name"]), {}
    return str(column["name"]), bins | {"missing": column["missing"]}


def read_profile(path: Path) -> Mapping[str, Any]:
    """Read the JSON of an earlier profile.

    Raises:
        FileFault: It cannot be read, or is not a profile of this format.
    """
    fault = Fault(str(path), f"is not a profile ({FORMAT})", "give the profile.json of an earlier profile")
    try:
        if path.stat().st_size > _LARGEST:
            raise FileFault(fault)
        held = json.loads(path.read_bytes())
        if held["format"] != FORMAT or type(held["rows"]) is not int or held["rows"] < 1:
            raise FileFault(fault)
        counts = [count for one in held["columns"] for count in _earlier_bins(one)[1].values()]
    except OSError as error:
        rule = f"cannot be read ({error.strerror})"
        raise FileFault(Fault(str(path), rule, "check the path and its rights")) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FileFault(fault) from None
    if any(type(count) is not int or count < 0 for count in counts):
        raise FileFault(fault)
    return dict(held)
