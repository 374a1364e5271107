"""The page itself: verdicts, proofs and an outlook in, one HTML file out.

Whatever a bundle says is a stranger's word. Every value is escaped, invisible and reversing signs are named, nothing of
it becomes a class, a link or a script, and a content policy lets the browser run only the two pieces that are the
package's own.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from coterie.privacy.release import CODES
from coterie.privacy.review.holding import erasure_words, source_words
from coterie.privacy.review.page.content import BY_HAND, Reviewed, content_of
from coterie.privacy.review.page.wording import day, epsilon, moment, percent, ticked, tidy
from coterie.privacy.review.proofs import LARGEST
from coterie.privacy.review.verdict import Check
from coterie.privacy.review.verify import CANNOT_PROVE

__all__ = ["content_policy", "render"]

_WORDS = {"holds": "holds", "fails": "fails", "open": "not decided"}
_TOLD = {
    "holds": "VERIFIED: nothing contradicts what the partners claim, alone or together",
    "fails": "FAILED: at least one bundle, or what they tell together, does not hold",
    "open": "CANNOT BE DECIDED: something could not be looked at",
}


def render(reviewed: Sequence[Reviewed], *, crossed: Sequence[Check] = ()) -> str:
    """Draw the page.

    Args:
        reviewed: One for each bundle, in the order of the page.
        crossed: What holding the bundles against each other found.

    Returns:
        A whole HTML document that loads nothing; the same for the same arguments.

    Raises:
        ValueError: There is no bundle.
    """
    if not reviewed:
        raise ValueError("a page is about one bundle at least")
    statuses = {one.verdict.status for one in reviewed} | {check.status for check in crossed}
    overall = next((status for status in ("fails", "open") if status in statuses), "holds")
    names = [one.verdict.partner for one in reviewed]
    page = _environment().get_template("page.html")
    return page.render(
        by_hand=BY_HAND,
        cannot_prove=CANNOT_PROVE,
        codes=CODES,
        crossed=crossed,
        largest=LARGEST,
        looks={"training": 0, "holdout": 1},
        overall=overall,
        partners=[content_of(one, number) for number, one in enumerate(reviewed, start=1)],
        policy=content_policy(),
        script=Markup(_read("page.js")),  # noqa: S704 - the package's own file
        style=Markup(_read("page.css")),  # noqa: S704 - likewise
        title=names[0] if len(names) == 1 else ", ".join(names),
        told=_TOLD[overall],
        words=_WORDS,
    )


@functools.cache
def content_policy() -> str:
    """Return the content policy that the page states: its own style and script by their hashes, and nothing else."""
    style, script = (_hashed(_read(name)) for name in ("page.css", "page.js"))
    return (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=tidy,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        day=day,
        epsilon=epsilon,
        erasure=erasure_words,
        left=lambda part: percent(max(0.0, part)),
        moment=moment,
        percent=percent,
        source=source_words,
        spaced=lambda name: str(name).replace("_", " "),
        ticked=ticked,
        written=_written,
    )
    return environment


def _written(value: object) -> Markup:
    """Write JSON values over several lines; invisible signs stay escaped, as JSON may."""
    return Markup("\n").join(str(tidy(line)) for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"))


def _hashed(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@functools.cache
def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
