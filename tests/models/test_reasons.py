"""Reasons: what each column adds, exactly where log-odds are a sum of columns."""

import numpy as np
import pytest
import torch

from coterie.models import propensity
from coterie.models.additive import margins
from coterie.models.binning import GROUPS, BinnedColumn, Binning, cells_of, layout_of, slots_of
from coterie.models.features import Binned, Categorical, Encoding, Numeric, encode, reference
from coterie.models.modelfile import ModelFile
from coterie.models.reasons import contributions, slot_contributions, slot_differences, slot_names, top_reasons

ENCODING = Encoding((Numeric("age", 0, 10), Binned("spend", (5.0, 9.0)), Categorical("area", ("a", "b"))))
NAMES = ["age", "spend", "area"]
FEATURES = encode(
    ENCODING,
    {"age": np.array([0.0, 7.0, np.nan]), "spend": np.array([6.0, np.nan, 1.0]), "area": np.array([1.0, 0.0, -1.0])},
)


def model(family="logistic", hidden=4):
    rng = np.random.default_rng(1)
    weights = tuple(
        rng.normal(size=shape).astype(np.float32) for shape in propensity.shapes(family, ENCODING.width, hidden)
    )
    return ModelFile(family, hidden, weights, {})


def score(one, features):
    return propensity.logits(one.family, one.hidden, one.weights, features)


def test_logistic_contributions_add_up_to_the_score_exactly():
    one = model()
    added = contributions(one, ENCODING, FEATURES)
    unknown = score(one, reference(ENCODING)[None])[0]
    np.testing.assert_allclose(added.sum(axis=1), score(one, FEATURES) - unknown, atol=1e-5)


def test_a_logistic_contribution_is_the_column_s_weight_times_its_distance_from_the_reference():
    one = model()
    w = one.weights[0][0].astype(float)
    distance = (FEATURES - reference(ENCODING)).astype(float)
    expected = np.stack([distance[:, span] @ w[span] for span in ENCODING.spans()], axis=1)
    np.testing.assert_allclose(contributions(one, ENCODING, FEATURES), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["logistic", "mlp"])
def test_a_contribution_is_what_the_score_loses_without_its_column(family):
    one = model(family)
    added = contributions(one, ENCODING, FEATURES)
    for row in range(3):
        for column, span in enumerate(ENCODING.spans()):
            without = FEATURES[row].copy()
            without[span] = reference(ENCODING)[span]
            lost = score(one, FEATURES[row][None])[0] - score(one, without[None])[0]
            assert added[row, column] == pytest.approx(lost, abs=1e-5)


@pytest.mark.parametrize("family", ["logistic", "mlp"])
def test_a_missing_value_adds_nothing(family):
    added = contributions(model(family), ENCODING, FEATURES)
    assert added[2, 0] == added[1, 1] == added[2, 2] == 0
    assert (np.abs(added) > 1e-3).sum() == 6


def test_features_are_left_as_they_were():
    kept = FEATURES.copy()
    contributions(model("mlp"), ENCODING, FEATURES)
    np.testing.assert_array_equal(FEATURES, kept)


def test_the_strongest_reasons_come_first_with_their_sign():
    added = np.array([[0.1, -0.5, 0.3], [0.0, 0.0, -2.0]])
    assert top_reasons(added, NAMES, 2) == [["spend -0.50", "area +0.30"], ["area -2.00", "age +0.00"]]
    assert [len(row) for row in top_reasons(added, NAMES, 9)] == [3, 3]


BINNING = Binning(
    (
        BinnedColumn("age", atoms=(4.0,), edges=(2.0, 5.0, 8.0), low=0.0, high=10.0),
        BinnedColumn("area", words=("a", "b")),
    ),
    most=3,
    pairs=((0, 1),),
)
COUNTS = np.array([0.3, 0.1, 0.2, 0.15, 0.27, -0.02, 0.7, 0.28, 0.01], np.float32)
COLUMNS = {"age": np.array([4.0, 1.0, 9.0, np.nan]), "area": np.array([0.0, 1.0, -1.0, 1.0])}
LAYOUT = layout_of(BINNING, COUNTS)
SLOTS = slots_of(LAYOUT, cells_of(BINNING, COLUMNS))


def binned(family, hidden=4):
    rng = np.random.default_rng(2)
    shapes = propensity.shapes(family, BINNING.slots, hidden)
    weights = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return ModelFile(family, hidden, (COUNTS, *weights), {})


def mean_over_shares(values):
    """By the noisy shares, written out: of age 4; below 2 and 2 to 5, joined; 5 to 8; from 8; absent, below 0."""
    return np.average(values, weights=[0.3, 0.3, 0.15, 0.27, 0.0])


def test_on_bins_a_reason_is_the_slot_s_weight_less_its_mean_over_noisy_shares():
    weights = binned("additive").weights[1:]
    added = slot_contributions(weights, LAYOUT, SLOTS)
    age, area = weights[0][0, :5].astype(float), weights[0][0, 5:8].astype(float)
    # Rows: the atom, the first bin, the last bin, absent.
    np.testing.assert_allclose(added[:, 0], age[[0, 1, 3, 4]] - mean_over_shares(age), rtol=1e-6)
    wanted = area[[0, 1, 2, 1]] - np.average(area, weights=[0.7, 0.28, 0.01])
    np.testing.assert_allclose(added[:, 1], wanted, rtol=1e-6)


def test_on_bins_reasons_add_up_to_the_score():
    weights = binned("additive").weights[1:]
    told = margins(weights, SLOTS)
    added = slot_contributions(weights, LAYOUT, SLOTS)
    np.testing.assert_allclose(np.ptp(told - added.sum(axis=1)), 0.0, atol=1e-12)
    # The rest is one number: the mean score where columns had nothing to do with each other.
    flat, shares = weights[0][0].astype(float), np.maximum(LAYOUT.share, 0)
    spans = (slice(0, 5), slice(5, 8), slice(8, 8 + GROUPS**2))
    mean = float(weights[1][0]) + sum(np.average(flat[span], weights=shares[span]) for span in spans)
    np.testing.assert_allclose(told - added.sum(axis=1), mean, atol=1e-12)


def test_a_reason_of_an_mlp_on_bins_is_what_the_score_loses_with_its_column_at_the_mean():
    model = binned("mlp")
    added = slot_differences(model, LAYOUT, SLOTS)
    assert added.shape == (4, 3)
    module = propensity.build("mlp", BINNING.slots, 4)
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), model.weights[1:], strict=True):
            parameter.copy_(torch.from_numpy(array))
        rows = torch.zeros(4, BINNING.slots)
        for row, places in enumerate(SLOTS):
            rows[row, places] = 1.0
        without = rows.clone()
        without[:, :5] = torch.tensor([0.3, 0.3, 0.15, 0.27, 0.0]) / 1.02
        lost = (module(rows) - module(without))[:, 0].numpy()
    np.testing.assert_allclose(added[:, 0], lost, atol=1e-5)


def test_pieces_of_many_rows_are_put_together_as_they_were(monkeypatch):
    whole = slot_differences(binned("mlp"), LAYOUT, SLOTS)
    monkeypatch.setattr("coterie.models.reasons._PIECE", 3)
    np.testing.assert_allclose(slot_differences(binned("mlp"), LAYOUT, SLOTS), whole, atol=1e-6)


def test_pairs_are_named_as_plans_write_them():
    assert slot_names(LAYOUT) == ["age", "area", "age * area"]
