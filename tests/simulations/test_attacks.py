"""The audit against the real training: a correct build passes, and every planted fault is caught.

Noise comes from seeded sources here, so that what a test sees is always the same.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from coterie.cli.attack import attack
from coterie.clients import training
from coterie.privacy import randomness
from coterie.privacy.accountant import CERTIFICATE, epsilon
from coterie.privacy.auditing.conformance import failed
from coterie.privacy.randomness import SeededSource, Stream
from coterie.privacy.training import Customers, Trainer
from coterie.privacy.training.optimizer import SecretNoiseOptimizer
from coterie.simulations.attacks import audit, canaries, conforming, membership

SCALE = "scale of the noise"
SHAPE = "shape of the noise"
ROUNDS = "noise of one round beside another's"
COORDINATES = "noise of one coordinate beside another's"
STEPS = "noise of several steps in one release"
SAMPLED = "share of customers that a step samples"
UNITS = "units made of the customers' rows"
MOVES = "most that one customer moves a sum"
GRADIENTS = "distance from autograd's gradient"

real_noise = SecretNoiseOptimizer.add_noise
real_sums = SecretNoiseOptimizer.clip_and_accumulate


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def audited(claims, count, seed=b"attacks"):
    return audit.run_audit(claims, canaries=count, random=SeededSource(seed), show=lambda text: None)


def checked(seed=b"attacks"):
    return set(failed(conforming.run_checks(SeededSource(seed))))


# --- a correct build ------------------------------------------------------------------------------------


def test_a_correct_build_is_not_refuted():
    report = audited([0.5, 1.5], 1000)
    assert not report.caught
    assert failed(report.checks) == ()
    assert [report.verdict(one) for one in report.claims] == ["no gross bug seen"] * 2
    assert len(report.checks) == 9
    json.dumps(report.to_dict())


@pytest.mark.slow
def test_a_correct_build_is_refuted_in_one_audit_of_twenty_at_most():
    found = [canaries.audit_canaries(1.0, canaries=4000, random=SeededSource(bytes([i]))) for i in range(40)]
    assert sum(one.most > 1.0 for one in found) <= 2


def test_checks_of_a_correct_build_pass_for_the_operating_systems_noise():
    # Each of six statistical checks fails here once in a million runs.
    assert failed(conforming.run_checks(randomness.OsSource())) == ()


def test_the_bounds_are_of_some_use():
    found = canaries.audit_canaries(1.5, canaries=4000, random=SeededSource(b"use"))
    assert 0.3 < found.fdp_final < 1.5
    assert found.fdp_iterates < 1.5


def test_the_audited_event_is_the_one_that_the_claim_buys():
    found = canaries.audit_canaries(1.0, canaries=100, random=SeededSource(b"event"))
    assert found.event.steps == canaries.ROUNDS
    assert 0.97 < epsilon([found.event], canaries.DELTA, grid=CERTIFICATE) <= 1.0


def test_a_canary_s_gradient_is_the_clip_along_its_own_coordinate_at_every_step():
    rng = np.random.default_rng(3)
    coins = rng.random(60) < 0.5
    steps = canaries.Training(rounds=40, local_steps=1, sample_rate=1.0, learning_rate=1e-3, clip=1.0)
    plan = canaries.audit_plan(65, epsilon=1.0, training=steps, declared=100)
    rows = canaries._rows(coins, SeededSource(b"base").stream("base"))
    released, _ = canaries.play(plan, rows, random=SeededSource(b"dirac"), label="dirac", noise=1e-9)
    moved = released[:, :60] / (1e-3 * 1.0 / 100)
    np.testing.assert_allclose(moved[:, coins], 1.0, atol=1e-3)
    np.testing.assert_allclose(moved[:, ~coins], 0.0, atol=1e-3)


def test_claims_beyond_the_gate_are_marked():
    report = audited([3.0], 200)
    assert report.verdict(report.claims[0]) == "beyond what canaries can refute"
    assert not report.to_dict()["claims"][0]["gated"]


# --- planted faults, through the command's report -------------------------------------------------------


@pytest.fixture
def plant(monkeypatch):
    """Functions that break the build."""

    def noise(factor):
        def faulty(self):
            multiplier = self.noise_multiplier
            self.noise_multiplier = factor * multiplier
            real_noise(self)
            self.noise_multiplier = multiplier

        monkeypatch.setattr(SecretNoiseOptimizer, "add_noise", faulty)

    def no_clipping():
        def faulty(self):
            for parameter in self.params:
                before = 0 if parameter.summed_grad is None else parameter.summed_grad
                parameter.summed_grad = before + parameter.grad_sample.double().sum(dim=0)

        monkeypatch.setattr(SecretNoiseOptimizer, "clip_and_accumulate", faulty)

    def repeated_noise():
        def faulty(self):
            self.use(Stream(bytes(32)))
            real_noise(self)

        monkeypatch.setattr(SecretNoiseOptimizer, "add_noise", faulty)

    def rows_as_customers():
        real = Customers.__init__

        def faulty(self, features, labels, customer, **longest):
            real(self, features, labels, np.arange(len(customer)), **longest)

        monkeypatch.setattr(Customers, "__init__", faulty)

    return SimpleNamespace(
        noise=noise, no_clipping=no_clipping, repeated_noise=repeated_noise, rows_as_customers=rows_as_customers
    )


def test_half_the_noise_is_caught_from_outside_and_from_inside(plant):
    plant.noise(0.5)
    report = audited([1.5], 10_000)
    assert report.caught
    assert report.refuted == (1.5,)
    assert {SCALE, STEPS} <= set(failed(report.checks))


def test_clipping_that_is_off_is_caught_from_outside_and_from_inside(plant):
    plant.no_clipping()
    report = audited([1.5], 1000)
    assert report.refuted == (1.5,)
    assert report.claims[0].snj_final > 1.5
    assert {MOVES, GRADIENTS} <= set(failed(report.checks))


def test_noise_that_repeats_each_round_is_caught_by_all_models_and_not_by_the_last(plant):
    plant.repeated_noise()
    report = audited([1.5], 1000)
    (found,) = report.claims
    assert report.refuted == (1.5,)
    assert max(found.fdp_final, found.snj_final) <= 1.5
    assert found.fdp_iterates > 3
    assert {ROUNDS, STEPS} <= set(failed(report.checks))


def test_two_rows_taken_for_two_customers_are_caught_from_outside_and_from_inside(plant):
    plant.rows_as_customers()
    report = audited([1.5], 10_000)
    assert report.refuted == (1.5,)
    assert {UNITS, MOVES} <= set(failed(report.checks))


@pytest.mark.parametrize("factor", [1 / np.sqrt(2), 0.98, 1.02])
def test_noise_that_is_a_little_wrong_is_caught_from_inside(plant, factor):
    plant.noise(factor)
    assert {SCALE} <= checked() <= {SCALE, STEPS, SHAPE}


def test_noise_a_little_too_small_fails_the_report(plant):
    plant.noise(0.98)
    report = audited([1.0], 500)
    assert report.caught
    assert report.refuted == ()  # as the text says: no black box sees this


# --- planted faults, from inside ------------------------------------------------------------------------


def test_streams_that_are_the_same_for_every_call_are_caught(monkeypatch):
    monkeypatch.setattr(SeededSource, "stream", lambda self, label: Stream(bytes(32)))
    assert ROUNDS in checked()


def test_noise_that_repeats_over_the_coordinates_is_caught(monkeypatch):
    real = Stream.normals
    monkeypatch.setattr(Stream, "normals", lambda self, n: np.resize(real(self, (n + 1) // 2), n))
    assert COORDINATES in checked()


def test_noise_that_is_not_gaussian_is_caught(monkeypatch):
    monkeypatch.setattr(Stream, "normals", lambda self, n: np.sqrt(12.0) * (self.uniforms(n) - 0.5))
    assert checked() == {SHAPE}


def test_noise_for_the_first_step_of_a_release_alone_is_caught(monkeypatch):
    def faulty(self):
        multiplier = self.noise_multiplier
        self.noise_multiplier = multiplier if self._stream is not getattr(self, "_used", None) else 0.0
        self._used = self._stream
        real_noise(self)
        self.noise_multiplier = multiplier

    monkeypatch.setattr(SecretNoiseOptimizer, "add_noise", faulty)
    assert checked() == {STEPS}


def test_noise_that_shrinks_with_the_sample_is_caught(monkeypatch):
    def faulty(self):
        multiplier = self.noise_multiplier
        self.noise_multiplier = multiplier / np.sqrt(max(1, len(self.grad_samples[0])))
        real_noise(self)
        self.noise_multiplier = multiplier

    monkeypatch.setattr(SecretNoiseOptimizer, "add_noise", faulty)
    assert SCALE in checked()


def test_layers_clipped_one_by_one_are_caught(monkeypatch):
    def faulty(self):
        for parameter in self.params:
            sample = parameter.grad_sample.double()
            factors = (self.max_grad_norm / sample.flatten(1).norm(dim=1).clamp(min=1e-30)).clamp(max=1)
            parameter.summed_grad = torch.einsum("i,i...", factors, sample)

    monkeypatch.setattr(SecretNoiseOptimizer, "clip_and_accumulate", faulty)
    assert checked() == {MOVES, GRADIENTS}


def test_normalised_instead_of_clipped_gradients_are_caught(monkeypatch):
    def faulty(self):
        for parameter in self.params:
            parameter.grad_sample = parameter.grad_sample * 1e9
        real_sums(self)

    monkeypatch.setattr(SecretNoiseOptimizer, "clip_and_accumulate", faulty)
    assert checked() == {GRADIENTS}


def test_a_clip_that_is_not_the_plans_is_caught(monkeypatch):
    real = training.trainer_settings

    def faulty(plan, partner, noise_multiplier):
        settings = real(plan, partner, noise_multiplier)
        object.__setattr__(settings, "clip", 1.05 * settings.clip)
        return settings

    monkeypatch.setattr(training, "trainer_settings", faulty)
    assert {SCALE, MOVES} <= checked()


def test_sampling_that_takes_everybody_is_caught(monkeypatch):
    real = Trainer._step

    def faulty(self, customers, settings, stream):
        changed = settings.__class__(**{**vars(settings), "sample_rate": 1.0})
        real(self, customers, changed, stream)

    monkeypatch.setattr(Trainer, "_step", faulty)
    assert checked() == {SAMPLED}


def test_batches_of_one_size_are_caught(monkeypatch):
    real = Stream.uniforms

    def faulty(self, count):
        found = real(self, count)
        return np.argsort(np.argsort(found)) / count

    monkeypatch.setattr(Stream, "normals", lambda self, n: np.random.default_rng(self.below(2**40)).normal(size=n))
    monkeypatch.setattr(Stream, "uniforms", faulty)
    assert checked() == {SAMPLED}


# --- membership -----------------------------------------------------------------------------------------


def test_members_are_told_from_strangers_without_noise_and_hardly_with_it():
    found = membership.infer_membership(0.5, random=SeededSource(b"members"))
    assert found.without_noise.auc_low > 0.65
    assert found.private.auc < found.without_noise.auc_low
    assert found.private.auc_low < 0.6
    assert found.private.true_positives_low <= found.allowed
    assert found.allowed == pytest.approx(np.exp(0.5) * 0.01 + canaries.DELTA)


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setattr(randomness, "OsSource", lambda: SeededSource(b"command"))
    app = typer.Typer()
    app.command()(attack)

    def run(*words):
        return CliRunner().invoke(app, [*words, "--canaries", "200", "--task", "propensity"])

    return run


def test_the_command_passes_a_correct_build_and_says_what_it_cannot_see(command):
    done = command("--epsilon", "1")
    assert done.exit_code == 0, done.output
    for text in ("no gross bug seen", "never proof", "cannot see", "an accountant that is wrong"):
        assert text in " ".join(done.stdout.split())


def test_the_command_prints_json_and_fails_a_faulty_build(command, plant):
    plant.no_clipping()
    done = command("--epsilon", "1", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["caught"]
    assert report["claims"][0]["verdict"] == "CLAIM REFUTED"
    assert MOVES in report["failed_checks"]
    assert report["random_source"] == "seeded"


def test_the_command_says_what_a_failed_check_means(command, plant):
    plant.noise(0.98)
    done = command("--epsilon", "1")
    assert done.exit_code == 1
    assert "FAILED scale of the noise: less noise than was charged for" in " ".join(done.stdout.split())


@pytest.mark.parametrize("words", [("--epsilon", "0"), ("--epsilon", "much"), ("--epsilon", "1,99")])
def test_claims_that_make_no_sense_are_refused(command, words):
    assert command(*words).exit_code != 0
