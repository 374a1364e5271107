"""What deserves a look before a study, and what is as it should be: told by names, counts and limits."""

from collections.abc import Iterator

from coterie.clients.profile.drift import LITTLE, MUCH
from coterie.clients.profile.facts import ColumnFacts, Profile, Sign
from coterie.clients.profile.people import FEW
from coterie.privacy.contract import Column, Contract
from coterie.privacy.errors import Fault

__all__ = ["fine", "looks"]

_MISSING, _THIN, _THICK, _RARE = 0.2, 0.01, 0.9, 0.01
_GRAVE = ("e-mail", "payment card", "bank account", "number (", "NIE", "codice", "NIR", "Steuer-ID", "IP address")
_MARKED = ("personal", "special")


def looks(profile: Profile, contract: Contract) -> list[Fault]:
    """Return what deserves a look.

    Args:
        profile: Without a verdict yet.
        contract: That it was made for.
    """
    features = {column.name: column for column in contract.columns}
    found = [look for one in profile.columns for look in _column(one, features.get(one.name), profile.rows)]
    return [*_table(profile), *_customers(profile, contract), *_label(profile), *_anonymity(profile), *found]


def _table(profile: Profile) -> Iterator[Fault]:
    if profile.left_out:
        rule = f"has {profile.left_out} columns that are there twice, or whose names are too long or cannot be printed"
        yield Fault("the table", rule, "rename them; they were not looked at")
    hidden = sum(1 for column in profile.columns if column.name.startswith("column ") and column.role == "other")
    if hidden:
        rule = f"has {hidden} columns whose names look like values"
        yield Fault("the table", rule, "see whether its header is missing")
    for drift in profile.drift:
        if drift.index > max(LITTLE, 3 * drift.chance):
            size = "much" if drift.index > MUCH else "somewhat"
            rule = f"moved {size} since the earlier profile: stability index {drift.index:.2f}"
            yield Fault(f"column {drift.column}", rule, "see whether the customers changed, or the way of counting")


def _customers(profile: Profile, contract: Contract) -> Iterator[Fault]:
    held, place = profile.customers, f"column {contract.customer}"
    if held is None:
        return
    if held.doubled:
        rule = f"has {held.doubled} rows that are equal to another in all columns"
        yield Fault("the table", rule, "see whether they were exported twice")
    if held.crowded and contract.too_many_rows == "sample":
        rule = f"names {held.crowded} customers in more than {contract.rows_per_customer} rows each"
        yield Fault(place, rule, "nothing, if a random few of their rows will do")


def _label(profile: Profile) -> Iterator[Fault]:
    held = profile.label
    if held is None or not held.ones or not held.zeros:
        return
    rate = held.ones / (held.ones + held.zeros)
    if min(rate, 1 - rate) < _RARE:
        what = "1" if rate < _RARE else "0"
        yield Fault("the label", f"is {what} in less than 1 % of the rows", "expect a model that learns little of it")


def _anonymity(profile: Profile) -> Iterator[Fault]:
    held = profile.anonymity
    if held is None or not held.few or profile.customers is None:
        return
    names, share = ", ".join(held.columns), held.few / profile.customers.customers
    rule = f"tell {held.alone} customers from all others, and put {share:.1%} into groups of fewer than {FEW}"
    fix = "never hand the rows on, not even without names; nothing of them leaves in a study"
    yield Fault(f"columns {names}, together,", rule, fix)


def _column(column: ColumnFacts, wanted: Column | None, rows: int) -> Iterator[Fault]:
    place = f"column {column.name}"
    for sign in column.signs:
        if _unmarked(column, sign):
            yield Fault(place, f"looks like: {sign.kind} ({_by(sign)})", _fix(column))
    if wanted is None or column.role != "feature":
        return
    if column.missing > _MISSING * rows:
        yield Fault(place, f"is missing in {column.missing / rows:.0%} of the rows", "see whether the export lost them")
    if column.different <= 1 and column.exact:
        yield Fault(place, "has the same value in every row that has one", "leave it out: a model learns nothing of it")
    yield from _numbers(column, wanted, place)
    yield from _words(column, wanted, place)


