"""Days and times of a table of consents, as moments: a bare day is the whole day in UTC.

Read strictly, and at once for a whole column: what is no ISO 8601 day, or time with a zone, is counted and never
guessed at; a time without a zone would be another moment for another reader.
"""

import datetime
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.privacy.errors import Fault

__all__ = ["NEVER", "Times", "microseconds", "times_of", "unfit"]

NEVER = 2**63 - 1
"""The moment of an empty cell: after all others."""

_DAY = 86_400_000_000  # microseconds
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# Every day of the calendar from 1000 to 9999, and no other (leap years: the last line).
_DATE = (
    r"[1-9][0-9]{3}-(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
    r"|[1-9][0-9]{3}-(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|[1-9][0-9]{3}-02-(0[1-9]|1[0-9]|2[0-8])"
    r"|([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)-02-29"
)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
_ZONE = r"(Z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)"


@dataclass(frozen=True)
class Times:
    """Moments of a column, in microseconds since 1970 in UTC.

    Args:
        first: The first microsecond of each, shape (rows,); NEVER where the cell is empty or unreadable.
        last: The last one, shape (rows,): of a bare day, the day's last.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]


def microseconds(at: datetime.datetime) -> int:
    """Return a moment in microseconds since 1970 in UTC; it has a zone."""
    return (at - _EPOCH) // datetime.timedelta(microseconds=1)


def unfit(place: str, kind: pa.DataType) -> list[Fault]:
    """Return what keeps a column of this type from holding days, or times with a zone."""
    fix = "write 2031-05-04, or 2031-05-04T12:30:00Z with its zone"
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return [Fault(place, "holds times without a zone", fix)]
    fits = _textual(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)
    return [] if fits else [Fault(place, "must hold days, or times with a zone", fix)]


def times_of(column: pa.Array) -> tuple[Times, int]:
    """Read a column that is not `unfit`.

    Args:
        column: Texts, days, or times with a zone; a missing or empty cell is empty.

    Returns:
        The moments, and how many cells cannot be read.
    """
    if pa.types.is_date(column.type):
        return _of_days(pc.cast(column, pa.date32())), 0
    if pa.types.is_timestamp(column.type):
        return _of_moments(pc.cast(column, pa.timestamp("us", "UTC"), safe=False)), 0  # nanoseconds are cut off
    if pa.types.is_null(column.type):
        return _of_moments(pc.cast(column, pa.timestamp("us", "UTC"))), 0
    return _of_texts(pc.utf8_trim_whitespace(pc.cast(column, pa.large_string())))


def _of_texts(texts: pa.Array) -> tuple[Times, int]:
    filled = pc.if_else(pc.equal(texts, ""), None, texts)
    # Only what the patterns know is cast: a cast that failed would say one cell of all, and not how many.
    days = pc.if_else(pc.match_substring_regex(filled, f"^({_DATE})$"), filled, None)
    moments = pc.if_else(pc.match_substring_regex(filled, f"^({_DATE})[T ]{_CLOCK}{_ZONE}$"), filled, None)
    one, other = _of_days(pc.cast(days, pa.date32())), _of_moments(pc.cast(moments, pa.timestamp("us", "UTC")))
    times = Times(np.minimum(one.first, other.first), np.minimum(one.last, other.last))
    return times, days.null_count + moments.null_count - len(texts) - filled.null_count


def _of_days(days: pa.Array) -> Times:
    known = pc.is_valid(days).to_numpy(zero_copy_only=False)
    numbers = pc.fill_null(pc.cast(days, pa.int32()), 0).to_numpy().astype(np.int64)
    first = np.where(known, numbers * _DAY, NEVER)
    return Times(first, np.where(known, first + (_DAY - 1), NEVER))


def _of_moments(moments: pa.Array) -> Times:
    exact = pc.fill_null(pc.cast(moments, pa.int64()), NEVER).to_numpy()
    return Times(exact, exact)


def _textual(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
