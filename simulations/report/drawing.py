"""Pieces of hand-drawn SVG: text that is escaped, figures of counts, and the element around them."""

from collections.abc import Iterable

from markupsafe import Markup

from coterie.privacy.matching.overlap import Estimate
from coterie.privacy.plain import plain
from coterie.simulations.report.palette import INK, QUIET, WHITE

__all__ = ["HUES", "counted", "estimate", "label", "named", "room_of", "svg", "text"]

HUES = ("#0a5ca8", "#b3470b", "#00705a")
"""Of up to three circles; each stays apart from the others under the common colour-vision deficiencies."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', Arial, sans-serif"
_WIDE = 0.6  # of the font's size: what a sign takes, with room to spare


def counted(one: Estimate, least: int) -> str:
    """Write a noisy count; one that is below the least says no more than that."""
    return f"below {least:,}" if one.customers is None else f"{one.customers:,}"


def named(name: str, length: int = 24) -> str:
    """Cut a partner's name to what a figure has room for, on one line, without signs that act on the reader."""
    line = " ".join(plain(name).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def room_of(told: str, size: float) -> float:
    """Return how many pixels a text takes at most, near enough."""
    return _WIDE * size * len(told)


def text(told: str, x: float, y: float, *, size: float = 14, anchor: str = "middle", colour: str = INK) -> Markup:
    """Return a line of text.

    Args:
        told: What it says; escaped here.
        x: Where, in pixels.
        y: Its baseline.
        size: Of the font, in pixels.
        anchor: "start", "middle" or "end".
        colour: Of the text.
    """
    element = Markup('<text x="{:.1f}" y="{:.1f}" font-size="{:g}" text-anchor="{}" fill="{}">{}</text>')
    return element.format(x, y, size, anchor, colour, told)


def label(told: str, x: float, y: float, *, size: float = 14, colour: str = INK) -> Markup:
    """Return a heavier line of text, centred."""
    element = Markup(
        '<text x="{:.1f}" y="{:.1f}" font-size="{:g}" text-anchor="middle" font-weight="650" fill="{}">{}</text>'
    )
    return element.format(x, y, size, colour, told)


def estimate(one: Estimate, x: float, y: float, *, least: int) -> Markup:
    """Return a noisy count, and one standard deviation of its noise below it."""
    if one.customers is None:
        return text(f"below {least:,}", x, y + 5, size=13, colour=QUIET)
    deviation = text(f"± {one.deviation:,.0f}", x, y + 18, size=12, colour=QUIET)
    told = f"{one.customers:,}"
    return label(told, x, y + 2, size=18 if len(told) < 9 else 15) + deviation


def svg(size: tuple[float, float], parts: Iterable[Markup], *, said: str) -> Markup:
    """Return a whole picture, which stands by itself and inside a page.

    Args:
        size: Width and height in pixels.
        parts: What is drawn.
        said: What it shows, for a reader who does not see it.
    """
    opening = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{}" viewBox="0 0 {:.0f} {:.0f}" '
        'font-family="{}" style="max-width:{:.0f}px"><rect width="100%" height="100%" fill="{}"/>'
    ).format(said, *size, _FONT, size[0], WHITE)
    return opening + Markup("").join(parts) + Markup("</svg>")
