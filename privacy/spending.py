"""What is spent, kept beside the entries: sums of Rényi curves by group, span and segment.

The sums are an index. They change in the transaction that adds the charge, follow from the entries alone, and a
reviewer computes them anew.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

from coterie.privacy.charges import Charge, Entry, charge_of, spans_of
from coterie.privacy.renyi import curve, total

__all__ = ["counts_of", "spend", "spent_in"]

_EVERYBODY = ""  # the segment of charges that touch all customers


def spend(db: sqlite3.Connection, charge: Charge, at: str) -> None:
    """Add a charge to what is spent, inside the caller's transaction.

    Args:
        db: The ledger's open file.
        charge: What is charged.
        at: Time of its entry.
    """
    asked = curve([charge.event])
    for span in spans_of(charge.purpose, at):
        for segment in charge.segments or (_EVERYBODY,):
            where = (charge.group, span, segment)
            query = "SELECT curve FROM spent WHERE grp = ? AND span = ? AND segment = ?"
            found = db.execute(query, where).fetchone()
            summed = total([json.loads(found[0]), asked]) if found else asked
            db.execute(
                "INSERT INTO spent VALUES (?, ?, ?, 1, ?) "
                "ON CONFLICT DO UPDATE SET count = count + 1, curve = excluded.curve",
                (*where, json.dumps(summed)),
            )


def counts_of(entries: Iterable[Entry]) -> dict[tuple[str, str, str], int]:
    """Return how often each group, span and segment was charged, from the entries alone."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for entry in entries:
        if entry.kind == "reserve":
            charge = charge_of(entry)
            spans = spans_of(charge.purpose, entry.at)
            counts.update((charge.group, span, s) for span in spans for s in charge.segments or (_EVERYBODY,))
    return dict(counts)


def spent_in(db: sqlite3.Connection, group: str, span: str, segments: Sequence[str]) -> tuple[float, ...]:
    """Return the curve of all that a customer of a group may have lost in a span.

    Args:
        db: The ledger's open file.
        group: Customer group.
        span: One of `charges.spans_of`.
        segments: Where the customer may be; everywhere when empty. The worst counts, order by order: a customer is in
            one segment alone, so segments compose in parallel (PRIVACY rule 13).
    """
    rows = db.execute("SELECT segment, curve FROM spent WHERE grp = ? AND span = ?", (group, span)).fetchall()
    curves = {segment: tuple(json.loads(text)) for segment, text in rows}
    everybody = curves.pop(_EVERYBODY, curve([]))
    own = [spent for segment, spent in curves.items() if not segments or segment in segments]
    worst = tuple(max(values) for values in zip(*own, strict=True)) if own else curve([])
    return total([everybody, worst])
