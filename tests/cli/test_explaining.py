"""The command that shows a model whole."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from coterie.cli.main import app
from coterie.clients.task import weight_shapes
from coterie.models.modelfile import ModelFile, model_bytes
from coterie.privacy.errors import FileFault
from coterie.privacy.plan import Bins, Secure
from coterie.tests.clients.binnedkit import binned

BINS = Bins(most=5, cells=16, falling=("spend",), pairs=("age * region",))


@pytest.fixture
def explain(tmp_path):
    """Write a plan's model, and show it; return the exit code, what was printed, and the weights."""

    def call(plan, *words):
        draw = np.random.default_rng(2)
        counts, *others = weight_shapes(plan)
        weights = (draw.uniform(size=counts).astype(np.float32), *(draw.normal(size=s).astype("f4") for s in others))
        about = {"plan": plan.to_dict()}
        path = tmp_path / "model.safetensors"
        path.write_bytes(model_bytes(ModelFile(plan.model.family, plan.model.hidden, weights, about)))
        done = CliRunner().invoke(app, ["partner", "explain", str(path), *words], env={"COLUMNS": "200"})
        return done, weights

    return call


def test_every_column_and_pair_is_shown(explain):
    done, _ = explain(binned("additive", bins=BINS))
    assert done.exit_code == 0
    for name in ("age:", "spend:", "region:", "age * region:"):
        assert name in done.output
    assert done.output.count("may only fall") == 1
    assert "north" in done.output
    assert "absent" in done.output


def test_as_json_the_intercept_and_contributions_are_the_model(explain):
    done, weights = explain(binned("additive", bins=BINS), "--json")
    found = json.loads(done.output)
    region = next(shape for shape in found["shapes"] if shape["name"] == "region")
    added = [point["contribution"] for point in region["points"]]
    assert [point["label"] for point in region["points"]] == ["north", "south", "east", "absent"]
    own = weights[1][0][13:17].astype(float)  # after 6 slots of the age and 7 of the spend
    np.testing.assert_allclose(np.array(added) - added[0], own - own[0], atol=1e-9)
    assert np.shape(found["pairs"][0]["noise"]) == (7, 7)


def test_noise_that_is_not_known_is_a_dash(explain):
    done, _ = explain(binned("logistic", secure=Secure(optimizer="adam")))
    assert done.exit_code == 0
    assert " - " in done.output


@pytest.mark.parametrize("family", ["mlp", "logistic"])
def test_a_model_that_its_weights_do_not_explain_is_refused(explain, family):
    plan = binned("mlp") if family == "mlp" else binned("logistic", bins=None, secure=None)
    done, _ = explain(plan)
    assert isinstance(done.exception, FileFault)
    assert "do not explain" in str(done.exception)
