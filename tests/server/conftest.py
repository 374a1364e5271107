"""A federation for each test that asks for one, copied from those made once."""

import shutil

import pytest

from coterie.tests.clients.federation import Federation


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
