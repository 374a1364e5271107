"""Three hundred faults and more, injected into real processes: no budget is lost, no model wrong, no run stuck."""

import random

import pytest

from coterie.tests.faults.faults import KINDS
from coterie.tests.faults.network import missing
from coterie.tests.faults.suite import batches
from coterie.tests.faults.table import suite, table


def test_the_suite_injects_three_hundred_faults_and_never_takes_the_threshold_away():
    dealt = list(batches(KINDS, random.Random(1)))  # noqa: S311
    assert sum(len(batch) for batch in dealt) == sum(kind.count for kind in KINDS) >= 300
    for batch in dealt:
        assert sum(kind.at in ("partner", "link") for kind, _ in batch) <= 2
        assert sum(kind.at == "coordinator" for kind, _ in batch) <= 1
        assert len({who for _, who in batch if who}) == sum(bool(who) for _, who in batch)


@pytest.mark.slow
def test_after_three_hundred_faults_no_budget_is_lost_no_model_wrong_and_no_run_stuck(tmp_path):
    lacking = missing()
    assert not lacking, "these faults need " + ", ".join(lacking)
    outcome = suite(tmp_path / "site", seed=20261122)
    told = table(outcome)
    assert outcome.count.injected >= 300, told
    assert outcome.unpaid == [], told
    assert outcome.audits == [], told
    assert outcome.wrong == [], told
    assert outcome.different == [], told
    assert outcome.repeated > 0, "no question was asked twice, so nothing is known of the same bytes"
    assert sum(row.stuck for row in outcome.count.rows.values()) == 0, told
    assert sum(row.unnamed for row in outcome.count.rows.values()) == 0, told
