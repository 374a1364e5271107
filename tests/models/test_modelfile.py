"""Model files: what comes back, that equal models are equal bytes, and that damage is told as what it is."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy

from coterie.models.modelfile import ModelFile, ModelFileError, load_model, model_bytes
from coterie.models.propensity import initial

ABOUT = {"contract": {"customer": "id", "columns": []}, "plan": "sha256:p", "guarantee": {"epsilon": 0.99, "é": None}}


def model(family="mlp", hidden=3, seed=0):
    return ModelFile(family, hidden, initial(family, 4, hidden, seed=seed), ABOUT)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("family", ["logistic", "mlp"])
def test_a_model_comes_back_whole(path, family):
    written = model(family)
    path.write_bytes(model_bytes(written))
    back = load_model(path)
    assert (back.family, back.hidden, back.about) == (family, 3, ABOUT)
    assert len(back.weights) == len(written.weights)
    for now, before in zip(back.weights, written.weights, strict=True):
        np.testing.assert_array_equal(now, before)
        assert now.dtype == np.float32


def test_weights_keep_their_order_beyond_ten(path):
    many = tuple(np.full(2, i, np.float32) for i in range(12))
    path.write_bytes(model_bytes(ModelFile("mlp", 1, many, {})))
    assert [w[0] for w in load_model(path).weights] == list(range(12))


def test_equal_models_are_equal_bytes_and_different_ones_are_not():
    turned = dict(reversed(ABOUT.items()))
    assert model_bytes(model()) == model_bytes(ModelFile("mlp", 3, model().weights, turned))
    transposed = tuple(np.asfortranarray(w) for w in model().weights)
    assert model_bytes(ModelFile("mlp", 3, transposed, ABOUT)) == model_bytes(model())
    others = [
        model(seed=5),
        ModelFile("logistic", 3, model().weights, ABOUT),
        ModelFile("mlp", 4, model().weights, ABOUT),
        ModelFile("mlp", 3, model().weights, {**ABOUT, "plan": "sha256:q"}),
        ModelFile("mlp", 3, model().weights[:3], ABOUT),
    ]
    assert len({model_bytes(one) for one in (model(), *others)}) == 6


def test_no_shortened_file_is_a_model(path):
    data = model_bytes(model())
    for cut in range(0, len(data), 3):
        path.write_bytes(data[:cut])
        with pytest.raises(ModelFileError, match="not a model"):
            load_model(path)


@pytest.mark.parametrize("mask", [0x01, 0x20])
def test_a_damaged_header_is_a_model_or_a_clear_error_and_nothing_else(path, mask):
    data = model_bytes(model())
    header = 8 + struct.unpack("<Q", data[:8])[0]
    refused = 0
    for position in range(header):
        damaged = bytearray(data)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        try:
            assert isinstance(load_model(path), ModelFile)
        except ModelFileError:
            refused += 1
    assert refused > header / 4


def stored(head, name="weights.0"):
    return safetensors.numpy.save({name: np.zeros(1, np.float32)}, {"coterie": head} if head is not None else None)


GOOD = {"format": "coterie/model/v1", "family": "logistic", "hidden": 1, "about": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"canary" * 100,
        stored(None),
        stored("canary"),
        stored("[]"),
        stored('"text"'),
        stored("{}"),
        stored(json.dumps({**GOOD, "format": "coterie/model/v2"})),
        stored(json.dumps({k: v for k, v in GOOD.items() if k != "about"})),
        stored(json.dumps({**GOOD, "hidden": "many"})),
        stored(json.dumps({**GOOD, "hidden": None})),
        stored(json.dumps({**GOOD, "hidden": float("inf")})),
        stored("[" * 100_000),
        stored(json.dumps(GOOD), name="weights"),
        stored(json.dumps(GOOD), name="weights.x"),
    ],
    ids=str.split("empty text nothing word list string {} version about hidden null endless nesting name number"),
)
def test_what_is_not_a_model_of_this_format_is_a_clear_error(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not a model"):
        load_model(path)


def test_a_file_that_is_missing_or_a_folder_is_a_clear_error(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ModelFileError, match="not a model"):
            load_model(path)


def test_nothing_in_the_file_can_run(path):
    path.write_bytes(model_bytes(model()))
    assert b"pickle" not in path.read_bytes()
    assert not path.read_bytes().startswith(b"PK")
