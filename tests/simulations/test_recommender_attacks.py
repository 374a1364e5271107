"""The audit against recommenders: a correct build passes, and every planted fault is caught, by name.

Noise comes from seeded sources here, so that what a test sees is always the same.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from coterie.cli.attack import attack
from coterie.clients import ownsums, parts, recommendersums, sumnode
from coterie.models.recommenders import gram
from coterie.privacy import randomness
from coterie.privacy.accountant import CERTIFICATE, epsilon
from coterie.privacy.auditing.conformance import alone, failed, reconstructed, whole_sensitivity
from coterie.privacy.randomness import SeededSource, Stream
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.training import alssums, gradientsums, historysums
from coterie.simulations.attacks import audit, binnedcanaries, ownparts, recommendercanaries, recommenderchecks, studies

COUNTS = "noise of counts"
DIAGONAL = "noise on the Gram's diagonal"
BESIDE = "noise beside the Gram's diagonal"
GRADIENTS = "noise of gradient sums"
PARTNERS = "noise of a secure sum's honest partners"
SHAPES = {"shape of the Gram's noise", "shape of gradient sums' noise"}
ATTEMPTS = "Gram's noise of one attempt beside another's"
STEPS = "gradient sums' noise of one step beside another's"
CELLS = {"Gram's noise of one cell beside another's", "gradient sums' noise of one coordinate beside another's"}
SAMPLED = "share of customers that a sum of gradients samples"
MATRIX = "the Gram's symmetric matrix as the server reads it"
COUNTED, PRODUCTS = "item-gram, count/1", "item-gram, train/1"
TRAINED = {f"{family}, train/1" for family in ("two-tower", "mf-bpr", "mf-softmax", "neumf")}
SUMS = {"popularity, train/1", COUNTED, PRODUCTS, "ials, train/1", *TRAINED}

real_whole = historysums._whole
real_als = alssums._whole
real_total = recommendersums.recommender_total


def moves(*sums):
    return {f"most that one customer moves: {of}" for of in sums}


def company(*sums):
    return {f"a customer's part alone and among others: {of}" for of in sums}


def vectors(*sums):
    return {f"distance from a customer's own vector: {of}" for of in sums}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Pieces of few customers, which are filled up sooner: sums are the same, and there are few customers here."""
    monkeypatch.setattr(gradientsums, "_CELLS", 2**14)


def checked(seed=b"recommenders"):
    return set(failed(recommenderchecks.run_recommender_checks(SeededSource(seed))))


def audited(claims, count, seed=b"recommenders"):
    source = SeededSource(seed)
    return audit.run_audit(claims, canaries=count, random=source, show=lambda text: None, tasks=("recommendation",))


def noised(monkeypatch, faulty, *modules):
    """Plant a fault in the noise of partners' own sums and of secure ones."""
    for module in modules or (ownsums, sumnode):
        monkeypatch.setattr(module, "discrete_gaussians", faulty)


# --- a correct build ------------------------------------------------------------------------------------------


def test_a_correct_build_of_recommenders_is_not_refuted():
    report = audited([1.5], 1000)
    assert not report.caught
    assert [(one.model, report.verdict(one)) for one in report.claims] == [
        ("item-gram", "no gross bug seen"),
        ("mf-softmax", "no gross bug seen"),
    ]
    assert len(report.checks) == 34
    assert len({check.name for check in report.checks}) == 34
    assert {claim["model"] for claim in json.loads(json.dumps(report.to_dict()))["claims"]} == set(
        recommendercanaries.AUDITED
    )


def test_checks_of_recommenders_pass_for_the_operating_systems_noise():
    # Each of twelve statistical checks fails here once in a million runs.
    assert failed(recommenderchecks.run_recommender_checks(randomness.OsSource())) == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", recommendercanaries.AUDITED)
def test_a_correct_build_of_recommenders_is_refuted_in_one_audit_of_twenty_at_most(kind):
    sources = [SeededSource(bytes([i])) for i in range(40)]
    found = [recommendercanaries.audit_recommender(kind, 1.0, canaries=2000, random=one) for one in sources]
    assert sum(one.most > 1.0 for one in found) <= 2


@pytest.mark.parametrize("kind", recommendercanaries.AUDITED)
def test_what_the_attack_looks_at_of_a_recommender_is_within_the_claim_and_nearly_all_of_it(kind):
    event = recommendercanaries._attacked(recommendercanaries._plan(kind, 1.5, 100))
    assert 0.95 * 1.5 < epsilon([event], recommendercanaries.DELTA, grid=CERTIFICATE) <= 1.5


