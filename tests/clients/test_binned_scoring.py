"""Scoring with models on private bins: each row by its slots, with reasons that add up to its score."""

import dataclasses

import numpy as np
import pyarrow.parquet
import pytest

from coterie.clients.scoring import score
from coterie.clients.tables.files import table_at
from coterie.clients.task import weight_shapes
from coterie.models import propensity
from coterie.models.modelfile import ModelFile, model_bytes
from coterie.privacy.errors import FileFault
from coterie.privacy.plan import Bins
from coterie.privacy.randomness import OsSource
from coterie.tests.clients.binnedkit import AUDITED, binned, own_cells, table_of

WHOLE = Bins(most=16, cells=16)  # no cells are joined, so that a slot is a cell
SPANS = {"age": slice(0, 17), "spend": slice(17, 35), "region": slice(35, 39)}


def plan_of(family, **changes):
    return binned(family, bins=WHOLE, **changes)


def weights_of(plan):
    draw = np.random.default_rng(4)
    counts, *others = weight_shapes(plan)
    shares = draw.uniform(0.01, 1, counts)
    for span in SPANS.values():
        shares[span] /= shares[span].sum()
    shares[SPANS["region"].stop - 1] = -0.01  # noise may leave less than nobody
    return (shares.astype(np.float32), *(draw.normal(size=shape).astype(np.float32) for shape in others))


def scored(tmp_path, plan, weights, table, *, reasons=20):
    about = {"plan": plan.to_dict()}
    (tmp_path / "m.safetensors").write_bytes(
        model_bytes(ModelFile(plan.model.family, plan.model.hidden, weights, about))
    )
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    output = tmp_path / "scores.parquet"
    output.unlink(missing_ok=True)
    source = table_at(tmp_path / "table.parquet")
    made = score(tmp_path / "m.safetensors", source, output, reasons=reasons, random=OsSource())
    return made, pyarrow.parquet.read_table(output).to_pylist()


def told(reasons):
    """Reasons by column."""
    return {name: float(value) for name, _, value in (reason.rpartition(" ") for reason in reasons)}


@pytest.mark.parametrize("family", ["additive", "logistic"])
def test_every_row_is_scored_by_its_slots(tmp_path, family):
    plan, table = plan_of(family), table_of()
    weights = weights_of(plan)
    made, got = scored(tmp_path, plan, weights, table.drop_columns(["bought", "sex"]))
    flat = weights[1][0].astype(float)
    odds = [float(weights[2][0]) + flat[own_cells(plan, row)].sum() for row in table.to_pylist()]
    np.testing.assert_allclose([row["score"] for row in got], 1 / (1 + np.exp(-np.array(odds))), rtol=1e-9)
    assert made.rows == 80
    assert {"age: missing", "spend: missing", "region: outside the vocabulary"} <= set(made.notes)


@pytest.mark.parametrize("family", ["additive", "logistic"])
def test_reasons_are_what_slots_add_to_the_mean_over_noisy_shares(tmp_path, family):
    plan, table = plan_of(family), table_of()
    weights = weights_of(plan)
    _, got = scored(tmp_path, plan, weights, table)
    flat, shares = weights[1][0].astype(float), np.maximum(weights[0], 0).astype(float)
    means = {name: np.average(flat[span], weights=shares[span]) for name, span in SPANS.items()}
    for row, source in zip(got, table.to_pylist(), strict=True):
        cells = dict(zip(SPANS, own_cells(plan, source), strict=True))
        for name, found in told(row["reasons"]).items():
            assert found == pytest.approx(flat[cells[name]] - means[name], abs=0.00501)
        odds = np.log(row["score"] / (1 - row["score"]))
        whole = float(weights[2][0]) + sum(means.values()) + sum(told(row["reasons"]).values())
        assert odds == pytest.approx(whole, abs=3 * 0.00501)


def test_a_pair_is_a_reason_of_its_own(tmp_path):
    plan = binned("additive", bins=dataclasses.replace(WHOLE, pairs=("age * region",)))
    weights = weights_of(plan)
    _, got = scored(tmp_path, plan, weights, table_of())
    assert all(set(told(row["reasons"])) == {"age", "spend", "region", "age * region"} for row in got)
    whole = [np.log(row["score"] / (1 - row["score"])) - sum(told(row["reasons"]).values()) for row in got]
    assert np.ptp(whole) < 2 * 4 * 0.00501


def test_an_mlp_on_bins_scores_its_indicators_and_explains_one_column_at_a_time(tmp_path):
    plan, table = plan_of("mlp"), table_of()
    weights = weights_of(plan)
    _, got = scored(tmp_path, plan, weights, table)
    rows = np.zeros((80, 39), np.float32)
    for row, source in enumerate(table.to_pylist()):
        rows[row, own_cells(plan, source)] = 1.0
    odds = propensity.logits("mlp", 3, weights[1:], rows)
    np.testing.assert_allclose([row["score"] for row in got], 1 / (1 + np.exp(-odds)), rtol=1e-5)
    shares = np.maximum(weights[0], 0)
    for name, span in SPANS.items():
        without = rows.copy()
        without[:, span] = shares[span] / shares[span].sum()
        lost = odds - propensity.logits("mlp", 3, weights[1:], without)
        np.testing.assert_allclose([told(row["reasons"])[name] for row in got], lost, atol=0.0051)


@pytest.mark.parametrize("family", ["additive", "logistic", "mlp"])
def test_columns_for_audits_are_not_asked_for(tmp_path, family):
    plan = plan_of(family, contract=AUDITED, metrics__groups="sex")
    weights = weights_of(plan)
    made, with_it = scored(tmp_path, plan, weights, table_of())
    _, without = scored(tmp_path, plan, weights, table_of().drop_columns(["sex", "bought"]))
    assert with_it == without
    assert not any("sex" in note for note in made.notes)
    assert all("sex" not in told(row["reasons"]) for row in with_it)


def test_weights_without_the_counts_of_the_bins_are_no_model_of_the_plan(tmp_path):
    plan = plan_of("additive")
    with pytest.raises(FileFault, match="not its plan's"):
        scored(tmp_path, plan, weights_of(plan)[1:], table_of())
