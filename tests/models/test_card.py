"""The model card says what its report says, and nothing where the report says nothing."""

import copy

import pytest

from coterie.models.card import model_card

REPORT = {
    "study": {
        "name": "spring",
        "purpose": "campaign selection",
        "task": "propensity",
        "family": "logistic",
        "digest": "sha256:plan",
        "expires": "2031-12-31",
        "partners": ["books", "fashion", "grocer"],
        "rounds": 4,
    },
    "guarantee": {
        "study": {
            "epsilon": 0.98765,
            "delta": 1e-5,
            "unit": "customer of one partner",
            "relation": "add or remove one customer",
            "trust": "local",
            "accountant": "PLD",
        },
        "words": ["First sentence.", "Second sentence."],
        "not_covered": ["What it is not."],
    },
    "model": {"file": "model.safetensors", "sha256": "abc"},
    "release": {
        "rounds": [
            {"auc": 0.6111, "average_precision": 0.2, "top_decile_lift": 1.5, "calibration_error": 0.05},
            {"auc": 0.7222, "average_precision": 0.3333, "top_decile_lift": 2.4444, "calibration_error": None},
        ]
    },
}


@pytest.fixture
def report():
    return copy.deepcopy(REPORT)


def test_a_card_carries_the_study_the_model_and_the_whole_guarantee(report):
    card = model_card(report)
    study, bound = report["study"], report["guarantee"]["study"]
    for fact in (study["name"], study["purpose"], study["family"], study["digest"], study["expires"], "3 partners"):
        assert fact in card
    for fact in ("epsilon 0.988", "delta 1e-05", bound["unit"], bound["relation"], bound["trust"], bound["accountant"]):
        assert fact in card
    for fact in (*report["guarantee"]["words"], *report["guarantee"]["not_covered"], "model.safetensors", "abc"):
        assert fact in card


def test_figures_are_those_of_the_last_round_and_undefined_ones_are_dashes(report):
    card = model_card(report)
    assert "| auc | 0.722 |" in card
    assert "| top_decile_lift | 2.444 |" in card
    assert "| calibration_error | - |" in card
    assert "0.611" not in card


def test_a_study_without_metrics_has_dashes_alone(report):
    report["release"]["rounds"] = []
    assert model_card(report).count("| - |") == 4


def test_a_run_without_a_guarantee_says_none(report):
    report["guarantee"]["study"]["epsilon"] = None
    assert "epsilon none" in model_card(report)


def point(label, contribution, *, share=0.3, noise=0.1):
    return {"label": label, "share": share, "contribution": contribution, "noise_most": noise}


def with_shapes(report, *points, name="age", trend=0):
    column = {"name": name, "importance": 0.456, "trend": trend, "points": list(points)}
    report["release"]["shapes"] = {"columns": [column]}
    return model_card(report)


def test_a_model_that_can_be_told_says_where_its_columns_add_most_and_least(report):
    card = with_shapes(report, point("17 to 25", -1.5), point("25 to 50", 0.9), point("50 to 90", 0.4))
    assert "| age | 0.46 | most for 25 to 50 (+0.90); least for 17 to 25 (-1.50) |" in card


def test_what_is_rare_or_not_clear_of_its_noise_is_no_direction(report):
    rare = point("rare", 5.0, share=0.001)
    card = with_shapes(report, rare, point("unsure", 2.0, noise=1.1), point("sure", 1.0), point("low", -0.1))
    assert "| most for sure (+1.00) |" in card
    assert "lost in the noise" in with_shapes(report, rare, point("unsure", 2.0, noise=1.1))


def test_a_trend_is_named_and_noise_that_is_not_known_hides_nothing(report):
    card = with_shapes(report, point("up", 1.0, noise=None), point("down", -1.0, noise=None), trend=-1)
    assert "| may only fall; most for up (+1.00); least for down (-1.00) |" in card


def test_names_stay_in_their_cells(report):
    card = with_shapes(report, point("a|b\n| c", 1.0), name="pipe|name")
    assert "| pipe\\|name | 0.46 | most for a\\|b \\| c (+1.00) |" in card


def test_a_model_that_cannot_be_told_says_nothing(report):
    assert "What it says" not in model_card(report)
