"""The days of a table of interactions against the contract's first and last day."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coterie.clients.profile.facts import DayFacts
from coterie.clients.profile.hashing import texts_of
from coterie.privacy.contract import Interactions
from coterie.privacy.errors import Fault

__all__ = ["DayTally"]

_ISO_DATE = 10  # characters


class DayTally:
    """What was found of the days so far; a row without an item has none to keep.

    Args:
        rows: What the contract says of interactions.
    """

    def __init__(self, rows: Interactions) -> None:
        self._rows = rows
        self._earliest, self._latest = (datetime.date.fromisoformat(day) for day in (rows.earliest, rows.latest))
        self._undated = self._before = self._after = 0

    def add(self, items: pa.Array, times: pa.Array) -> None:
        """Take in some rows: their items and their times, shape (rows,) each."""
        named = items.is_valid().to_numpy(zero_copy_only=False)
        days, dated = _days(times)
        self._undated += int((named & ~dated).sum())
        self._before += int((named & dated & (days < np.datetime64(self._earliest))).sum())
        self._after += int((named & dated & (days > np.datetime64(self._latest))).sum())

    def facts(self) -> DayFacts:
        """Return what was found."""
        return DayFacts(undated=self._undated, before=self._before, after=self._after)

    def faults(self) -> list[Fault]:
        """Return what the contract does not let pass."""
        rows, place, found = self._rows, f"column {self._rows.time}", []
        if self._undated:
            rule = f"is missing or no date in {self._undated} rows with an item"
            found.append(Fault(place, rule, "write dates as 2025-01-31"))
        for count, words, day in ((self._after, "after", rows.latest), (self._before, "before", rows.earliest)):
            if count and rows.outside == "error":
                fix = 'correct them, or plan with outside = "drop"'
                found.append(Fault(place, f"lies {words} {day} in {count} rows", fix))
        return found


def _days(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return days, and where there is one; a text counts by the ISO date that it begins with."""
    texts = texts_of(column)
    if texts is None:
        return np.zeros(len(column), dtype="datetime64[D]"), np.zeros(len(column), dtype=np.bool_)
    dates = pc.strptime(pc.utf8_slice_codeunits(texts, 0, _ISO_DATE), format="%Y-%m-%d", unit="s", error_is_null=True)
    there = dates.is_valid().to_numpy(zero_copy_only=False)
    return pc.fill_null(dates, 0).to_numpy(zero_copy_only=False).astype("datetime64[D]"), there
