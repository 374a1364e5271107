"""From matplotlib to an inline SVG: deterministic, free of addresses, and alone in its ids."""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from coterie.simulations.report.palette import GRID, INK, QUIET

__all__ = ["Sheet", "draw", "end_labels", "short"]

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.labelcolor": QUIET,
    "axes.labelsize": 12.5,
    "axes.linewidth": 1.0,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "font.family": "DejaVu Sans",  # shipped with matplotlib, so that every machine lays out alike
    "font.size": 12.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "svg.fonttype": "none",  # real text: it can be searched, and is set in the page's own font
    "svg.hashsalt": "coterie",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a partner's name is a dollar sign
    "xtick.color": GRID,
    "xtick.labelcolor": QUIET,
    "ytick.color": GRID,
    "ytick.labelcolor": QUIET,
}
_POINTS = 72
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn on.

    Args:
        name: Prefix of the ids inside the figure, unique on the page.
        alt: What the figure shows, for a reader who does not see it.
        width: In CSS pixels, at which the text has its natural size.
        height: Likewise.
    """

    name: str
    alt: str
    width: int = 480
    height: int = 320


def draw(sheet: Sheet, paint: Callable[[Axes], None]) -> Markup:
    """Paint one set of axes and return it as an SVG element.

    Args:
        sheet: Name, description and size of the figure.
        paint: Draws on the axes that it is given.

    Returns:
        The element, sized by the page's style sheet.
    """
    with _style():
        figure = Figure(figsize=(sheet.width / _POINTS, sheet.height / _POINTS), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        axes.tick_params(length=0)
        paint(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    return _inline(stream.getvalue(), sheet)


def end_labels(axes: Axes, labels: Sequence[tuple[float, str, str]], *, room: float = 0.062) -> None:
    """Label lines at the right edge, moved apart where they would overlap.

    Args:
        axes: Axes whose limits are settled.
        labels: Height in data units, text and colour of each label.
        room: Share of the axes' height that one label needs.
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)  # the leaders below must not move the limits that they are placed by
    heights = [(height - low) / (high - low) for height, _, _ in labels]
    for (_, text, colour), height, place in zip(labels, heights, _apart(heights, room), strict=True):
        axes.plot([1.0, 1.03], [height, place], color=colour, lw=0.8, transform=axes.transAxes, clip_on=False)
        axes.text(1.04, place, text, color=colour, va="center", transform=axes.transAxes)


def short(text: str, length: int = 30) -> str:
    """Cut a name to what a figure has room for, on one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


@contextmanager
def _style() -> Iterator[None]:
    with rc_context(_STYLE), warnings.catch_warnings():
        # The browser sets the text, so a glyph that the measuring font lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _inline(document: str, sheet: Sheet) -> Markup:
    head, body = document[document.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the whole page
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', body))
    for name in set(re.findall(r'\bid="([^"]*)"', body)) - used:
        body = body.replace(f' id="{name}"', "")
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{sheet.name}-", body)
    opening = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="{}">')
    # Markup by right: matplotlib escapes every text that it writes.
    return opening.format(sheet.alt, box.group(1) if box else "") + Markup(body.strip())  # noqa: S704


def _apart(heights: Sequence[float], room: float) -> list[float]:
    """Move heights as little as possible (least squares) so that each pair is `room` apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    blocks: list[list[float]] = []
    for rank, index in enumerate(order):
        blocks.append([heights[index] - rank * room])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            tail = blocks.pop()
            blocks[-1] += tail
    levels = [fmean(block) for block in blocks for _ in block]
    placed = [0.0] * len(heights)
    for rank, (index, level) in enumerate(zip(order, levels, strict=True)):
        placed[index] = level + rank * room
    return placed
