"""Red lines: what a partner never does, whatever else its policy permits. Data and pure rules alone.

Rules this module enforces:
- a red line wins over every permission, and over the operator's approval;
- names are compared without regard to case and to compatible forms of letters (of Unicode), so that no spelling
  of a name slips past the line;
- a purpose may be a family, written with a final ".*"; a star anywhere else is an error, and never a name.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from coterie.privacy.errors import Fault
from coterie.privacy.plan import Plan
from coterie.privacy.schema import text

__all__ = ["RedLines", "crossings", "unreadable"]

_FAMILY = ".*"


@dataclass(frozen=True, kw_only=True)
class RedLines:
    """What is never done; each name has its reason, in the partner's words.

    Args:
        purposes: Purposes that are never served; "credit.*" is `credit` and all that begins with `credit.`.
        attributes: Columns that are never used, in whatever role.
        protected: Columns that are never learned from and never predicted, but under a purpose in `audits`. To count
            held-out scores by them, for fairness, is not to learn from them.
        audits: Purposes that may use protected columns, such as a measurement of fairness.
    """

    purposes: dict[str, str] = field(default_factory=dict, metadata=text(200))
    attributes: dict[str, str] = field(default_factory=dict, metadata=text(200))
    protected: dict[str, str] = field(default_factory=dict, metadata=text(200))
    audits: tuple[str, ...] = field(default=(), metadata=text(100))


def unreadable(lines: RedLines, place: str) -> list[Fault]:
    """Return what of red lines could be understood in two ways: a line that is misread would protect nobody.

    Args:
        lines: As the policy has them.
        place: What the faults' places begin with.
    """
    starred = {
        "purposes": [name.removesuffix(_FAMILY) for name in lines.purposes],
        "attributes": list(lines.attributes),
        "protected": list(lines.protected),
        "audits": list(lines.audits),
    }
    rule = 'has a star in a name; only a purpose may have one, as a final ".*" after the name of a family'
    return [
        Fault(f"{place}.{key}", rule, "name each in full, or the family")
        for key, names in starred.items()
        if any("*" in name or not _plain(name) for name in names)
    ]


def crossings(plan: Plan, lines: RedLines, *, divided_by: str = "") -> list[Fault]:
    """Return every red line that a plan crosses, with the reason that the policy gives.

    Args:
        plan: The plan.
        lines: The policy's red lines.
        divided_by: The column by which the plan's segments are told apart; "" where none is read.
    """
    purpose = _plain(plan.purpose)
    found = [("plan.purpose", why) for name, why in lines.purposes.items() if _within(purpose, name)]
    found += _named(_read(plan, divided_by), lines.attributes)
    if plan.purpose not in lines.audits:
        found += _named(_learned(plan), lines.protected)
    fix = "ask for a plan without it; no permission lifts a red line"
    return [Fault(place, f"crosses a red line of the policy: {why}", fix) for place, why in dict.fromkeys(found)]


def _learned(plan: Plan) -> dict[str, str]:
    """Return the columns from which a model is made, by their place in the plan; the label is what it predicts."""
    contract = plan.contract
    learned = {f"plan.contract.columns.{column.name}": column.name for column in contract.features}
    rows = contract.interactions
    if rows is not None:
        parts = {"item": rows.item, "time": rows.time, "value": rows.value or ""}
        learned |= {f"plan.contract.interactions.{part}": name for part, name in parts.items() if name}
    return learned | ({"plan.contract.label": contract.label} if contract.label else {})


def _read(plan: Plan, divided_by: str) -> dict[str, str]:
    """Return every column that a plan has its partners read, by its place."""
    measured = {f"plan.contract.columns.{c.name}": c.name for c in plan.contract.columns if not c.is_feature}
    read = {"plan.contract.customer": plan.contract.customer, **_learned(plan), **measured}
    return read | ({"plan.cohort.segments": divided_by} if divided_by else {})


def _named(columns: Mapping[str, str], lines: Mapping[str, str]) -> list[tuple[str, str]]:
    reasons = {_plain(name): why for name, why in lines.items()}
    return [(place, reasons[_plain(name)]) for place, name in columns.items() if _plain(name) in reasons]


def _within(purpose: str, line: str) -> bool:
    name = _plain(line.removesuffix(_FAMILY))
    return purpose == name or (line.endswith(_FAMILY) and purpose.startswith(f"{name}."))


def _plain(name: str) -> str:
    """Return a name in the one spelling in which names are compared."""
    # The compatibility caseless match of the Unicode Standard 16.0, section 3.13.5, definition D146.
    once = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", name).casefold())
    return unicodedata.normalize("NFKD", once.casefold()).strip()
