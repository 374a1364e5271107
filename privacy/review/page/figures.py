"""The page's two figures, as inline SVG that takes its colours from the page: they follow light, dark and print."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from coterie.privacy.review.page.wording import day, percent, short, visible

__all__ = ["Bar", "Line", "burn_down", "timeline"]

_WIDTH, _HEIGHT = 460, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 76, 14, 28  # margins of a burn-down
_LOOKS = {"training": 0, "holdout": 1}
_ROW, _NAMES, _WIDE = 34, 190, 960


@dataclass(frozen=True)
class Line:
    """How much of a budget one group of customers had left.

    Args:
        group: Its name.
        steps: (place of a charge in [0, 1], part of the budget that was left after it), in order.
    """

    group: str
    steps: tuple[tuple[float, float], ...]

    @property
    def look(self) -> int:
        """Which of the style sheet's looks the line has; a group's name is the ledger's, and no class."""
        return _LOOKS.get(self.group, 2)


@dataclass(frozen=True)
class Bar:
    """One study in time.

    Args:
        name: The study's.
        start: When consent was given.
        end: The last day on which the partner may work for it.
        charges: When it was charged.
        models: When its model was received.
    """

    name: str
    start: datetime.datetime
    end: datetime.datetime
    charges: tuple[datetime.datetime, ...]
    models: tuple[datetime.datetime, ...]


def burn_down(name: str, lines: Sequence[Line], *, title: str, ends: tuple[str, str]) -> Markup:
    """Draw how a budget went.

    Args:
        name: Prefix of the ids in the figure, unique on the page.
        lines: One a group.
        title: What it shows.
        ends: What stands at the left and the right end of the axis.

    Returns:
        An SVG element with title and description.
    """
    inner = (_WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
    parts = [_grid(inner)]
    told = []
    for line, place in zip(lines, _apart([_left(line) for line in lines]), strict=True):
        parts.append(_step_line(line, inner))
        said = f"{percent(_left(line))} left"
        told.append(f"{line.group} customers: {said} after {len(line.steps)} charges shown")
        height = _TOP + (1 - place) * inner[1]
        label = Markup('<text class="t-{}" x="{:.1f}" y="{:.1f}">{}</text>')
        across = _WIDTH - _RIGHT + 8
        parts.append(label.format(line.look, across, height - 3, visible(short(line.group, 10))))
        parts.append(label.format(line.look, across, height + 11, said))
    for anchor, across, text in (("start", _LEFT, ends[0]), ("end", _WIDTH - _RIGHT, ends[1])):
        tick = Markup('<text text-anchor="{}" x="{}" y="{}">{}</text>')
        parts.append(tick.format(anchor, across, _HEIGHT - 8, visible(text)))
    return _svg(name, (_WIDTH, _HEIGHT), parts, said=(title, "; ".join(told) or "nothing was charged"))


def timeline(name: str, bars: Sequence[Bar], *, title: str) -> Markup:
    """Draw studies from consent to expiry, with their charges and models.

    Args:
        name: As in `burn_down`.
        bars: One a study.
        title: What it shows.

    Returns:
        An SVG element with title and description.
    """
    first = min(bar.start for bar in bars)
    last = max((when for bar in bars for when in (bar.start, bar.end, *bar.charges, *bar.models)), default=first)
    length = max(1.0, (last - first).total_seconds())
    room = _WIDE - _NAMES - 16

    def at(when: datetime.datetime) -> float:
        return _NAMES + room * max(0.0, (when - first).total_seconds()) / length

    parts = []
    for row, bar in enumerate(bars):
        middle = _TOP + row * _ROW + _ROW / 2
        parts.append(
            Markup('<text x="0" y="{:.1f}">{}</text>').format(middle + 4, visible(short(bar.name, 26)))
            + Markup('<rect class="b-life" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="10" rx="5"/>').format(
                at(bar.start), middle - 5, max(10.0, at(bar.end) - at(bar.start))
            )
        )
        charge = Markup('<line class="b-charge" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
        places = sorted({round(at(when), 1) for when in bar.charges})
        parts += [charge.format(place, middle - 10, middle + 10) for place in places]
        model = Markup('<path class="b-model" d="M{:.1f} {:.1f}l6 6-6 6-6-6z"/>')
        parts += [model.format(place, middle - 6) for place in sorted({round(at(when), 1) for when in bar.models})]
    height = _TOP + len(bars) * _ROW + _BOTTOM
    for anchor, across, when in (("start", _NAMES, first), ("end", _WIDE - 16, last)):
        tick = Markup('<text text-anchor="{}" x="{}" y="{}">{}</text>')
        parts.append(tick.format(anchor, across, height - 8, day(when.isoformat())))
    told = "; ".join(f"{bar.name}: {day(bar.start.isoformat())} to {day(bar.end.isoformat())}" for bar in bars)
    return _svg(name, (_WIDE, height), parts, said=(title, told))


def _left(line: Line) -> float:
    return line.steps[-1][1] if line.steps else 1.0


def _apart(heights: Sequence[float]) -> list[float]:
    """Move labels apart where they would overlap, and into the figure."""
    room = 0.17
    places = [0.0] * len(heights)
    top = 1.0
    for index in sorted(range(len(heights)), key=lambda i: -heights[i]):
        places[index] = min(top, max(0.06, heights[index]))
        top = places[index] - room
    low = min(places, default=0.06)
    return [place + max(0.0, 0.06 - low) for place in places]


def _grid(inner: tuple[int, int]) -> Markup:
    parts = Markup("")
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        height = _TOP + (1 - part) * inner[1]
        mark = Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        parts += mark.format("axis" if part == 0 else "grid", _LEFT, _LEFT + inner[0], height, height)
        label = Markup('<text text-anchor="end" x="{}" y="{:.1f}">{:.0f} %</text>')
        parts += label.format(_LEFT - 6, height + 4, 100 * part)
    return parts


def _step_line(line: Line, inner: tuple[int, int]) -> Markup:
    path, height = [f"M{_LEFT} {_TOP}"], float(_TOP)
    for across, left in line.steps:
        place = _LEFT + across * inner[0]
        after = _TOP + (1 - min(1.0, max(0.0, left))) * inner[1]
        path.append(f"H{place:.1f}V{after:.1f}")
        height = after
    path.append(f"H{_LEFT + inner[0]}")
    end = Markup('<circle class="l-{}" cx="{}" cy="{:.1f}" r="3.5"/>').format(line.look, _LEFT + inner[0], height)
    return Markup('<path class="l-{}" d="{}"/>').format(line.look, "".join(path)) + end


def _svg(name: str, size: tuple[int, int], parts: Iterable[Markup], *, said: tuple[str, str]) -> Markup:
    opening = Markup(
        '<svg class="chart" role="img" viewBox="0 0 {} {}" aria-labelledby="{}-t {}-d">'
        '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
    ).format(*size, name, name, name, visible(said[0]), name, visible(said[1]))
    return opening + Markup("").join(parts) + Markup("</svg>")