def test_a_canary_of_item_gram_weighs_what_any_customer_may_weigh_and_a_missing_one_nothing():
    plan = recommendercanaries._plan("item-gram", 1.5, 20)
    coins = np.arange(20) % 3 > 0
    people = recommendercanaries._customers(coins, SeededSource(b"base").stream("base"))
    study = studies.made(plan, people, random=SeededSource(b"dirac"), noise=False)
    scores = recommendercanaries._gram_scores(plan, study, np.arange(120).reshape(20, 6)).iterates
    whole = recommendercanaries._attacked(plan).noise_multiplier ** -2
    np.testing.assert_allclose(scores, np.where(coins, whole, 0.0), atol=1e-4 * whole)


def test_a_canary_s_gradients_lie_almost_all_in_its_own_rows_and_are_clipped():
    plan = recommendercanaries._plan("mf-softmax", 1.5, 40)
    plan = dataclasses.replace(plan, training=dataclasses.replace(plan.training, sample_rate=1.0))
    coins = np.arange(40) % 2 > 0
    people = recommendercanaries._customers(coins, SeededSource(b"base").stream("base"))
    study = studies.made(plan, people, random=SeededSource(b"dirac"), noise=False)
    scores = recommendercanaries._gradient_scores(plan, study, np.arange(240).reshape(40, 6)).iterates
    # A step in which all six items are in one half, one in 32, has no gradient.
    most = plan.training.clip**2 * recommendercanaries._STEPS
    assert 0.8 * most < scores[coins].mean() < most
    assert abs(scores[~coins].mean()) < 0.05 * most


def test_parts_by_dense_arithmetic_have_unit_length_and_one_sum_s_triangle_is_z_z():
    scale = np.array([1.0, 2.0, 0.5])
    triangle = ownparts.gram_vector([0, 1], scale)
    z = np.array([1.0, 2.0, 0.0]) / np.sqrt(5)
    root = np.sqrt(2)
    expected = [z[0] ** 2, root * z[0] * z[1], 0, z[1] ** 2, 0, 0]
    np.testing.assert_allclose(triangle, expected, atol=1e-15)
    np.testing.assert_allclose(gram.symmetric(triangle), np.outer(z, z), atol=1e-15)
    factors = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    vectors = (triangle, ownparts.count_vector([2, 0], 5), ownparts.sweep_vector([1], factors))
    np.testing.assert_allclose([np.linalg.norm(vector) for vector in vectors], 1.0)


def test_one_unit_beyond_the_sensitivity_or_beside_a_customer_s_part_is_one_too_many():
    units = 2**20
    at, above, below = (np.array([[units, 0], move]) for move in ([0, units], [units, 1], [1, 1]))
    assert whole_sensitivity(at, units, name="moves").passed
    assert not whole_sensitivity(above, units, name="moves").passed
    assert not whole_sensitivity(below[1:], units, name="moves").passed  # nobody met the bound: nothing was seen
    assert alone(at, at, name="parts").passed
    assert not alone(at, at + np.array([0, 1]), name="parts").passed
    assert reconstructed(np.eye(2), np.eye(2) + 1e-5, name="read", room=1e-4).passed
    assert not reconstructed(np.eye(2), np.eye(2) + 1e-3, name="read", room=1e-4).passed


# --- planted faults of the noise ------------------------------------------------------------------------------


