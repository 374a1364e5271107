"""The registry: what was published is there again after an interruption, or is said to be damaged."""

import os

import numpy as np
import pytest

from coterie.privacy.errors import FileFault
from coterie.server.aggregate import AdamState
from coterie.server.registry import Progress, Refusal, Registry, with_news

DRAW = np.random.default_rng(4)
REFUSALS = (Refusal("amber", "train", 2, "lost"), Refusal("node 7", "consent", 0, "rejected", "sent another shape"))


def progress(round_=2, plan="sha256:aa"):
    weights = (DRAW.normal(size=(2, 3)).astype(np.float32), DRAW.normal(size=1).astype(np.float32))
    moments = [tuple(DRAW.normal(size=w.shape) for w in weights) for _ in range(2)]
    histograms = {1: {"amber": DRAW.integers(-9, 99, (2, 8))}, 2: {"birch": np.array([[2**62, -(2**62)]] * 2)}}
    return Progress(plan, round_, weights, AdamState(*moments), histograms, REFUSALS)


def same(one, other):
    assert (one.plan, one.round, one.refusals) == (other.plan, other.round, other.refusals)
    for mine, theirs in (
        (one.weights, other.weights),
        (one.adam.first, other.adam.first),
        (one.adam.second, other.adam.second),
    ):
        assert [(a.dtype, a.shape, a.tobytes()) for a in mine] == [(a.dtype, a.shape, a.tobytes()) for a in theirs]
    assert one.histograms.keys() == other.histograms.keys()
    for round_ in one.histograms:
        assert one.histograms[round_].keys() == other.histograms[round_].keys()
        for partner, counts in one.histograms[round_].items():
            assert np.array_equal(counts, other.histograms[round_][partner])
    return True


def test_what_is_published_is_resumed_to_the_last_bit(tmp_path):
    state = progress()
    Registry(tmp_path / "new").publish(state)
    assert same(Registry(tmp_path / "new").resume("sha256:aa"), state)


def test_nothing_published_is_nothing_to_resume(tmp_path):
    assert Registry(tmp_path).resume("sha256:aa") is None
    assert Registry(tmp_path).published() == {}


def test_the_newest_state_wins_and_every_rounds_model_is_kept(tmp_path):
    registry, states = Registry(tmp_path), [progress(round_) for round_ in range(12)]
    for state in states:
        registry.publish(state)
    assert same(registry.resume("sha256:aa"), states[-1])
    models = registry.published()
    assert list(models) == list(range(1, 12))  # round 0 is no model of anybody's
    for state in states[1:]:
        for got, expected in zip(models[state.round], state.weights, strict=True):
            assert np.array_equal(got, expected)


def test_another_plans_state_is_not_gone_on_with(tmp_path):
    Registry(tmp_path).publish(progress())
    with pytest.raises(FileFault, match="belongs to another plan"):
        Registry(tmp_path).resume("sha256:bb")


def test_a_damaged_file_is_one_clear_error(tmp_path):
    registry = Registry(tmp_path)
    registry.publish(progress())
    path = tmp_path / "progress.safetensors"
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    harms = [whole[:cut] for cut in range(0, len(whole), 37)]
    harms += [whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :] for place in range(0, head, 3)]
    refused = 0
    for harm in harms:
        path.write_bytes(harm)
        try:
            registry.resume("sha256:aa")
        except FileFault as error:
            refused += str(path) in str(error)
    assert refused > len(harms) * 0.8  # a digit of a count may change and be none the wiser
    path.write_bytes(whole)
    assert registry.resume("sha256:aa") is not None


@pytest.mark.parametrize(
    "head",
    ["null", "[]", "{}", '{"plan":"sha256:aa"}', '{"plan":"sha256:aa","round":1,"histograms":{},"refusals":[{}]}'],
)
def test_a_state_without_its_parts_is_damaged(tmp_path, head):
    import safetensors.numpy

    path = tmp_path / "progress.safetensors"
    path.write_bytes(safetensors.numpy.save({"weights.0": np.zeros(1, np.float32)}, {"progress": head}))
    with pytest.raises(FileFault, match="is damaged"):
        Registry(tmp_path).resume("sha256:aa")


def test_a_crash_while_publishing_leaves_the_state_before(tmp_path, monkeypatch):
    registry, before = Registry(tmp_path), progress(1)
    registry.publish(before)

    def broken(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(FileFault, match="No space left"):
        registry.publish(progress(2))
    assert same(Registry(tmp_path).resume("sha256:aa"), before)


def test_a_refusal_is_kept_once():
    state = with_news(progress(), (REFUSALS[0], Refusal("cedar", "train", 2, "silent")), ())
    assert [refusal.partner for refusal in state.refusals] == ["amber", "node 7", "cedar"]
