"""How the page writes figures, times and the words of strangers."""

import datetime
import math
import re

from markupsafe import Markup, escape

__all__ = ["day", "epsilon", "instant", "moment", "percent", "short", "ticked", "tidy", "visible"]

_TICKED = re.compile(r"`([^`]*)`")


def visible(text: str) -> str:
    """Return a text in which nothing acts on the reader: controls, reversed writing and invisible signs are named."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else f"⟨U+{ord(sign):04X}⟩" for sign in text)


def tidy(value: object) -> object:
    """Make every text that a template prints `visible`; what is markup already is the page's own."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def percent(part: float) -> str:
    """Write a part as a percentage; what is not nothing and not all is never rounded to it."""
    if not math.isfinite(part):
        return "more than all"
    if 0 < part < 0.001:
        return "< 0.1 %"
    if 0.999 < part < 1:
        return "> 99.9 %"
    return f"{100 * part:.1f} %"


def epsilon(value: float | None) -> str:
    """Write an epsilon, or a delta."""
    return "–" if value is None else re.sub(r"e([+-])0*(\d)", r"e\1\2", f"{value:.4g}")


def instant(at: str) -> datetime.datetime | None:
    """Return the time that a text says, in UTC where it names no zone; None where it says none."""
    try:
        found = datetime.datetime.fromisoformat(at)
        return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def moment(at: str) -> str:
    """Write a time to the second, or as it is where it cannot be read."""
    found = instant(at)
    return at if found is None else f"{found:%Y-%m-%d %H:%M:%S} UTC"


def day(at: str) -> str:
    """Write the day of a time, or the time as it is where it cannot be read."""
    found = instant(at)
    return at if found is None else f"{found:%Y-%m-%d}"


def short(text: str, most: int = 60) -> str:
    """Cut a text to what there is room for."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def ticked(text: str) -> Markup:
    """Return a sentence in which what stands between backticks is set as code."""
    return Markup(_TICKED.sub(r"<code>\1</code>", str(escape(visible(text)))))  # noqa: S704 - escaped before