def test_half_the_noise_of_recommenders_is_caught_from_outside_and_from_inside(monkeypatch):
    noised(monkeypatch, lambda scale, count, stream: discrete_gaussians(scale // 2, count, stream))
    report = audited([1.5], 5000)
    assert report.refuted == (1.5,)
    assert all(one.fdp_iterates > 1.5 for one in report.claims)
    assert {COUNTS, DIAGONAL, BESIDE, GRADIENTS, PARTNERS} <= set(failed(report.checks))


def test_noise_two_per_cent_too_small_is_caught_from_inside_in_every_kind_of_sum(monkeypatch):
    noised(monkeypatch, lambda scale, count, stream: discrete_gaussians(scale * 49 // 50, count, stream))
    assert checked() == {COUNTS, BESIDE, GRADIENTS, PARTNERS}


def test_half_the_noise_in_secure_sums_alone_is_caught(monkeypatch):
    faulty = lambda scale, count, stream: discrete_gaussians(scale // 2, count, stream)  # noqa: E731
    noised(monkeypatch, faulty, sumnode)
    assert checked() == {PARTNERS}


def faulty_beside_the_diagonal(factor):
    """Return noise whose cells beside a Gram's diagonal are multiplied: sums of no triangle's size stay as they are."""

    def faulty(scale, count, stream):
        draws = discrete_gaussians(scale, count, stream)
        kept = int((np.sqrt(8 * count + 1) - 1) / 2)
        if kept * (kept + 1) // 2 == count:
            rows, columns = np.triu_indices(kept)
            draws = np.where(rows == columns, draws, np.rint(factor * draws)).astype(np.int64)
        return draws

    return faulty


def test_one_side_of_the_symmetric_noise_missing_is_caught_and_seen_by_no_black_box(monkeypatch):
    # As if each cell beside the diagonal were the mean of two, of which one has noise: half the variance.
    noised(monkeypatch, faulty_beside_the_diagonal(1 / np.sqrt(2)))
    report = audited([1.5], 1000)
    assert report.refuted == ()
    assert {BESIDE, PARTNERS} <= set(failed(report.checks)) <= {BESIDE, PARTNERS, *SHAPES}


def test_symmetric_noise_on_the_diagonal_alone_is_caught_from_outside_and_from_inside(monkeypatch):
    noised(monkeypatch, faulty_beside_the_diagonal(0.0))
    assert {BESIDE, PARTNERS} <= checked()
    found = recommendercanaries.audit_recommender("item-gram", 1.5, canaries=3000, random=SeededSource(b"side"))
    assert found.most > 1.5


def test_the_same_noise_twice_is_caught_from_inside_and_by_no_black_box(monkeypatch):
    noised(monkeypatch, lambda scale, count, stream: discrete_gaussians(scale, count, Stream(bytes(32))))
    report = audited([1.5], 300)
    assert report.refuted == ()
    assert {ATTEMPTS, STEPS} <= set(failed(report.checks))


def test_noise_that_repeats_over_a_sum_s_coordinates_is_caught(monkeypatch):
    def faulty(scale, count, stream):
        return np.resize(discrete_gaussians(scale, count // 16 * 8, stream), count)

    noised(monkeypatch, faulty)
    assert checked() >= CELLS


def test_noise_of_recommenders_that_is_not_gaussian_is_caught(monkeypatch):
    def faulty(scale, count, stream):
        return np.rint(scale * np.sqrt(12.0) * (stream.uniforms(count) - 0.5)).astype(np.int64)

    noised(monkeypatch, faulty)
    assert checked() == SHAPES


# --- planted faults of what a customer adds -------------------------------------------------------------------


def test_a_heavy_customer_that_is_not_brought_to_unit_length_is_caught(monkeypatch):
    def unclipped(rows, units):
        factor = np.sqrt(rows.shape[1]) if rows.shape[1] > 8 else 1.0
        return np.rint(units * factor * rows).astype(np.int64)

    monkeypatch.setattr(historysums, "_whole", unclipped)
    heavy = ("popularity, train/1", COUNTED, PRODUCTS)
    assert checked() == {*moves(*heavy), *vectors(*heavy), MATRIX}


def test_customers_of_item_gram_that_are_not_brought_to_unit_length_are_caught_from_outside(monkeypatch):
    monkeypatch.setattr(historysums, "_whole", lambda rows, units: real_whole(rows, units) * rows.shape[1])
    found = recommendercanaries.audit_recommender("item-gram", 1.5, canaries=300, random=SeededSource(b"heavy"))
    assert found.most > 1.5


def test_gradients_of_recommenders_that_are_not_clipped_are_caught_from_outside_and_from_inside(monkeypatch):
    def unclipped(gradients, norms, *, clip, sensitivity):
        return (gradients * (sensitivity / clip)).round().to(torch.int64)

    monkeypatch.setattr(gradientsums, "whole_numbers", unclipped)
    assert {*moves(*TRAINED), *vectors("mf-softmax, train/1")} <= checked()
    found = recommendercanaries.audit_recommender("mf-softmax", 1.5, canaries=1000, random=SeededSource(b"heavy"))
    assert found.most > 1.5


def test_gradients_of_recommenders_that_are_normalised_instead_of_clipped_are_caught(monkeypatch):
    real = gradientsums.whole_numbers

    def normalised(gradients, norms, *, clip, sensitivity):
        return real(gradients * 1e6, norms * 1e6, clip=clip, sensitivity=sensitivity)

    monkeypatch.setattr(gradientsums, "whole_numbers", normalised)
    assert checked() == vectors("mf-softmax, train/1")


def test_a_heavy_customer_of_alternating_least_squares_is_caught(monkeypatch):
    def heavier(products, lengths, scale, *, limit, most):
        return real_als(products, lengths, scale, limit=3 * limit, most=3 * most)

    monkeypatch.setattr(alssums, "_whole", heavier)
    assert checked() == {*moves("ials, train/1"), *vectors("ials, train/1")}


def test_products_off_the_diagonal_without_their_root_of_two_are_caught(monkeypatch):
    def one_sided(scaled, rows, columns):
        z = scaled / np.linalg.norm(scaled, axis=1)[:, None]
        return z[:, rows] * z[:, columns]

    monkeypatch.setattr(historysums, "_products", one_sided)
    # Nobody reaches the bound then, either.
    assert checked() == {*moves(PRODUCTS), *vectors(PRODUCTS), MATRIX}


def test_a_matrix_of_which_one_side_is_read_alone_is_caught(monkeypatch):
    real = gram.symmetric
    monkeypatch.setattr(gram, "symmetric", lambda triangle: np.triu(real(triangle)))
    assert checked() == {MATRIX}


def test_a_heavy_customer_that_is_counted_twice_is_caught_in_every_sum(monkeypatch):
    def twice(asked, step, histories, **how):
        heavy = np.flatnonzero(histories.lengths > 8)
        return real_total(asked, step, histories.of(np.sort(np.append(np.arange(len(histories)), heavy))), **how)

    monkeypatch.setattr(parts, "recommender_total", twice)
    assert moves(*SUMS) <= checked()


def test_a_part_that_depends_on_how_many_others_there_are_is_caught_in_every_sum(monkeypatch):
    def together(asked, step, histories, **how):
        total = real_total(asked, step, histories, **how)
        total[-1] += len(histories) ** 2
        return total

    monkeypatch.setattr(parts, "recommender_total", together)
    assert company(*SUMS) <= checked()


def test_sums_of_gradients_over_everybody_in_place_of_a_sample_are_caught(monkeypatch):
    real = recommendersums.GradientSettings
    monkeypatch.setattr(recommendersums, "GradientSettings", lambda **how: real(**(how | {"sample_rate": 1.0})))
    assert checked() == {SAMPLED}


# --- membership, and the command ------------------------------------------------------------------------------


def test_a_recommender_knows_its_customers_histories_without_noise_and_hardly_with_it():
    found = recommendercanaries.infer_history(1.0, random=SeededSource(b"members"))
    assert found.model == "item-gram"
    assert found.without_noise.auc_low > 0.9
    assert found.private.auc_low < 0.55
    assert found.private.true_positives_low <= found.allowed
    assert found.allowed == pytest.approx(np.exp(1.0) * 0.01 + recommendercanaries.DELTA)


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setattr(randomness, "OsSource", lambda: SeededSource(b"command"))
    app = typer.Typer()
    app.command()(attack)
    return lambda *words: CliRunner().invoke(app, [*words, "--epsilon", "1", "--canaries", "200"])


def test_the_command_attacks_recommenders_and_names_what_failed(command, monkeypatch):
    done = command("--task", "recommendation", "--json")
    assert done.exit_code == 0, done.output
    assert [claim["model"] for claim in json.loads(done.stdout)["claims"]] == list(recommendercanaries.AUDITED)
    noised(monkeypatch, lambda scale, count, stream: discrete_gaussians(scale // 2, count, stream))
    done = command("--task", "recommendation")
    assert done.exit_code == 1
    assert f"FAILED {BESIDE}: less noise than was charged for" in " ".join(done.stdout.split())


def test_all_tasks_are_attacked_unless_one_is_asked_for_and_no_other_is_known(command):
    done = command("--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [claim["model"] for claim in report["claims"]] == [
        "logistic",
        *binnedcanaries.AUDITED_BINS,
        *recommendercanaries.AUDITED,
    ]
    assert len(report["checks"]) == 9 + 29 + 34
    assert command("--task", "forecasting").exit_code != 0
