"""Columns that are sealed cell by cell, for tables that are exchanged as CSV or edited in a database.

Two kinds, and no flag between them (`docs/formats/cells.md`):
- `RandomisedCells`: AES-256-GCM (NIST SP 800-38D) with a random nonce, bound to data set, column, row key and key
  version. This is the kind to use.
- `SearchableCells`: AES-SIV (RFC 5297), where equal values give equal cells, for the columns that the contract lets be
  matched or looked up by value, and only where the values are many and none is frequent.

Both round lengths up and seal *that a value is missing*. A key serves one column; a table that is kept whole belongs
into sealed streams instead (`streams.py`), which also see that rows are missing, added or in another order.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.fields.cells import body_of, derived, key_id, packed, written
from coterie.privacy.fields.columns import ColumnPlace, contents_of, opened
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.wiping import wiped
from coterie.privacy.randomness import RandomSource

__all__ = ["LEAST_DISTINCT", "MOST_CELLS", "RandomisedCells", "SearchableCells", "check_cardinality", "check_counts"]

MOST_CELLS: Final = 2**32
"""Cells under one key with random nonces: NIST SP 800-38D section 8.3."""
LEAST_DISTINCT: Final = 1000
"""Distinct values that a searchable column needs."""

_RANDOMISED, _SEARCHABLE = "coterie/cells/v1/randomised", "coterie/cells/v1/searchable"
_NONCE = 12
_TOP = 100  # a value may stand in at most every hundredth cell
_FILLING = 14  # bytes: with the two of its form, a missing value fills the least bucket


class RandomisedCells:
    """Cells of one column, each sealed with a nonce of its own.

    Args:
        place: Which column.
        key: 32 bytes, random, of this column alone.
        source: Of the nonces (SP 800-38D section 8.2.2); each call takes a fresh stream of it.
        sealed: How many cells were sealed under the key before, by whoever held it.

    Raises:
        KeyFault: The key has not 32 bytes.

    Guarantees:
        A cell that opens was sealed under the same key for the same data set, column, row key and key version, and is
        unchanged. Another key is named before anything is decrypted. No more than 2^32 cells are sealed under the key,
        as far as the count can see: a copy of the key elsewhere, or a `sealed` that is older than a restored backup,
        it cannot see. Two nonces meet with a chance below 2^-32 up to there. That a row is missing, or is as it was
        some time ago under the same key, no single cell can tell.

    Leaks:
        How many buckets a value fills; whether two cells are of one key; how many rows there are.
    """

    def __init__(self, place: ColumnPlace, key: bytes | bytearray, *, source: RandomSource, sealed: int = 0) -> None:
        self.place, self.sealed, self._source = place, sealed, source
        self._id = key_id(key, _RANDOMISED + "/id")
        with wiped([derived(key, _RANDOMISED + "/key", size=32)]) as (secret,):
            self._cipher = AESGCM(secret)

    def seal_cells(self, values: Sequence[str | None], row_keys: Sequence[str], *, first: int = 1) -> list[str]:
        """Seal one value for each row; None is a missing value, and is sealed too.

        Args:
            values: Texts.
            row_keys: As many; each is the row's own for life, such as a primary key. They are not sealed here.
            first: Number of the first row, for faults about a piece of a table.

        Raises:
            ContractFault: A row's key is another row's too; a text is none that UTF-8 can hold.
            KeyFault: The key has sealed as many cells as it may.
            ValueError: There are not as many row keys as values.
        """
        contents = contents_of(self.place, values, first=first)
        bound = self.place.bound_to_rows(_RANDOMISED, row_keys, rows=len(values), first=first)
        if self.sealed + len(values) > MOST_CELLS:
            rule = f"seals at most {MOST_CELLS} cells, of which {MOST_CELLS - self.sealed} are left"
            raise KeyFault(Fault(f"the key of {self.place.name}", rule, "seal the column again under a new key"))
        nonces = self._source.stream(f"cells/{self._id}/{self.sealed}").bits(_NONCE * len(values))
        self.sealed += len(values)
        encrypt, bucket, cells = self._cipher.encrypt, self.place.bucket, []
        for row, content in enumerate(contents):
            nonce = nonces[row * _NONCE : (row + 1) * _NONCE]
            cells.append(written("v1", self._id, nonce + encrypt(nonce, packed(content, bucket), bound[row])))
        return cells

    def open_cells(self, cells: Sequence[str | None], row_keys: Sequence[str], *, first: int = 1) -> list[str | None]:
        """Open the cells of rows; None where the value was missing.

        Raises:
            ContractFault: A row's key is another row's too.
            SealFault: Any cell is plaintext, missing, of another key, changed, or another row's, column's or data
                set's; the fault says how many, and the number of the first.
            ValueError: There are not as many row keys as cells.
        """
        bound = self.place.bound_to_rows(_RANDOMISED, row_keys, rows=len(cells), first=first)
        decrypt = self._cipher.decrypt
        bodies = [body_of(cell, "v1", self._id) for cell in cells]
        return opened(
            self.place, bodies, lambda body, row: decrypt(body[:_NONCE], body[_NONCE:], bound[row]), first=first
        )


class SearchableCells:
    """Cells of one column in which equal values give equal cells.

    The row key is not bound: then equal values of two rows would give two cells, and nothing could be found.

    Args:
        place: Which column.
        key: 32 bytes, random, of this column alone.
        source: Of what stands for missing values, each of which gives a cell of its own.

    Raises:
        KeyFault: The key has not 32 bytes.

    Guarantees:
        A cell that opens was sealed under the same key for the same data set, column and key version, and is unchanged.
        Another key is named before anything is decrypted. A cell that was moved to another row of its column opens.

    Leaks:
        Which cells are equal, and so how frequent every value is: whoever knows the frequencies in the population can
        name frequent values (Naveed, Kamara and Wright, "Inference Attacks on Property-Preserving Encrypted
        Databases", CCS 2015). Beyond that what `RandomisedCells` leaks.
    """

    def __init__(self, place: ColumnPlace, key: bytes | bytearray, *, source: RandomSource) -> None:
        self.place, self._source, self._drawn = place, source, 0
        self._id = key_id(key, _SEARCHABLE + "/id")
        self._bound = [place.bound(_SEARCHABLE)]
        with wiped([derived(key, _SEARCHABLE + "/key", size=64)]) as (secret,):
            self._cipher = AESSIV(secret)

    def seal_cells(self, values: Sequence[str | None]) -> list[str]:
        """Seal a whole column.

        Raises:
            ContractFault: The column's values are too few or one is too frequent (`check_cardinality`); a text is none
                that UTF-8 can hold.
        """
        check_cardinality(self.place.name, values)
        return self.seal_piece(values)

    def seal_piece(self, values: Sequence[str | None], *, first: int = 1) -> list[str]:
        """Seal a piece of a column; the caller checks the whole column (`check_counts`) before any cell is shown.

        Args:
            values: Texts.
            first: Number of the first row, for faults.

        Raises:
            ContractFault: A text is none that UTF-8 can hold.
        """
        contents = contents_of(self.place, values, first=first)
        fillings = self._source.stream(f"missing/{self._id}/{self._drawn}").bits(_FILLING * len(values))
        self._drawn += 1
        encrypt, bound, bucket = self._cipher.encrypt, self._bound, self.place.bucket
        cells = []
        for row, content in enumerate(contents):
            filling = fillings[row * _FILLING : (row + 1) * _FILLING]
            cells.append(written("d1", self._id, encrypt(packed(content, bucket, filling=filling), bound)))
        return cells

    def cell_of(self, value: str) -> str:
        """Return the one cell of a value: to look it up, or to mend a row of a column that was sealed.

        Raises:
            ContractFault: The text is none that UTF-8 can hold.
        """
        content = contents_of(self.place, [value])[0]
        return written("d1", self._id, self._cipher.encrypt(packed(content, self.place.bucket), self._bound))

    def open_cells(self, cells: Sequence[str | None], *, first: int = 1) -> list[str | None]:
        """Open cells; None where the value was missing.

        Raises:
            SealFault: As `RandomisedCells.open_cells`, except that a cell of another row opens.
        """
        decrypt, bound = self._cipher.decrypt, self._bound
        bodies = [body_of(cell, "d1", self._id) for cell in cells]
        return opened(self.place, bodies, lambda body, _: decrypt(body, bound), first=first)


def check_cardinality(name: str, values: Sequence[str | None]) -> None:
    """Check that the values of a column are many, and none of them frequent, so that equality tells little.

    Missing values are left out: each is sealed as a cell of its own.

    Args:
        name: The column's.
        values: The whole column's.

    Raises:
        ContractFault: Fewer than 1,000 distinct values, or one in more than 1 % of the cells that have one. The text
            holds counts, and stays with the partner.
    """
    counts = Counter(value for value in values if value is not None)
    check_counts(name, distinct=len(counts), top=max(counts.values(), default=0), present=counts.total())


def check_counts(name: str, *, distinct: int, top: int, present: int) -> None:
    """Check the counts of a whole column that is sealed in pieces; raises as `check_cardinality`.

    Args:
        name: The column's.
        distinct: Different values.
        top: Cells that hold the most frequent one.
        present: Cells that hold a value.
    """
    faults = []
    if distinct < LEAST_DISTINCT:
        faults.append(f"{LEAST_DISTINCT} distinct values or more, and there are {distinct}")
    if top * _TOP > present:
        faults.append(f"each value in 1 % of {present} cells or fewer, and one is in {top}")
    fix = "let it be sealed as randomised cells, which cannot be searched"
    if faults:
        raise ContractFault(*(Fault(name, f"searchable cells need {fault}", fix) for fault in faults))
