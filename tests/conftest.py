"""What several rooms of tests share: a federation copied from ones made once, and a study that takes seconds."""

import dataclasses
import shutil

import pytest

from coterie.privacy.plan import Metrics
from coterie.privacy.study import read_study
from coterie.simulations import sources, studies
from coterie.tests.clients.federation import Federation


def pytest_collection_modifyitems(items):
    """Put the stories first: they wait for processes most of the time, while other files use the cores."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/stories", "tests/faults")))


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


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folders of a federation before and after every partner's consent."""
    folder = tmp_path_factory.mktemp("made")
    Federation(folder / "fresh")
    agreed = Federation(shutil.copytree(folder / "fresh", folder / "agreed"))
    for name in agreed.folders:
        agreed.propose(name)
    return folder


@pytest.fixture
def federation(made, tmp_path):
    """Three partners and a coordinator that have not met yet."""
    return Federation(shutil.copytree(made / "fresh", tmp_path / "federation"))


@pytest.fixture
def agreed(made, tmp_path):
    """The same, after every partner's consent."""
    return Federation(shutil.copytree(made / "agreed", tmp_path / "federation"))
