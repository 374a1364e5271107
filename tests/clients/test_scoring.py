"""Scoring: a partner's own customers, in its own building, in a file for its own eyes."""

import os
import stat
import traceback

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from coterie.clients.scoring import score
from coterie.clients.tables.files import table_at
from coterie.models.modelfile import ModelFile, model_bytes
from coterie.privacy.errors import ContractFault, FileFault
from coterie.privacy.randomness import OsSource
from coterie.tests.clients.bad_tables import CANARIES, FAULTS, as_tables
from coterie.tests.clients.federation import REGIONS, study, table_of, with_column

# age; spend below 50, to 150, from 150; north, south, east
WEIGHTS = (np.array([[0.5, -1.0, 0.25, 1.5, 0.1, -0.2, 0.3]], np.float32), np.array([-0.4], np.float32))
LABELLED = {name for name, (_, column, _) in FAULTS.items() if column == "bought"}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(ModelFile("logistic", 32, WEIGHTS, {"plan": study().to_dict()})))
    return path


def log_odds(row):
    """By hand, from the contract's public bounds."""
    bins = [row["spend"] < 50, 50 <= row["spend"] < 150, row["spend"] >= 150]
    features = [(row["age"] - 54) / 36, *map(float, bins), *(float(row["region"] == region) for region in REGIONS)]
    return float(np.dot(WEIGHTS[0][0].astype(float), features)) + float(WEIGHTS[1][0])


def written(table, path):
    (pyarrow.csv.write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table)(table, path)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_every_row_is_scored_by_the_models_formula(model, tmp_path, suffix):
    table = table_of()
    source = written(table.drop_columns(["bought"]), tmp_path / f"table.{suffix}")
    scored = score(model, table_at(source), tmp_path / "scores.parquet", reasons=2, random=OsSource())
    got = pyarrow.parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    assert scored.rows == len(got) == 150
    expected = [1 / (1 + np.exp(-log_odds(row))) for row in table.to_pylist()]
    np.testing.assert_allclose([row["score"] for row in got], expected, rtol=1e-5)
    assert [row["customer"] for row in got] == table["customer"].to_pylist()
    assert all(len(row["reasons"]) == 2 for row in got)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1.25), (1.75, 0.5), (1.0, 0.3), (0.0, -2.0), (1.0, 0.0)])
def test_a_model_with_a_calibration_says_what_its_scores_are_worth(tmp_path, slope, intercept):
    path, table = tmp_path / "model.safetensors", table_of()
    about = {"plan": study().to_dict(), "calibration": {"slope": slope, "intercept": intercept}}
    path.write_bytes(model_bytes(ModelFile("logistic", 32, WEIGHTS, about)))
    source = written(table, tmp_path / "table.parquet")
    score(path, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource(), contact=0.1)
    got = pyarrow.parquet.read_table(tmp_path / "scores.parquet")
    assert got.column_names == ["customer", "score", "calibrated", "decile", "reasons", "contact"]
    # Odds to the power of the slope, times e to the intercept.
    odds = [np.exp(log_odds(row)) ** slope * np.exp(intercept) for row in table.to_pylist()]
    np.testing.assert_allclose(got["calibrated"], [one / (1 + one) for one in odds], rtol=1e-5)
    # The score stays what the model says.
    expected = [1 / (1 + np.exp(-log_odds(row))) for row in table.to_pylist()]
    np.testing.assert_allclose(got["score"], expected, rtol=1e-5)


def test_a_model_of_before_is_scored_without_a_calibration(model, tmp_path):
    source = written(table_of(), tmp_path / "table.parquet")
    score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())
    names = pyarrow.parquet.read_table(tmp_path / "scores.parquet").column_names
    assert names == ["customer", "score", "decile", "reasons"]


@pytest.mark.parametrize(
    "told",
    [
        {"slope": -0.5, "intercept": 0.0},
        {"slope": float("nan"), "intercept": 0.0},
        {"slope": 1.0, "intercept": float("inf")},
        {"slope": 1.0},
        {"slope": 1.0, "intercept": 0.0, "more": 1.0},
        {"slope": "1.0", "intercept": 0.0},
        {"slope": True, "intercept": 0.0},
        [1.0, 0.0],
        {},
    ],
)
def test_a_calibration_that_cannot_be_is_refused(tmp_path, told):
    path = tmp_path / "model.safetensors"
    about = {"plan": study().to_dict(), "calibration": told}
    path.write_bytes(model_bytes(ModelFile("logistic", 32, WEIGHTS, about)))
    source = written(table_of(), tmp_path / "table.parquet")
    with pytest.raises(FileFault, match="calibration that cannot be"):
        score(path, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())
    assert not (tmp_path / "scores.parquet").exists()


