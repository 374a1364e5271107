"""The audit against models on private bins: a correct build passes, and every planted fault is caught, by name.

Noise comes from seeded sources here, so that what a test sees is always the same.
"""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from coterie.cli.attack import attack
from coterie.clients import binnedsums as clientsums
from coterie.clients import ownsums, parts, sumnode
from coterie.clients.task import binning_of
from coterie.privacy import randomness
from coterie.privacy.accountant import CERTIFICATE, epsilon
from coterie.privacy.auditing.conformance import failed
from coterie.privacy.calibration import calibrate
from coterie.privacy.plan import SECURE
from coterie.privacy.planrules import faults_of
from coterie.privacy.randomness import SeededSource, Stream
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.training import binnedsums, slotsums
from coterie.server import steps as serversteps
from coterie.simulations.attacks import audit, binnedcanaries, binnedchecks, binnedparts, studies
from coterie.simulations.attacks.canaries import DELTA

COUNTS = "noise of counts of cells"
BINS = "noise of the counts that bins are made of"
GRADIENTS = "noise of gradient sums on bins"
SHAPES = {"shape of the noise of counts of cells", "shape of the noise of gradient sums on bins"}
ATTEMPTS = "noise of cells' counts of one attempt beside another's"
STEPS = "noise of gradient sums on bins of one step beside another's"
BETWEEN = "noise of counts of cells beside that of gradient sums on bins"
CELLS = {"noise of one cell's count beside another's", "noise of one slot's gradient beside another's"}
PARTNERS_COUNTS = "noise of counts of cells of secure sums' honest partners"
PARTNERS_BINS = "noise of the counts that bins are made of, by secure sums"
PARTNERS_GRADIENTS = "noise of gradients on bins of secure sums' honest partners"
PARTNERS_STEPS = "gradients' noise of one step beside another's, of secure sums' honest partners"
PARTNERS = {PARTNERS_COUNTS, PARTNERS_BINS, PARTNERS_GRADIENTS}
READ = "the counts of cells as the server reads them"
COUNTED, ADDITIVE, LOGISTIC, MLP = "counts of cells", "additive on bins", "logistic on bins", "mlp on bins"
OPACUS = (LOGISTIC, MLP)

real_numbers = ownsums.numbers_of
real_residuals = clientsums.residual_total
real_total = parts.binned_total
real_slots = slotsums.SlotSummer.total
real_mean = serversteps._mean


def moves(*sums):
    return {f"most that one customer moves: {of}" for of in sums}


def company(*sums):
    return {f"a customer's part alone and among others: {of}" for of in sums}


def vectors(*sums):
    return {f"distance from a customer's own vector: {of}" for of in sums}


def sampled(*families):
    return {f"share of customers that a sum of gradients on bins samples: {family}" for family in families}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Pieces of few rows, which are filled up sooner: sums are the same, and there are few rows here."""
    monkeypatch.setattr(slotsums, "_CELLS", 2**10)


def checked(checks=binnedchecks.run_binned_checks):
    return set(failed(checks(SeededSource(b"bins"))))


def noise_checked():
    return checked(binnedchecks.noise_checks)


def customers_checked():
    return checked(binnedchecks.customer_checks)


def attacked(name, count, seed=b"bins"):
    return binnedcanaries.audit_bins(name, 1.5, canaries=count, random=SeededSource(seed))


def noised(monkeypatch, faulty, *modules):
    """Plant a fault in the noise of partners' own sums and of secure ones."""
    for module in modules or (ownsums, sumnode):
        monkeypatch.setattr(module, "discrete_gaussians", faulty)


def quieter(monkeypatch, kind, factor):
    """Plant less noise in a partner's own sums of one kind."""

    def faulty(plan, step):
        numbers = real_numbers(plan, step)
        less = dataclasses.replace(numbers, share=max(64, round(factor * numbers.share)))
        return less if step.startswith(kind) else numbers

    monkeypatch.setattr(ownsums, "numbers_of", faulty)


# --- a correct build ------------------------------------------------------------------------------------------


def test_a_correct_build_on_bins_is_not_refuted():
    source = SeededSource(b"bins")
    report = audit.run_audit([1.5], canaries=600, random=source, show=lambda text: None, tasks=("bins",))
    assert not report.caught
    assert [one.model for one in report.claims] == list(binnedcanaries.AUDITED_BINS)
    assert {report.verdict(one) for one in report.claims} == {"no gross bug seen"}
    assert len({check.name for check in report.checks}) == len(report.checks) == 29
    assert [found.model for found in report.membership] == ["additive"]
    said = " ".join(json.loads(json.dumps(report.to_dict()))["blind"])
    for fault in ("bins that a partner makes of its raw counts", "noise used twice", "rows that differ"):
        assert fault in said


