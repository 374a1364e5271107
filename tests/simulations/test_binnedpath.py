"""Models on bins in one process: a federation's sums and noise, and the steps of plain gradient descent."""

import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from coterie.clients.binnedsums import BinnedCustomers
from coterie.clients.task import binning_of
from coterie.models.binning import layout_of, one_hot, slots_of
from coterie.privacy.calibration import calibrate
from coterie.privacy.plan import Secure
from coterie.privacy.randomness import OsSource, SeededSource
from coterie.privacy.sums import numbers_of
from coterie.server.steps import stepped
from coterie.simulations import binnedpath, trial
from coterie.simulations.binnedpath import NO_NOISE, binned_model, central_shares, own_shares, planned_shares
from coterie.simulations.federation import run_federation
from coterie.simulations.partners import partner_folders, provision
from coterie.simulations.rows import read_rows
from coterie.tests.clients.binnedkit import BINS, FAMILIES, TRUSTS, binned, changed, silent, tables, without_noise
from coterie.tests.clients.summing import FOUR, quick_folder

SOURCE, RARE = SeededSource(b"path"), 1e-6


def some(plan, seed=0, customers=70, rows=3):
    """Customers of each party, in random cells of which the first column's tell of the label."""
    draw, parts = np.random.default_rng(seed), {}
    for name in FOUR:
        customer = np.repeat(np.arange(customers), draw.integers(1, rows + 1, customers))
        spans = binning_of(plan).cell_spans()
        cells = np.stack([draw.integers(span.start, span.stop, len(customer)) for span in spans], axis=1)
        labels = (draw.uniform(size=len(customer)) < 0.1 + 0.8 * (cells[:, 0] > 8)).astype(np.float32)
        parts[name] = BinnedCustomers(cells, labels, customer)
    return parts


def descended(plan, parts, counts, *, newton):
    """Shares of cells, and weights by plain gradient descent on all rows, in float64, without clipping or rounding."""
    declared, training, bins = 100.0 * len(FOUR), plan.training, plan.bins
    cells = np.concatenate([part.cells for part in parts.values()])
    labels = np.concatenate([part.labels for part in parts.values()]).astype(np.float64)
    of_rows = [1 / np.bincount(part.customer)[part.customer] for part in parts.values()]
    each = np.concatenate(of_rows)
    shares = np.array([each[(cells == cell).any(axis=1)].sum() for cell in range(binning_of(plan).cells)]) / declared
    layout = layout_of(binning_of(plan), counts)  # of shares that are equal, the last bit decides which are joined
    inputs = np.hstack([one_hot(slots_of(layout, cells), binning_of(plan).slots), np.ones((len(cells), 1))])
    inputs = inputs.astype(np.float64)
    ridge = np.append(np.full(inputs.shape[1] - 1, bins.ridge / declared), 0.0)
    height = np.append(np.maximum(layout.share, 0) / 4 + bins.ridge / declared, 0.25) if newton else 1.0
    weight = each * np.where(labels > 0, training.positive_weight, 1.0)
    theta = velocity = np.zeros(inputs.shape[1])
    average, kept = np.zeros(inputs.shape[1]), plan.secure.averaging
    for _ in range(training.local_steps):
        chance = 1 / (1 + np.exp(-inputs @ theta))
        gradient = inputs.T @ (weight * (chance - labels)) / declared + ridge * theta
        velocity = plan.secure.momentum * velocity + gradient / height
        theta = theta - training.learning_rate * velocity
        average = kept * average + (1 - kept) * theta
    return shares, average / (1 - kept**training.local_steps) if kept else theta


@pytest.mark.parametrize(("optimizer", "averaging"), [("newton", 0.0), ("newton", 0.8), ("sgd", 0.0), ("sgd", 0.5)])
@pytest.mark.parametrize("family", ["additive", "logistic"])
def test_without_noise_it_is_plain_gradient_descent(family, optimizer, averaging):
    plan = binned(
        family,
        bins=changed(BINS, pairs=("age * region",)),
        secure=Secure(optimizer=optimizer, momentum=0.6, averaging=averaging),
        contract__rows_per_customer=3,
        training__local_steps=12,
        training__clip=8.0,
        training__positive_weight=1.5,
        training__learning_rate=0.3,
    )
    parts = some(plan)
    counts, slots, start = binned_model(plan, parts, shares=NO_NOISE, stream=SOURCE.stream("x"))
    shares, wanted = descended(plan, parts, counts, newton=optimizer == "newton")
    np.testing.assert_allclose(counts, shares, atol=1e-5)
    np.testing.assert_allclose(np.append(slots[0], start), wanted, atol=3e-3 if optimizer == "newton" else 3e-4)
    assert np.abs(wanted).max() > 0.1


