"""Reasons: what each column adds, exactly for the logistic family."""

import numpy as np
import pytest

from coterie.models import propensity
from coterie.models.features import Binned, Categorical, Encoding, Numeric, encode, reference
from coterie.models.modelfile import ModelFile
from coterie.models.reasons import contributions, top_reasons

ENCODING = Encoding((Numeric("age", 0, 10), Binned("spend", (5.0, 9.0)), Categorical("area", ("a", "b"))))
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
    assert top_reasons(added, ENCODING, 2) == [["spend -0.50", "area +0.30"], ["area -2.00", "age +0.00"]]
    assert [len(row) for row in top_reasons(added, ENCODING, 9)] == [3, 3]
