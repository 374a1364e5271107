"""Strict reading of TOML tables into frozen dataclasses.

Rules this module enforces:
- an unknown key, a missing key, a wrong type and a value out of range are all errors;
- every error names the file, the path of the key, what is allowed, and what to do;
- all faults of a file are reported at once;
- a value read from a file never appears in an error.
"""

import dataclasses
import datetime
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from coterie.privacy.errors import Fault, FileFault

__all__ = ["LATER", "Rule", "integer", "load", "number", "one_of", "parse", "read", "text"]

T = TypeVar("T")

LATER = {"later": True}
"""Metadata of a field that came after plans were signed: with its default it is no part of a digest."""

_LONGEST_KEY = 200

_KIND = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    datetime.date: "a date",
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field's value must keep.

    Args:
        allowed: The range in words, as printed in an error.
        low: Least allowed number.
        high: Greatest allowed number.
        open_low: Whether `low` itself is refused.
        open_high: Whether `high` itself is refused.
        choices: Allowed texts; empty for any.
        longest: Greatest length of a text, in characters.
        least: Least length of a text.
    """

    allowed: str
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    choices: tuple[str, ...] = ()
    longest: int = 200
    least: int = 1

    def holds(self, value: object) -> bool:
        """Return whether `value`, already of the right type, lies in the range."""
        if isinstance(value, str):
            # Control characters are in no name; an entry of the ledger that held one could never be exported.
            known = not self.choices or value in self.choices
            return known and self.least <= len(value) <= self.longest and min(value, default=" ") >= " "
        if isinstance(value, int | float):
            above = self.low is None or (value > self.low if self.open_low else value >= self.low)
            below = self.high is None or (value < self.high if self.open_high else value <= self.high)
            return above and below
        return True


def number(low: float, high: float, *, ends: str = "[]") -> dict[str, Rule]:
    """Return field metadata for a number in an interval; `ends` as in mathematics, e.g. "(]"."""
    rule = Rule(f"{ends[0]}{low:g}, {high:g}{ends[1]}", low, high, ends[0] == "(", ends[1] == ")")
    return {"rule": rule}


def integer(low: int, high: int) -> dict[str, Rule]:
    """Return field metadata for a whole number from `low` to `high`, both allowed."""
    return {"rule": Rule(f"a whole number from {low} to {high}", low, high)}


def one_of(*choices: str) -> dict[str, Rule]:
    """Return field metadata for a text that is one of `choices`."""
    return {"rule": Rule("one of " + ", ".join(choices), choices=choices)}


def text(longest: int = 200, *, least: int = 1) -> dict[str, Rule]:
    """Return field metadata for a text of `least` to `longest` characters."""
    return {"rule": Rule(f"text of {least} to {longest} characters", longest=longest, least=least)}


def read(kind: type[T], path: Path) -> T:
    """Read one TOML file into a frozen dataclass.

    Args:
        kind: A dataclass whose fields carry `number`, `integer`, `one_of` or `text` metadata.
        path: The file.

    Returns:
        The dataclass.

    Raises:
        FileFault: The file is missing, unreadable, not TOML, or breaks the schema.
    """
    return parse(kind, load(path), place=str(path))


def load(path: Path) -> dict[str, Any]:
    """Read one TOML file as a table.

    Raises:
        FileFault: The file is missing, unreadable, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFault(
            Fault(str(path), f"cannot be read ({error.strerror})", "check the path and its rights")
        ) from None
    except UnicodeDecodeError:
        raise FileFault(Fault(str(path), "is not UTF-8 text", "save it as UTF-8")) from None
    except (ValueError, RecursionError) as error:  # beside bad syntax: endless numbers and nesting
        line = getattr(error, "lineno", None)
        where = f" at line {line}" if line else ""
        raise FileFault(Fault(str(path), f"is not valid TOML{where}", "correct the syntax")) from None


def parse(kind: type[T], table: Mapping[str, Any], *, place: str) -> T:
    """Turn a mapping into a frozen dataclass, reporting every fault at once.

    Raises:
        FileFault: A key is unknown or missing, or a value is of the wrong type or out of range.
    """
    faults: list[Fault] = []
    value = _table(kind, table, place, faults)
    if faults:
        raise FileFault(*faults)
    return typing.cast("T", value)


def _table(kind: type[Any], table: object, place: str, faults: list[Fault]) -> object:
    if not isinstance(table, Mapping):
        faults.append(Fault(place, "must be a table", "write it as [name] with keys below"))
        return None
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            known = ", ".join(sorted(fields))
            faults.append(Fault(_at(place, str(key)), "unknown key", f"remove it or use one of {known}"))
    values: dict[str, object] = {}
    for name, field in fields.items():
        where = _at(place, name)
        if name in table:
            values[name] = _value(hints[name], table[name], where, field.metadata.get("rule"), faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(Fault(where, "is missing", f"add it ({_allowed(hints[name], field)})"))
    return None if faults else kind(**values)


def _value(  # noqa: PLR0911 - one arm per kind of value
    hint: Any,  # noqa: ANN401 - a type hint is any object
    value: object,
    where: str,
    rule: Rule | None,
    faults: list[Fault],
) -> object:
    if isinstance(hint, types.UnionType):
        (hint,) = (arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            faults.append(Fault(where, "must be a list", "write it as [ ... ] or [[ ... ]]"))
            return None
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, f"{where}[{i}]", rule, faults) for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _table(typing.cast("type[Any]", hint), value, where, faults)
    if typing.get_origin(hint) is dict:
        return _mapping(typing.get_args(hint)[1], value, where, rule, faults)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.nan  # beyond every range
    if type(value) is not hint:
        faults.append(Fault(where, f"must be {_KIND.get(hint, 'of another type')}", "correct its type"))
        return None
    if rule is not None and not rule.holds(value):
        faults.append(Fault(where, f"must be {rule.allowed}", "correct its value"))
        return None
    return value


def _mapping(inner: Any, value: object, where: str, rule: Rule | None, faults: list[Fault]) -> object:  # noqa: ANN401
    if not isinstance(value, Mapping):
        faults.append(Fault(where, "must be a table", "write it as [name] with keys below"))
        return None
    if not all(0 < len(str(key)) <= _LONGEST_KEY and min(str(key)) >= " " for key in value):
        faults.append(Fault(where, f"must have keys of 1 to {_LONGEST_KEY} characters", "correct them"))
        return None
    return {str(key): _value(inner, item, f"{where}.{key}", rule, faults) for key, item in value.items()}


def _allowed(hint: object, field: "dataclasses.Field[Any]") -> str:
    rule = field.metadata.get("rule")
    return rule.allowed if rule is not None else _KIND.get(hint, "see the documentation")  # type: ignore[call-overload, no-any-return]


def _at(place: str, key: str) -> str:
    return f"{place}: {key}" if place.endswith(".toml") else f"{place}.{key}"