def test_checks_on_bins_pass_for_the_operating_systems_noise():
    # Each of sixteen statistical checks fails here once in a million runs.
    assert failed(binnedchecks.run_binned_checks(randomness.OsSource())) == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", binnedcanaries.AUDITED_BINS)
def test_a_correct_build_on_bins_is_refuted_in_one_audit_of_twenty_at_most(name):
    found = [attacked(name, 1200, seed=bytes([i])) for i in range(40)]
    assert sum(one.most > 1.5 for one in found) <= 2


@pytest.mark.parametrize("name", binnedcanaries.AUDITED_BINS)
def test_what_is_attacked_is_a_plan_that_could_be_signed_and_nearly_all_of_its_claim(name):
    plan = binnedcanaries._plan(name, 1.5)
    # A partner by itself has nobody who could collude; it has no secure sums either.
    alone = [] if plan.privacy.trust == SECURE else ["plan: privacy.colluders"]
    assert [fault.place for fault in faults_of(plan, "plan")] == alone
    event = binnedcanaries._attacked(plan)
    assert 0.95 * 1.5 < epsilon([event], DELTA, grid=CERTIFICATE) <= 1.5


@pytest.mark.parametrize(("name", "least"), [("additive", 0.88), ("logistic on bins", 0.88), ("mlp on bins", 0.7)])
def test_a_canary_on_bins_weighs_almost_what_any_customer_may_weigh_and_a_missing_one_nothing(name, least):
    plan = binnedcanaries._plan(name, 1.5)
    coins = np.arange(60) % 3 > 0
    rows = binnedcanaries._rows(coins, SeededSource(b"base").stream("base"))
    study = studies.made(plan, rows, random=SeededSource(b"dirac"), noise=False)
    found = binnedcanaries._scores(plan, study, len(coins))
    whole = binnedcanaries._attacked(plan).noise_multiplier ** -2
    assert least * whole < found.iterates[coins].min() <= found.iterates[coins].max() <= (1 + 1e-6) * whole
    np.testing.assert_allclose(found.iterates[~coins], 0.0, atol=1e-9)
    assert found.counted[coins].min() > 100 * abs(found.counted[~coins]).max()
    assert found.final[coins].min() > 100 * abs(found.final[~coins]).max()


def test_an_oracle_s_parts_are_one_customer_s_and_at_most_of_the_bound_s_length():
    for family in ("additive", "logistic", "mlp"):
        plan, weights, people = binnedchecks._people(family)
        for one in range(len(binnedchecks._ROWS_OF)):
            rows = people.of(np.array([one]))
            cells, vector = binnedparts.cells_vector(plan, rows), binnedparts.binned_vector(plan, weights, rows)
            assert len(cells) == binning_of(plan).cells
            assert np.linalg.norm(cells) <= 1 + 1e-12
            assert cells.sum() == pytest.approx(2.0)  # four columns at 1 / sqrt(4)
            assert np.linalg.norm(vector) <= plan.training.clip + 1e-12


def test_a_heading_is_autograd_s_own_gradient_in_a_customer_s_slots():
    for family in ("additive", "logistic", "mlp"):
        plan, weights, people = binnedchecks._people(family)
        mine = next(one for one in (people.of(np.array([i])) for i in range(4)) if one.labels[0] == 1)
        vector = binnedparts.binned_vector(plan, weights, mine)
        layout = binnedparts.layout_of(binning_of(plan), weights[0])
        slots = binnedparts.slots_of(layout, binnedparts._cells(plan, mine))
        layer = vector[: weights[1].size].reshape(weights[1].shape)
        found = binnedparts.heading(plan, weights, slots)
        for slot in slots[0]:
            np.testing.assert_allclose(found[0], layer[:, slot], rtol=1e-9)


# --- planted faults of the noise ------------------------------------------------------------------------------


