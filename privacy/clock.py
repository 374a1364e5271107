"""The clock at the edges; inside, it is an argument."""

import datetime

__all__ = ["now"]


def now() -> datetime.datetime:
    """Return the time in UTC."""
    return datetime.datetime.now(datetime.UTC)
