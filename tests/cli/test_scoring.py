"""The command by which a partner scores its customers and marks whom to contact."""

import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from coterie.cli.main import app
from coterie.models.modelfile import ModelFile, model_bytes
from coterie.tests.clients.federation import study, table_of


@pytest.fixture
def score(tmp_path):
    """Score the table of a partner; return the exit code and what was printed."""
    model, source = tmp_path / "model.safetensors", tmp_path / "table.parquet"
    weights = (np.array([[0.5, -1.0, 0.25, 1.5, 0.1, -0.2, 0.3]], np.float32), np.array([-0.4], np.float32))
    model.write_bytes(model_bytes(ModelFile("logistic", 32, weights, {"plan": study().to_dict()})))
    pyarrow.parquet.write_table(table_of(), source)

    def call(*words):
        places = ["--model", model, "--input", source, "--output", tmp_path / "scores.parquet"]
        done = CliRunner().invoke(app, ["partner", "score", *map(str, places), *words])
        return done.exit_code, done.output

    return call


def test_a_share_is_marked_for_contact(score, tmp_path):
    code, said = score("--contact", "0.1")
    assert code == 0
    assert "150 rows scored" in said
    assert "15 of them are marked in the column contact" in said
    got = pyarrow.parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    best = sorted(got, key=lambda row: -row["score"])
    assert [row["contact"] for row in best] == [True] * 15 + [False] * 135


def test_without_a_share_nobody_is_marked(score, tmp_path):
    code, said = score()
    assert code == 0
    assert "contact" not in said
    assert "contact" not in pyarrow.parquet.read_table(tmp_path / "scores.parquet").column_names


def test_a_share_that_cannot_be_is_refused(score, tmp_path):
    code, said = score("--contact", "1.5")
    assert code == 2
    assert "1.5 is not in the range" in said
    assert not (tmp_path / "scores.parquet").exists()
