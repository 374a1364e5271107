"""Which columns look as if they said who somebody is: by what they hold, by what they are called, or by both."""

from collections.abc import Sequence

from coterie.clients.profile.detectors import DETECTORS, Detector, bare, counts, share_of
from coterie.clients.profile.facts import Sign
from coterie.clients.profile.naming import says, special

__all__ = ["looks_like_a_value", "signs_of"]

_MOST_BARE = max(detector.most for detector in DETECTORS if detector.bare)
_BY_NAME = "The name alone says so; look at what the column holds."


def signs_of(name: str, sample: Sequence[str]) -> tuple[Sign, ...]:
    """Return every sign of personal data in a column.

    Args:
        name: The column's name.
        sample: Different values of it, in random order, 20,000 at most.
    """
    named = says(name)
    written = [text.strip() for text in sample]
    stripped = [bare(text) for text in written[:_MOST_BARE]]
    found = []
    for detector in DETECTORS:
        sign = _sign(detector, stripped if detector.bare else written, named)
        found += [] if sign is None else [sign]
    known = {sign.kind for sign in found}
    by_name = [kind.split(",")[0] for kind in named if kind not in known]
    by_name += [f"{kind} (GDPR article 9)" for kind in special(name)]
    if any(sign.by.startswith("content") for sign in found):
        by_name = [kind for kind in by_name if "article 9" in kind]  # what it holds says more than its name
    return (*found, *(Sign(kind=kind, by="name", passed=0, tested=len(sample), note=_BY_NAME) for kind in by_name))


def _sign(detector: Detector, sample: Sequence[str], named: Sequence[str]) -> Sign | None:
    agrees = detector.kind in named
    if detector.weak and not agrees:
        return None
    passed, tested = share_of(detector, sample)
    if not counts(detector, passed, tested):
        return None
    by = "content and name" if agrees else "content"
    return Sign(kind=detector.kind, by=by, passed=passed, tested=tested, note=detector.note)


def looks_like_a_value(name: str) -> bool:
    """Return whether a column's name looks like a cell: a number, or something that tells who somebody is."""
    text = name.strip()
    if text.replace(".", "", 1).removeprefix("-").isdigit():
        return True
    return any(detector.matches(bare(text) if detector.bare else text) for detector in DETECTORS if not detector.weak)
