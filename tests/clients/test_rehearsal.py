"""The dry round: a partner's whole way with made-up customers, which leaves nothing behind."""

import datetime
import inspect
import tempfile

import pytest

from coterie.clients import rehearsal
from coterie.clients.preflight import run_checks
from coterie.clients.rehearsal import RehearsalFault, rehearse

LATER = datetime.datetime(2044, 2, 29, 23, 59, tzinfo=datetime.UTC)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder in which temporary folders are made."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_a_dry_round_charges_for_an_update_and_a_histogram_and_leaves_nothing(scratch, monkeypatch):
    seen = []
    ended = rehearsal.open_node

    def watched(root, **given):
        seen.append(root)
        return ended(root, **given)

    monkeypatch.setattr(rehearsal, "open_node", watched)
    assert rehearse(lambda: LATER) == 2
    assert [(scratch in root.parents, root.exists()) for root in seen] == [(True, False)]
    assert list(scratch.glob("coterie-*")) == []  # torch leaves an empty folder of its own


def test_a_dry_round_has_no_part_of_the_real_workspace():
    assert list(inspect.signature(rehearse).parameters) == ["clock"]


def test_a_plan_that_is_not_consented_to_is_a_finding(scratch, monkeypatch):
    policy = rehearsal._policy
    monkeypatch.setattr(rehearsal, "_policy", lambda key: policy(key).replace('["rehearsal"]', '["another"]'))
    with pytest.raises(RehearsalFault, match=r"refused its own plan: purpose\. Fix: "):
        rehearse(lambda: LATER)
    assert list(scratch.glob("coterie-*")) == []  # torch leaves an empty folder of its own
    (check,) = run_checks(iter([("dry round", lambda: str(rehearse(lambda: LATER)))]))
    assert not check.fine
