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
