"""Tiny studies on private bins from the first question to the last: families, trusts, interruptions, and what is left.

What every partner exports of its ledger verifies, and costs what the plan said that it would.
"""

import numpy as np
import pytest

from coterie.clients.predicting import row_logits
from coterie.clients.task import binning_of, weight_shapes
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.plan import Metrics
from coterie.privacy.randomness import OsSource
from coterie.privacy.review.cross import cross_check
from coterie.privacy.statement import statement
from coterie.server.coordinator import Interrupted
from coterie.tests.clients.binnedkit import AUDITED, BINS, Binned, binned, changed, table_of
from coterie.tests.clients.summing import FOUR, quick_folder
from coterie.tests.privacy.review.bundles import exported, failing, verdict_of

GROUPED = {"contract": AUDITED, "metrics": Metrics(rounds=(1,), bins=8, groups="sex")}
SHAPED = {"bins": changed(BINS, pairs=("age * region",), rising=("spend",)), "training__positive_weight": 2.0}
STUDIES = {
    "additive local": binned("additive", "local", **GROUPED, **SHAPED),
    "additive secure": binned("additive", "secure-aggregation", **GROUPED, **SHAPED),
    "logistic local": binned("logistic", "local", training__positive_weight=3.0, training__sample_rate=0.5),
    "logistic secure": binned("logistic", "secure-aggregation", bins=changed(BINS, pairs=("spend * region",))),
    "mlp local": binned("mlp", "local", metrics=GROUPED["metrics"], contract=AUDITED),
    "mlp secure": binned("mlp", "secure-aggregation", training__sample_rate=0.5, training__positive_weight=2.0),
}
STUDIES = {label: changed(plan, training__local_steps=2) for label, plan in STUDIES.items()}
STEPS = ["count/1", "evaluate/1", "train/1", "train/2"]


@pytest.fixture(scope="module")
def finished():
    """Every study, carried out when it is first asked for."""
    with quick_folder() as folder:
        known = {}

        def run(label):
            if label not in known:
                federation = Binned(folder / label.replace(" ", "-"), STUDIES[label])
                federation.random = OsSource()
                known[label] = federation, federation.run()
            return known[label]

        yield run


def steps_of(federation, name):
    return sorted(r.charge.step for r in federation.reservations(name))


@pytest.mark.parametrize("label", STUDIES)
def test_a_study_ends_with_a_model_and_a_histogram_and_every_partner_is_charged_once_for_each_sum(finished, label):
    federation, progress = finished(label)
    plan = federation.plan
    assert (progress.round, progress.refusals) == (1, ())
    assert tuple(array.shape for array in progress.weights) == weight_shapes(plan)
    assert all(np.isfinite(array).all() for array in progress.weights)
    assert all(np.abs(array).max() > 0 for array in progress.weights)
    for name in FOUR:
        assert steps_of(federation, name) == STEPS
        assert all(r.settled for r in federation.reservations(name))
    histograms = progress.histograms[1]
    assert len(histograms) == (4 if plan.privacy.trust == "local" else 1)
    assert {counts.shape for counts in histograms.values()} == {plan.histogram_shape}
    total = sum(int(counts.sum()) for counts in histograms.values())
    held_out = sum(len(federation.divided(table_of(name), name)[1]) for name in FOUR)
    event = calibrate(plan).histogram
    noise = 2 * (event.sigma if plan.privacy.trust == "local" else event.share / event.sensitivity)
    cells = np.prod(plan.histogram_shape)
    assert abs(total - held_out) < 6 * noise * np.sqrt(cells) + cells  # once in a billion, and rounding


@pytest.mark.parametrize("label", ["additive local", "additive secure"])
def test_the_published_score_never_falls_along_a_column_that_rises(finished, label):
    federation, progress = finished(label)
    age, spend, region = binning_of(federation.plan).cell_spans()
    rows = np.array([[age.start, cell, region.start] for cell in range(spend.start, spend.stop - 1)])
    assert (np.diff(row_logits(federation.plan, progress.weights, rows)) >= 0).all()


@pytest.mark.parametrize("label", STUDIES)
def test_what_partners_export_verifies_and_costs_what_the_plan_says(finished, label):
    federation, _ = finished(label)
    plan, made = federation.plan, calibrate(federation.plan)
    said = statement(plan, made)["study"]["epsilon"]
    assert 0.95 * plan.privacy.epsilon < said <= plan.privacy.epsilon
    verdicts = [verdict_of(exported(federation, name)) for name in FOUR]
    for verdict in verdicts:
        assert failing(verdict) == {}
        (study,) = verdict.studies
        assert (study.epsilon, study.settled, study.lost, study.unsettled) == (plan.privacy.epsilon, 4, 0, 0)
        charged = {group.group: dict(group.events) for group in study.groups}
        assert charged[TRAINING] == {made.counting: 1, made.update: 2}
        assert charged[HOLDOUT] == {made.histogram: 1}
    assert cross_check(verdicts).status == "holds"


@pytest.mark.parametrize("label", ["additive local", "additive secure"])
def test_two_accountants_find_what_was_charged_within_the_plan(finished, label):
    federation, _ = finished(label)
    verdict = verdict_of(exported(federation), accounting=True)
    assert failing(verdict) == {}
    (study,) = verdict.studies
    for group in study.groups:
        assert group.charges == group.declared
        assert group.recomputed == group.claimed
        assert group.recomputed.low <= group.recomputed.first <= federation.plan.privacy.epsilon
        assert group.recomputed.low > 0.95 * federation.plan.privacy.epsilon


@pytest.mark.parametrize("label", ["additive local", "additive secure"])
def test_an_interrupted_study_goes_on_with_the_same_counts_and_nobody_is_charged_twice(label):
    with quick_folder() as folder:
        federation, asked = Binned(folder / "f", STUDIES[label]), []

        def stop():
            asked.append(1)
            return len(asked) == 2

        with pytest.raises(Interrupted):
            federation.run(stop=stop)
        assert {step for name in FOUR for step in steps_of(federation, name)} == {"count/1"}
        halfway = federation.places()[0].resume(federation.digest).weights[0].tobytes()
        progress = federation.run()
        assert progress.refusals == ()
        assert progress.weights[0].tobytes() == halfway
        assert any(progress.weights[0])
        for name in FOUR:
            assert steps_of(federation, name) == STEPS
