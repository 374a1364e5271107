"""Values of a table as texts, for sealed cells, and back again as what they were.

Every type that is taken comes back as it was, to the last bit of a float. A type is known by Arrow's name for it.
"""

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from coterie.privacy.errors import ContractFault, Fault

__all__ = ["kind_of", "name_of", "texts_of", "typed"]

_ALIASES = frozenset(
    [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    + ["string", "float", "double", "bool", "date32[day]"]
    + [f"timestamp[{unit}]" for unit in ("s", "ms", "us", "ns")]
)
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=(.+)\]")
_DECIMAL = re.compile(r"decimal128\((\d+), (\d+)\)")


def name_of(field: pa.Field, place: str) -> str:
    """Return the name of a column's type: of its values where it has a dictionary, "string" for every kind of text.

    Args:
        field: The column.
        place: Where the table lies, for an error.

    Raises:
        ContractFault: Values of the type have no text that would come back as they were.
    """
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    name = "string" if text else str(kind)
    if name not in _ALIASES and not _ZONED.fullmatch(name) and not _DECIMAL.fullmatch(name):
        rule, fix = "is of a type that has no sealed cells", "make it a number, a text, a date or a time"
        raise ContractFault(Fault(f"{place} column {field.name}", rule, fix))
    return name


def kind_of(name: str) -> pa.DataType:
    """Return the type of a name.

    Raises:
        ValueError: It is the name of none.
    """
    zoned, decimal = _ZONED.fullmatch(name), _DECIMAL.fullmatch(name)
    if zoned:
        return pa.timestamp(zoned[1], zoned[2])
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    if name not in _ALIASES:
        raise ValueError("the name of no type")
    return pa.type_for_alias(name)


def texts_of(column: pa.Array) -> list[str | None]:
    """Return the texts of a column's values, None where one is missing."""
    texts: list[str | None] = pc.cast(column, pa.string()).to_pylist()
    return texts


def typed(texts: Sequence[str | None], kind: pa.DataType) -> pa.Array:
    """Return values of a type from their texts.

    Raises:
        ValueError: A text is of no such value.
    """
    return pc.cast(pa.array(texts, pa.string()), kind)
