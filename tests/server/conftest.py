"""A fresh federation for each test that asks for one."""

import pytest

from coterie.tests.clients.federation import Federation


@pytest.fixture
def federation(tmp_path):
    """Three partners and a coordinator that have not met yet."""
    return Federation(tmp_path / "federation")


@pytest.fixture
def agreed(federation):
    """The same, after every partner's consent."""
    for name in federation.folders:
        federation.propose(name)
    return federation
