"""The profile as a page: one HTML file that loads nothing, needs no script, and reads on a telephone and on paper."""

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from coterie.clients.profile.drift import LITTLE, MUCH
from coterie.clients.profile.facts import ColumnFacts, Profile
from coterie.clients.profile.people import FEW
from coterie.clients.profile.sketch import SAMPLE
from coterie.privacy.plain import plain

__all__ = ["render"]

_TOLD = {
    "stops": ("fails", "This table would stop a study: it breaks the contract."),
    "look": ("open", "Nothing stops a study. Some things deserve a look."),
    "fine": ("holds", "Nothing stops a study, and nothing stands out."),
}
_ROLES = {
    "customer": "names the customer",
    "label": "label",
    "feature": "feature",
    "item": "item",
    "time": "time",
    "value": "value",
    "other": "not in the contract",
}


@dataclass(frozen=True)
class _Bar:
    """One line of a distribution: a name, its rows, and their share of 100."""

    name: str
    rows: int
    share: float


def render(profile: Profile) -> str:
    """Draw the page.

    Args:
        profile: What it shows.

    Returns:
        A whole HTML document; the same for the same profile.
    """
    style, told = _style(), _TOLD[profile.verdict]
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html")
        .render(
            few=FEW,
            held=profile,
            judged=told[0],
            kept=SAMPLE,
            limits=(LITTLE, MUCH),
            policy=f"default-src 'none'; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'",
            roles=_ROLES,
            signed=[(column, sign) for column in profile.columns for sign in column.signs],
            style=Markup(style),  # noqa: S704 - the package's own files
            told=told[1],
        )
    )


def _bars(column: ColumnFacts) -> list[_Bar]:
    """Return a feature's distribution; each name in it is the contract's."""
    if column.numbers is not None:
        bins = column.numbers.bins
        ends = ["]" if place == len(bins) else ")" for place in range(1, len(bins) + 1)]
        pairs = [
            (f"[{_figure(one.low)}, {_figure(one.high)}{end}", one.rows) for one, end in zip(bins, ends, strict=True)
        ]
    elif column.words is not None:
        pairs = [(one.word, one.rows) for one in column.words.words]
        pairs.append(("outside the vocabulary", column.words.unknown))
    else:
        return []
    total = sum(rows for _, rows in pairs) or 1
    return [_Bar(name, rows, 100 * rows / total) for name, rows in pairs]


def _figure(number: float) -> str:
    return f"{number:,.6g}".replace("-", "\u2212")


def _count(number: int) -> str:
    return f"{number:,}"


def _share(rows: int, of: int) -> str:
    """Write a share so that little is never nothing, and nearly all never all."""
    if not of or not rows:
        return "0\u00a0%"
    share = 100 * rows / of
    if rows == of:
        return "100\u00a0%"
    if share < 0.1:
        return "<\u00a00.1\u00a0%"
    return f"{min(share, 99.9):.1f}\u00a0%"


def _joined(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plainly,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(bars=_bars, count=_count, figure=_figure, joined=_joined, share=_share)
    return environment


def _plainly(value: object) -> object:
    """Make names harmless beyond HTML's own escapes: signs that reverse or hide text become question marks."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\u00a0".join(plain(part) for part in value.split("\u00a0"))


@functools.cache
def _style() -> str:
    shared = files("coterie.privacy.review.page").joinpath("page.css").read_text(encoding="utf-8")
    return shared + _read("page.css")


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