def totals_of(plan, parts, shares, monkeypatch):
    """What the path opens at every step, with the noise that it tells the coordinator's steps of."""
    opened = {}

    def noted(plan, state, step, total, *, noise):
        opened[step] = (total.total, noise)
        return stepped(plan, state, step, total, noise=noise)

    with monkeypatch.context() as patch:
        patch.setattr(binnedpath, "stepped", noted)
        binned_model(plan, parts, shares=shares, stream=SOURCE.stream("x"))
    return opened


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("kind", ["planned", "central", "own"])
def test_its_noise_is_that_of_as_many_parties_and_what_steps_are_told(monkeypatch, trust, kind):
    plan = binned("additive", trust, bins=changed(BINS, most=256, cells=256))
    shares = {"planned": planned_shares(plan), "central": central_shares(plan, 4), "own": own_shares(plan)}[kind]
    parts = some(plan)
    noisy = totals_of(plan, parts, shares, monkeypatch)["count/1"]
    plain = totals_of(plan, parts, NO_NOISE, monkeypatch)["count/1"]
    noise = noisy[0] - plain[0]
    made, numbers = calibrate(binned("additive", bins=plan.bins)), numbers_of(plan, "count/1")
    central = made.counting.noise_multiplier * numbers.sensitivity
    scale = {"planned": 2 * numbers.share, "central": central, "own": 2 * central}[kind]
    squares = float((noise.astype(float) ** 2).sum()) / scale**2
    low, high = stats.chi2(len(noise)).ppf([RARE, 1 - RARE])
    assert low < squares < high
    assert high / 4 < squares  # half of it would be seen
    assert noisy[1] == pytest.approx(scale / numbers.sensitivity / 400, rel=1e-4)
    assert plain[1] == 0.0


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_federation_whose_noise_is_silent_makes_the_same_model(monkeypatch, family, trust):
    plan = binned(family, trust, training__local_steps=2)
    without_noise(monkeypatch)
    monkeypatch.setattr(binnedpath, "discrete_gaussians", silent)
    with quick_folder() as folder:
        outcome = run_federation(folder / "f", plan, tables(), seed=3, engine="local", random=OsSource())
        training, _ = read_rows(outcome.signed.plan, outcome.folders)
    parts = {name: BinnedCustomers(rows.features, rows.labels, rows.customer) for name, rows in training.items()}
    ours = binned_model(plan, parts, shares=planned_shares(plan), stream=SOURCE.stream("x"))
    assert ours[0].tobytes() == outcome.progress.weights[0].tobytes()
    for mine, theirs in zip(ours, outcome.progress.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(ours[1]).max() > 1e-3


def test_a_trial_on_bins_compares_every_model_on_the_same_bins():
    plan = binned("additive", "secure-aggregation", training__local_steps=2)
    with quick_folder() as folder:
        made = trial.run_trial(
            folder,
            plan,
            tables(120),
            seed=0,
            engine="local",
            random=OsSource(),
            show=lambda _: None,
            stop=lambda: False,
        )
    assert set(made.exact["models"]) == set(trial.MODELS)
    assert all(math.isfinite(value) for one in made.exact["models"].values() for value in one.values())
    assert made.exact["models"]["pooled"]["auc"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("trust", TRUSTS)
def test_both_engines_release_the_same_bytes(tmp_path, twins, trust):
    plan = binned("additive", trust, training__local_steps=2)
    here = tmp_path / "run"
    provision(here, plan, tables(), seed=0)
    there = twins(here)
    local = run_federation(here, plan, tables(), seed=0, engine="local", random=SeededSource(b"noise"))
    ray = run_federation(there, plan, tables(), seed=0, engine="ray", random=SeededSource(b"noise"))
    sent = [
        {
            (folder.name, file.name): hashlib.sha256(file.read_bytes()).hexdigest()
            for folder in partner_folders(root, plan)
            for file in (folder / "outbox").iterdir()
        }
        for root in (here, there)
    ]
    assert len(sent[0]) == 4 * 4  # a count, two steps and a histogram of each partner
    assert sent[0] == sent[1]
    assert all(np.array_equal(a, b) for a, b in zip(local.progress.weights, ray.progress.weights, strict=True))
