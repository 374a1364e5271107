"""Many cells of one column: what binds them to it, and how those that do not open are named.

Faults count rows from 1, or from the number of a piece's first row, in the order in which they were given, and never
hold a text or a row's key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.fields.cells import ANOTHER_KEY, BUCKET, CHANGED, NOT_A_CELL, unpacked
from coterie.privacy.fields.errors import SealFault

__all__ = ["ColumnPlace", "contents_of", "opened"]

_WIDEST = 4096  # bytes of a bucket
_FIXES = {
    NOT_A_CELL: "seal the column; plaintext is never taken for a cell",
    ANOTHER_KEY: "give the key that sealed the column",
    CHANGED: "restore the cells from where they were sealed",
}


@dataclass(frozen=True)
class ColumnPlace:
    """Which column cells belong to; everything here is public.

    Args:
        dataset: The data set's name.
        column: The column's name.
        version: Of its key, 1 to 2**53 - 1; it grows when the key is exchanged.
        bucket: Bytes, 16 to 4096, that the length of what is sealed is rounded up to. A column of long texts whose
            lengths tell something wants a wide one.

    Raises:
        ValueError: A version or a bucket out of its range.
    """

    dataset: str
    column: str
    version: int
    bucket: int = BUCKET

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.version < 2**53 or not BUCKET <= self.bucket <= _WIDEST:
            raise ValueError(f"a version is 1 to 2**53 - 1, a bucket {BUCKET} to {_WIDEST} bytes")

    def bound(self, label: str) -> bytes:
        """Return the associated data of every cell: format, data set, column and key version."""
        return canonical([label, self.dataset, self.column, self.version])

    def bound_to_rows(self, label: str, row_keys: Sequence[str], *, rows: int, first: int = 1) -> list[bytes]:
        """Return the associated data of each row's cell: format, data set, column, row key and key version.

        Raises:
            ContractFault: Two rows have one key, or UTF-8 cannot hold a key; the fault has the number of the row.
            ValueError: There are not as many keys as rows.
        """
        if len(row_keys) != rows:
            raise ValueError(f"{rows} rows need as many keys, not {len(row_keys)}")
        head, tail = canonical([label, self.dataset, self.column])[:-1] + b",", b",%d]" % self.version
        bound: list[bytes] = []
        seen: set[str] = set()
        for row, key in enumerate(row_keys, start=first):
            if key in seen:
                rule = f"the key of row {row} is another row's too, and could not tell their cells apart"
                raise ContractFault(Fault(self.name, rule, "give every row a key of its own"))
            seen.add(key)
            try:
                bound.append(head + canonical(key) + tail)
            except UnicodeEncodeError:
                raise _unsealable(self, row) from None
        return bound

    @property
    def name(self) -> str:
        """What faults call it."""
        return f"{self.dataset}.{self.column}"


def contents_of(place: ColumnPlace, values: Sequence[str | None], *, first: int = 1) -> list[bytes | None]:
    """Return values in UTF-8.

    Raises:
        ContractFault: One is none that UTF-8 can hold; the fault names the number of its row.
    """
    contents: list[bytes | None] = []
    for row, value in enumerate(values, start=first):
        try:
            contents.append(None if value is None else value.encode())
        except UnicodeEncodeError:
            raise _unsealable(place, row) from None
    return contents


def opened(
    place: ColumnPlace, bodies: Sequence[bytes | str], decrypt: Callable[[bytes, int], bytes], *, first: int = 1
) -> list[str | None]:
    """Return the values of a column's cells, or refuse them all together where any does not open.

    Args:
        place: Their column.
        bodies: What `body_of` made of each.
        decrypt: Decrypts a body, given also its place in the list.
        first: Number of the first row.

    Raises:
        SealFault: Any does not open; one fault for each thing that is wrong, with its first row and its count.
    """
    values: list[str | None] = []
    broken: dict[str, list[int]] = {}
    for row, body in enumerate(bodies):
        try:
            if isinstance(body, str):
                broken.setdefault(body, []).append(row + first)
            else:
                values.append(unpacked(decrypt(body, row)))
        except InvalidTag:
            broken.setdefault(CHANGED, []).append(row + first)
        except ValueError:  # authentic, and yet of other rules than ours
            broken.setdefault(NOT_A_CELL, []).append(row + first)
    _refuse(place, broken, f"{len(bodies)} cells" + (f" from row {first} on" if first > 1 else ""))
    return values


def _refuse(place: ColumnPlace, broken: Mapping[str, Sequence[int]], among: str) -> None:
    if broken:
        raise SealFault(*(_fault(place, why, wrong, among) for why, wrong in broken.items()))


def _fault(place: ColumnPlace, why: str, wrong: Sequence[int], among: str) -> Fault:
    verb = "is" if len(wrong) == 1 else "are"
    return Fault(place.name, f"{len(wrong)} of {among} {verb} {why} (first: row {wrong[0]})", _FIXES[why])


def _unsealable(place: ColumnPlace, row: int) -> ContractFault:
    rule = f"row {row} has a text that UTF-8 cannot hold (half of a surrogate pair)"
    return ContractFault(Fault(place.name, rule, "read the table in the encoding it was written in"))
