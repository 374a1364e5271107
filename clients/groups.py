"""Customer groups, fixed for life: who is held out, and which segment a customer belongs to.

Disjoint groups pay separately (PRIVACY rule 13), which holds only while no customer ever moves from one to another. A
keyed hash sees to that by itself. A column does where the partner's declaration is true that it never changes.
"""

import hmac
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.policy import Segments

__all__ = ["HOLDOUT_SHARE", "Among", "is_held_out", "segment_of", "segment_rows"]

HOLDOUT_SHARE = 5  # one customer in this many is held out, at every partner, for life


@dataclass(frozen=True)
class Among:
    """Whose rows are opened: the customers of some segments.

    Args:
        division: How the policy divides customers.
        chosen: Names of the segments.
    """

    division: Segments
    chosen: tuple[str, ...]


def segment_rows(table: pa.Table, customer: str, among: Among, group_key: bytes) -> pa.Table:
    """Return the rows of the chosen segments' customers.

    Raises:
        ContractFault: The column that divides customers is missing, or puts one customer into two segments.
    """
    by = among.division.by
    identifiers = pc.cast(table[customer], pa.string())
    if by == "hash":
        encoded = identifiers.combine_chunks().dictionary_encode()
        known = [segment_of(among.division, group_key, i or "") for i in encoded.dictionary.to_pylist()]
        segments = pa.array(known, pa.string()).take(encoded.indices)
    else:
        place = f"column {by}"
        if table.column_names.count(by) != 1:
            raise ContractFault(Fault(place, "divides customers by the policy, and is not there once", "add it"))
        segments = pc.cast(table[by], pa.string()).combine_chunks()
        pairs = pa.table({"customer": identifiers, "segment": segments}).group_by("customer")
        counts = pairs.aggregate([("segment", "count_distinct")])["segment_count_distinct"]
        torn = int((counts.to_numpy() > 1).sum())
        if torn:
            raise ContractFault(Fault(place, f"puts {torn} customers into two segments", "give each one for life"))
    return table.filter(
        pc.fill_null(pc.is_in(segments, value_set=pa.array(among.chosen, pa.string())), fill_value=False)
    )


def segment_of(division: Segments, group_key: bytes, identifier: str) -> str:
    """Return the segment of a customer where a keyed hash divides them.

    Raises:
        ContractFault: A column divides them, which a table of interactions does not have.
    """
    if division.by != "hash":
        rule = "divides customers by a column, which interactions do not have"
        raise ContractFault(Fault("policy.segments", rule, 'divide them by "hash", or let all take part'))
    return division.names[_keyed(group_key, b"coterie/segment/v1\n", identifier) % len(division.names)]


def _keyed(group_key: bytes, label: bytes, identifier: str) -> int:
    """Return a whole number that depends on the customer and a secret key (HMAC-SHA256, RFC 2104)."""
    return int.from_bytes(hmac.digest(group_key, label + identifier.encode(), "sha256")[:8], "big")


def is_held_out(group_key: bytes, identifier: str) -> bool:
    """Return whether a customer is held out, for life: by a keyed hash, so that nobody can choose it."""
    return _keyed(group_key, b"coterie/group/v1\n", identifier) % HOLDOUT_SHARE == 0
