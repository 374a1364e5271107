"""Customers' consents: who may be read for a purpose, by the partner's own table of them.

Rules this module enforces:
- consent is for one purpose, by its exact name, and holds from `given` until `expires` or `withdrawn`;
- of several rows of one customer and purpose, the newest `given` that has come counts, with its `expires`; of two with
  the same `given`, the earlier `expires`;
- a withdrawal that has come, in whichever of these rows, wins unless it is certainly earlier than that `given`: a bare
  day is the whole day in UTC, so on one day it wins;
- what cannot be read is counted and refused with the whole table; nothing is guessed.

Guarantees:
    A customer is kept or left out by rows about that customer alone, so that adding or removing a customer, with its
    consents, still changes what is read of that customer alone. The filter is a stable transformation: a release from
    the rows that are kept is as private as one from all rows.

Leaks:
    Nothing leaves. How many are left out and why is for sealed local counts (`keeping.py`).
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.consentrows import ConsentRows, check_consents, refuse, rows_for, unnamed
from coterie.clients.consenttimes import NEVER, microseconds
from coterie.clients.tables.table import Table
from coterie.clients.taint import taint
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["REASONS", "Consented", "check_consents", "consented"]

_STANDS, _NONE, _NOT_YET, _EXPIRED, _WITHDRAWN = range(5)
_LONG_AGO = -(2**63)

REASONS = ("no consent for the purpose", "not yet given", "expired", "withdrawn")
"""Why a customer is left out."""


@dataclass(frozen=True)
class Consented:
    """Who consented to one purpose at one moment; dies with the call that asked. Its `repr` shows nothing of it.

    Args:
        names: Customers with a row for the purpose, each once, as large strings.
        standing: What became of each consent, shape (names,): 0 where it stands, or 1 + the place in `REASONS`.
    """

    names: pa.Array
    standing: NDArray[np.int8]

    def __repr__(self) -> str:
        """Return a text without any name or size."""
        return "Consented(...)"

    def keep(self, customers: pa.Array) -> tuple[NDArray[np.bool_], Mapping[str, int]]:
        """Say whose rows may be read.

        Args:
            customers: The customer of each row: texts or whole numbers. A missing one has consented to nothing.

        Returns:
            Whether each row is kept, shape (rows,); and how many rows are left out, by reason, where there are any.

        Raises:
            ContractFault: They are of another type.
        """
        refuse(unnamed("column customer", customers.type))
        places = pc.index_in(pc.cast(customers, pa.large_string()), value_set=self.names)
        known = np.append(self.standing, np.int8(_NONE))  # the last is for those that are not there
        found = known[pc.fill_null(places, -1).to_numpy(zero_copy_only=False)]
        counts = np.bincount(found, minlength=1 + len(REASONS))[1:]
        left_out = {reason: int(count) for reason, count in zip(REASONS, counts, strict=True) if count}
        return taint(found == _STANDS), left_out


def consented(table: Table, purpose: str, at: datetime.datetime) -> Consented:
    """Find who consented to a purpose; of the table, only rows for it are kept in memory.

    Args:
        table: Columns customer, purpose, given, expires and withdrawn; others are not read.
        purpose: The purpose, exactly as it is written there.
        at: The moment, with its zone.

    Raises:
        ContractFault: A column is missing, there twice or of another type; a customer, purpose or `given` is missing, a
            time cannot be read, or `expires` or `withdrawn` lies before `given`: each with the count of its rows. Or
            the table itself cannot be read, or `at` has no zone.
    """
    if at.tzinfo is None:
        raise ContractFault(Fault("the time", "must have a zone", "give it in UTC"))
    return _judged(rows_for(table, purpose), microseconds(at))


def _judged(rows: list[ConsentRows], at: int) -> Consented:
    """Decide about each customer, by that customer's own rows alone, whatever their order."""
    if not rows:
        return Consented(pa.array([], pa.large_string()), np.empty(0, dtype=np.int8))
    encoded = pa.concat_arrays([part.customers for part in rows]).dictionary_encode()
    who = encoded.indices.to_numpy()
    given = np.concatenate([part.given.first for part in rows])
    ends = np.concatenate([part.expires.last for part in rows])
    gone = np.concatenate([part.withdrawn.first for part in rows])
    gone_last = np.concatenate([part.withdrawn.last for part in rows])
    newest = np.full(len(encoded.dictionary), _LONG_AGO, dtype=np.int64)
    np.maximum.at(newest, who, np.where(given <= at, given, _LONG_AGO))
    end = np.full(len(newest), NEVER, dtype=np.int64)
    np.minimum.at(end, who, np.where(given == newest[who], ends, NEVER))
    standing = np.where(end < at, np.int8(_EXPIRED), np.int8(_STANDS))
    standing[who[(gone <= at) & (gone_last >= newest[who])]] = _WITHDRAWN
    standing[newest == _LONG_AGO] = _NOT_YET
    return Consented(encoded.dictionary, taint(standing))