def _numbers(column: ColumnFacts, wanted: Column, place: str) -> Iterator[Fault]:
    held = column.numbers
    if held is None:
        return
    outside, total = held.below + held.above, sum(one.rows for one in held.bins)
    if outside and wanted.outside == "clip":
        rule = f"lies outside {wanted.low:g} to {wanted.high:g} in {outside} rows, which count as the bound"
        yield Fault(place, rule, "check its unit")
    thick = sum(1 for one in held.bins if one.rows > _THICK * total)
    if thick and column.different > 1:
        rule = f"has more than {_THICK:.0%} of its values in one of {len(held.bins)} bins"
        yield Fault(place, rule, "ask for other edges, or check its unit")
    thin = sum(1 for one in held.bins if one.rows < _THIN * total)
    if thin and not thick:
        rule = f"has less than {_THIN:.0%} of its values in {thin} of {len(held.bins)} bins"
        yield Fault(place, rule, "nothing, if so few there are no surprise")


def _words(column: ColumnFacts, wanted: Column, place: str) -> Iterator[Fault]:
    held = column.words
    if held is None:
        return
    if held.nearly:
        rule = f"differs from the vocabulary in spaces or the case of letters alone in {held.nearly} rows"
        yield Fault(place, rule, "write them as the contract does")
    if held.unknown > held.nearly and wanted.outside == "clip":
        rule = f"holds other words than the vocabulary's in {held.unknown - held.nearly} rows, which count as no word"
        yield Fault(place, rule, "ask for a wider vocabulary, if they matter")
    unused = sum(1 for one in held.words if not one.rows)
    if unused:
        rule = f"never holds {unused} of the vocabulary's {len(held.words)} words"
        yield Fault(place, rule, "see whether you write them in another way")


def _unmarked(column: ColumnFacts, sign: Sign) -> bool:
    """Tell whether a sign of personal data is news: the contract does not mark the column, or not strongly enough."""
    if column.role == "customer":
        return sign.passed > 0  # that it names a customer is no news; that it does so with an address is
    if "article 9" in sign.kind:
        return column.sensitivity != "special"
    if column.sensitivity in _MARKED:
        return sign.passed > 0 and any(word in sign.kind for word in _GRAVE)
    return True


def _by(sign: Sign) -> str:
    if not sign.passed:
        return "by its name alone"
    return f"{sign.passed / sign.tested:.1%} of {sign.tested} different values"


def _fix(column: ColumnFacts) -> str:
    if column.role == "customer":
        return "name customers by a number of your own, if you can"
    if column.role == "other":
        return "leave it out of the table: no study reads it"
    return "if it is, do not take part with it as it is marked"


def fine(profile: Profile, contract: Contract) -> list[str]:
    """Return what was looked at and is as it should be; arguments as for `looks`."""
    held, found = profile.customers, []
    if not profile.stops:
        found.append("The table keeps the contract.")
    if held is not None and not held.doubled:
        found.append("No row is there twice.")
    if held is not None and not held.crowded and contract.interactions is None:
        found.append("No customer has more rows than the contract allows.")
    signed = [column for column in profile.columns if any(_unmarked(column, sign) for sign in column.signs)]
    if not signed:
        found.append("No column looks as if it said who somebody is, beyond what the contract marks.")
    if profile.anonymity is not None and not profile.anonymity.few:
        names = ", ".join(profile.anonymity.columns)
        found.append(f"Every customer shares its {names} with {FEW - 1} others at least.")
    if profile.drift and all(one.index <= max(LITTLE, 3 * one.chance) for one in profile.drift):
        found.append("No column moved since the earlier profile.")
    return found