def halved(scale, count, stream):
    return discrete_gaussians(scale // 2, count, stream)


def test_half_the_noise_on_bins_is_caught_from_outside_in_every_family_and_in_secure_sums(monkeypatch):
    noised(monkeypatch, halved)
    for name in binnedcanaries.AUDITED_BINS:
        assert attacked(name, 4000).fdp_iterates > 1.5, name


def test_half_the_noise_in_the_count_alone_is_caught_from_inside_and_by_no_black_box(monkeypatch):
    quieter(monkeypatch, "count/", 0.5)
    assert noise_checked() == {COUNTS, BINS, "shape of the noise of counts of cells"}
    assert attacked("additive", 1200).most <= 1.5


def test_half_the_noise_in_gradient_sums_alone_is_caught_from_outside_and_from_inside(monkeypatch):
    quieter(monkeypatch, "train/", 0.5)
    assert noise_checked() == {GRADIENTS, "shape of the noise of gradient sums on bins"}
    assert attacked("additive", 4000).fdp_iterates > 1.5


def test_half_the_noise_of_secure_sums_on_bins_alone_is_caught(monkeypatch):
    noised(monkeypatch, halved, sumnode)
    assert noise_checked() == PARTNERS


def test_noise_on_bins_two_per_cent_too_small_is_caught_from_inside_in_every_kind_of_sum(monkeypatch):
    noised(monkeypatch, lambda scale, count, stream: discrete_gaussians(scale * 49 // 50, count, stream))
    assert noise_checked() == {COUNTS, BINS, GRADIENTS, *PARTNERS}


def test_bins_made_from_counts_without_noise_are_caught_from_outside_and_from_inside(monkeypatch):
    quieter(monkeypatch, "count/", 0.0)
    assert {COUNTS, BINS} <= noise_checked()
    assert attacked("additive", 600).snj_final > 1.5


def test_bins_that_a_partner_makes_of_its_raw_counts_are_caught_from_inside_and_by_no_black_box(monkeypatch):
    def raw(plan, step, weights, customers, **how):
        counts = np.bincount(customers.cells.ravel(), minlength=len(weights[0])).astype(np.float32)
        return real_total(plan, step, (counts, *weights[1:]), customers, **how)

    monkeypatch.setattr(parts, "binned_total", raw)
    trained = (ADDITIVE, *OPACUS)
    assert {*company(*trained), *vectors(*trained)} <= customers_checked()
    assert attacked("additive", 1200).most <= 1.5


def test_the_same_noise_twice_on_bins_is_caught_from_inside_and_by_no_black_box(monkeypatch):
    noised(monkeypatch, lambda scale, count, stream: discrete_gaussians(scale, count, Stream(bytes(32))))
    assert {ATTEMPTS, STEPS, PARTNERS_STEPS} <= noise_checked()
    assert attacked("additive", 1200).most <= 1.5


def test_the_count_s_noise_used_again_for_gradients_is_caught(monkeypatch):
    def faulty(scale, count, stream):
        # One vector for all of a study's sums, each at its own scale.
        found = discrete_gaussians(2**20, 20_000, Stream(bytes(32)))[:count] * (scale / 2**20)
        return np.rint(found).astype(np.int64)

    noised(monkeypatch, faulty)
    assert BETWEEN in noise_checked()


def test_noise_that_repeats_over_cells_and_slots_is_caught(monkeypatch):
    def faulty(scale, count, stream):
        return np.resize(discrete_gaussians(scale, 64, stream), count)

    noised(monkeypatch, faulty)
    assert noise_checked() >= CELLS


def test_noise_on_bins_that_is_not_gaussian_is_caught(monkeypatch):
    def faulty(scale, count, stream):
        return np.rint(scale * np.sqrt(12.0) * (stream.uniforms(count) - 0.5)).astype(np.int64)

    noised(monkeypatch, faulty)
    assert noise_checked() == SHAPES


def test_counts_that_the_server_reads_as_half_of_what_they_are_are_caught(monkeypatch):
    def half(plan, step, opened, declared):
        mean, noise = real_mean(plan, step, opened, declared)
        return mean / 2, noise / 2

    monkeypatch.setattr(serversteps, "_mean", half)
    assert checked() == {BINS, PARTNERS_BINS, READ}


# --- planted faults of what a customer adds -------------------------------------------------------------------


def test_a_customer_of_two_rows_that_shares_no_bound_among_them_is_caught_from_outside_and_from_inside(monkeypatch):
    monkeypatch.setattr(binnedsums, "_rows", lambda customer: np.ones(len(customer), dtype=np.int64))
    assert checked() == {*moves(COUNTED, ADDITIVE), *vectors(COUNTED, ADDITIVE), READ}
    assert attacked("additive", 4000).fdp_iterates > 1.5


def test_rows_on_bins_taken_for_customers_are_caught_under_opacus_engine(monkeypatch):
    def faulty(self, weights, table, **how):
        slots, labels, customer = table
        return real_slots(self, weights, (slots, labels, np.arange(len(customer))), **how)

    monkeypatch.setattr(slotsums.SlotSummer, "total", faulty)
    # Their sample is then one of rows, too.
    assert customers_checked() == {*moves(*OPACUS), *vectors(*OPACUS), *sampled("logistic")}
    assert attacked("logistic on bins", 4000).fdp_iterates > 1.5


def test_gradients_on_bins_that_are_not_clipped_are_caught_from_outside_and_from_inside(monkeypatch):
    def unclipped(slots, judged, *, width, settings, stream):
        wide = dataclasses.replace(settings, clip=100 * settings.clip, sensitivity=100 * settings.sensitivity)
        return real_residuals(slots, judged, width=width, settings=wide, stream=stream)

    monkeypatch.setattr(clientsums, "residual_total", unclipped)
    assert customers_checked() == {*moves(ADDITIVE), *vectors(ADDITIVE)}
    assert attacked("additive", 600).fdp_iterates > 1.5


def test_gradients_on_bins_that_are_not_clipped_are_caught_under_opacus_engine(monkeypatch):
    def unclipped(self, weights, table, *, settings, stream):
        fields = vars(settings) | {"clip": 100 * settings.clip, "sensitivity": 100 * settings.sensitivity}
        return real_slots(self, weights, table, settings=SimpleNamespace(**fields), stream=stream)

    monkeypatch.setattr(slotsums.SlotSummer, "total", unclipped)
    assert customers_checked() == {*moves(*OPACUS), *vectors(*OPACUS)}
    for name in ("logistic on bins", "mlp on bins"):
        assert attacked(name, 600).fdp_iterates > 1.5, name


def test_residuals_that_are_normalised_instead_of_clipped_are_caught(monkeypatch):
    real = binnedsums._residuals
    monkeypatch.setattr(binnedsums, "_residuals", lambda *what: 1e6 * real(*what))
    assert customers_checked() == vectors(ADDITIVE)


def test_a_part_on_bins_that_depends_on_how_many_others_there_are_is_caught_in_every_sum(monkeypatch):
    def together(plan, step, weights, customers, **how):
        total = real_total(plan, step, weights, customers, **how)
        total[-1] += len(customers.labels) ** 2
        return total

    monkeypatch.setattr(parts, "binned_total", together)
    assert company(COUNTED, ADDITIVE, *OPACUS) <= customers_checked()


def test_sums_on_bins_over_everybody_in_place_of_a_sample_are_caught(monkeypatch):
    monkeypatch.setattr(binnedsums, "_sampled", lambda customer, rate, stream: np.ones(len(customer), dtype=bool))

    def everybody(self, weights, table, *, settings, stream):
        every = dataclasses.replace(settings, sample_rate=1.0)
        return real_slots(self, weights, table, settings=every, stream=stream)

    monkeypatch.setattr(slotsums.SlotSummer, "total", everybody)
    assert customers_checked() == sampled("additive", "logistic")


def test_a_sample_of_rows_in_place_of_customers_is_caught(monkeypatch):
    monkeypatch.setattr(binnedsums, "_sampled", lambda customer, rate, stream: stream.uniforms(len(customer)) < rate)
    assert customers_checked() == sampled("additive")


# --- membership, and the command ------------------------------------------------------------------------------


def test_a_model_on_bins_knows_its_customers_without_noise_and_hardly_with_it():
    found = binnedcanaries.infer_rows(1.0, random=SeededSource(b"members"))
    assert found.without_noise.auc_low > 0.75
    assert found.private.auc_low < 0.55
    assert found.private.true_positives_low <= found.allowed
    assert found.allowed == pytest.approx(np.exp(1.0) * 0.01 + DELTA)


def test_the_secure_plan_that_is_attacked_counts_on_two_partners_noise():
    plan = binnedcanaries._plan("additive, secure sums", 1.5)
    assert plan.privacy.trust == SECURE
    assert calibrate(plan).update.shares == 2


def test_the_command_attacks_bins_and_names_what_failed(monkeypatch):
    monkeypatch.setattr(randomness, "OsSource", lambda: SeededSource(b"command"))
    noised(monkeypatch, halved)
    app = typer.Typer()
    app.command()(attack)
    done = CliRunner().invoke(app, ["--task", "bins", "--epsilon", "1.5", "--canaries", "100"])
    assert done.exit_code == 1
    said = " ".join(done.stdout.split())
    for name in (COUNTS, BINS, GRADIENTS, *PARTNERS):
        assert f"FAILED {name}: less noise than was charged for" in said
    assert "bins that a partner makes of its raw counts" in said
