"""A study small enough to run in a test: the generated customers of three partners, two rounds."""

import dataclasses
import shutil

import pytest

from coterie.privacy.plan import Metrics
from coterie.privacy.study import read_study
from coterie.simulations import sources, studies


@pytest.fixture(scope="session")
def small():
    """Return a plan and its tables."""
    plan = read_study(studies.path("synthetic")).plan
    names = ("electronics", "books", "travel")
    tables = {name: table for name, table in sources.load("synthetic").items() if name in names}
    privacy = dataclasses.replace(plan.privacy, threshold=2, epsilon=4.0)
    return (
        dataclasses.replace(
            plan,
            partners=tuple(partner for partner in plan.partners if partner.name in names),
            training=dataclasses.replace(plan.training, rounds=2, local_steps=3),
            metrics=Metrics(rounds=(1, 2)),
            privacy=privacy,
        ),
        tables,
    )


@pytest.fixture(scope="session")
def small_study(tmp_path_factory):
    """Return the text of a study file that takes seconds."""
    text = studies.path("synthetic").read_text(encoding="utf-8")
    for old, new in (
        ("rounds = 5\nlocal_steps = 10", "rounds = 2\nlocal_steps = 3"),
        ("rounds = [3, 5]", "rounds = [2]"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture
def twins(tmp_path):
    """Return a function that copies a folder, so that two engines start from the same workspaces."""

    def copy(folder):
        other = folder.with_name(folder.name + "-twin")
        shutil.copytree(folder, other)
        return other

    return copy
