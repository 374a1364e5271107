"""Errors carry every fault as place, rule and fix, and survive the way back from another process."""

import pickle

import pytest

from coterie.privacy import errors
from coterie.privacy.errors import CoterieError, Fault

KINDS = [getattr(errors, name) for name in errors.__all__ if name != "Fault"]


def test_a_fault_prints_its_place_its_rule_and_its_fix():
    assert str(Fault("study.toml: name", "is missing", "add it")) == "study.toml: name: is missing. Fix: add it."


def test_a_fault_prints_no_line_break_and_no_terminal_escape():
    printed = str(Fault("a\nb", "\x1b[2Jc\u202ed", "é 1"))
    assert printed == "a?b: ?[2Jc?d. Fix: é 1."


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_prints_every_fault_and_pickles_with_them(kind):
    error = kind(Fault("a", "b", "c"), Fault("d", "e", "f"))
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(back) is kind
    assert back.faults == error.faults
    assert str(back) == str(error) == "a: b. Fix: c.\nd: e. Fix: f."
    assert isinstance(error, CoterieError)


def test_every_refusal_of_this_package_is_a_coterie_error():
    assert len(KINDS) == 7
    assert all(issubclass(kind, CoterieError) for kind in KINDS)