def test_deciles_are_tenths_of_the_customers_best_first(model, tmp_path):
    source = written(table_of(), tmp_path / "table.parquet")
    score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())
    got = pyarrow.parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    assert np.bincount([row["decile"] for row in got]).tolist() == [0, *[15] * 10]
    best = sorted(got, key=lambda row: -row["score"])
    assert [row["decile"] for row in best] == sorted(row["decile"] for row in got)


@pytest.mark.parametrize(("share", "most"), [(0.1, 15), (0.82, 123), (0.0, 0), (1.0, 150), (0.006, 0), (0.62, 93)])
def test_a_share_of_the_customers_is_marked_for_contact_best_first(model, tmp_path, share, most):
    source = written(table_of(), tmp_path / "table.parquet")
    scored = score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource(), contact=share)
    got = pyarrow.parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    marked = [row["score"] for row in got if row["contact"]]
    assert scored.contacted == len(marked) == most
    assert min(marked, default=1) >= max((row["score"] for row in got if not row["contact"]), default=0)


def test_nobody_is_marked_where_nobody_asked(model, tmp_path):
    source = written(table_of(), tmp_path / "table.parquet")
    scored = score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())
    assert scored.contacted is None
    assert "contact" not in pyarrow.parquet.read_table(tmp_path / "scores.parquet").column_names


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_to_contact_that_cannot_be_is_refused(model, tmp_path, share):
    source = written(table_of(), tmp_path / "table.parquet")
    with pytest.raises(FileFault, match=r"must be in \[0, 1\]"):
        score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource(), contact=share)
    assert not (tmp_path / "scores.parquet").exists()


def test_identifiers_come_back_as_they_were_written(model, tmp_path):
    names = [f"{number:05d}" for number in range(150)]
    source = written(with_column(table_of(), "customer", names), tmp_path / "table.csv")
    score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())
    assert pyarrow.parquet.read_table(tmp_path / "scores.parquet")["customer"].to_pylist() == names


def test_the_scores_are_readable_by_their_owner_alone(model, tmp_path):
    source = written(table_of(), tmp_path / "table.parquet")
    before = os.umask(0)
    try:
        score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "scores.parquet").stat().st_mode) == 0o600


def test_an_output_that_is_there_is_never_written_over(model, tmp_path):
    source = written(table_of(), tmp_path / "table.parquet")
    (tmp_path / "scores.parquet").write_text("mine")
    with pytest.raises(FileFault, match="exists"):
        score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())
    assert (tmp_path / "scores.parquet").read_text() == "mine"


@pytest.mark.parametrize("name", sorted(set(FAULTS) - LABELLED - {"a missing label", "a customer twice"}))
def test_a_bad_table_is_not_scored_and_its_values_are_not_said(model, tmp_path, name):
    source = written(as_tables(FAULTS)[name], tmp_path / "table.csv")
    with pytest.raises(ContractFault) as caught:
        score(model, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())
    said = "".join(traceback.format_exception(caught.value))
    assert not any(canary in said for canary in CANARIES)
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "model.safetensors"}


@pytest.mark.parametrize("harm", ["gone", "garbage", "another plan's weights", "no plan"])
def test_what_is_no_model_is_refused(tmp_path, harm):
    path = tmp_path / "model.safetensors"
    wide = (np.zeros((1, 9), np.float32), WEIGHTS[1])
    if harm == "garbage":
        path.write_bytes(b"\0" * 100)
    elif harm == "another plan's weights":
        path.write_bytes(model_bytes(ModelFile("logistic", 32, wide, {"plan": study().to_dict()})))
    elif harm == "no plan":
        path.write_bytes(model_bytes(ModelFile("logistic", 32, WEIGHTS, {})))
    source = written(table_of(), tmp_path / "table.parquet")
    with pytest.raises(FileFault):
        score(path, table_at(source), tmp_path / "scores.parquet", reasons=1, random=OsSource())


def test_a_folder_that_cannot_be_written_is_one_clear_error(model, tmp_path):
    source = written(table_of(), tmp_path / "table.parquet")
    with pytest.raises(FileFault, match="cannot be written"):
        score(model, table_at(source), tmp_path / "nowhere" / "scores.parquet", reasons=1, random=OsSource())
