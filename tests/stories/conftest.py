"""One federation of real processes for every story that needs one: it takes seconds to start."""

import pytest

from coterie.tests.stories.deployed import Live


@pytest.fixture(scope="session")
def founded(tmp_path_factory):
    """A federation that is founded; nothing runs before somebody starts it."""
    live = Live(tmp_path_factory.mktemp("deployed"))
    try:
        yield live
    finally:
        live.close()


@pytest.fixture
def live(founded):
    """The federation, with its coordinator and the plan's partners up."""
    founded.start_all()
    return founded
