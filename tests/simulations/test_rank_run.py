"""A simulated study that recommends: what is opened, what is charged, what is compared, and what the report says."""

import dataclasses
import json
import re

import numpy as np
import pytest

from coterie.clients.interactions import open_histories
from coterie.clients.task import recommender_of
from coterie.clients.vault import INTERACTIONS, open_vault
from coterie.models.rankcounts import metrics_from_rank_counts, rank_bins
from coterie.privacy.calibration import calibrate
from coterie.privacy.clock import now
from coterie.privacy.ledger import Ledger
from coterie.privacy.randomness import OsSource
from coterie.server import summed
from coterie.server.coordinator import Interrupted
from coterie.server.rankmetrics import FLOOR, MODEL, rank_releases
from coterie.server.recording import record_of
from coterie.server.registry import Registry
from coterie.simulations import run, sources
from coterie.simulations.compare import compared, load_report
from coterie.simulations.federation import run_federation
from coterie.simulations.partners import partner_folders, provision
from coterie.simulations.rankresults import ranked_verdict
from coterie.simulations.ranktrial import RANKED, run_rank_trial
from coterie.simulations.report import render, render_comparison, render_sweep
from coterie.tests.simulations import blocks
from coterie.tests.simulations.test_report import BAND, Reader

MAIN = "hr@10 of 99"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished run whose data are the blocks."""
    folder = tmp_path_factory.mktemp("ranked") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load", lambda _: blocks.tables())
        patch.setattr(sources, "catalogue", lambda _: blocks.CATALOGUE)
        run.save_settings(folder, run.Settings(blocks.STUDY, None, "local", 1))
        run.run_simulation(folder)
    return folder


@pytest.fixture(scope="module")
def report(finished):
    return load_report(finished)


@pytest.fixture(scope="module")
def published(finished):
    """Return the signed plan of the run's first seed, and what its coordinator published."""
    place = finished / "seed-0"
    plan = provision(place, blocks.PLAN, blocks.tables(), seed=0).plan
    return plan, Registry(place / "coordinator").resume(plan.digest())


def tried(folder, plan=blocks.PLAN, stop=lambda: False):
    return run_rank_trial(
        folder,
        plan,
        blocks.tables(),
        catalogue=blocks.CATALOGUE,
        seed=0,
        engine="local",
        random=OsSource(),
        show=lambda _: None,
        stop=stop,
    )


def charges(folder):
    with Ledger(folder / "ledger.sqlite", now) as ledger:
        return ledger.reservations()


def metric(report, key, name=MAIN):
    return next(model for model in report["simulation"]["models"] if model["key"] == key)["metrics"][name]


def deployed(report):
    return {key: value for key, value in report.items() if key != "simulation"}


def test_a_run_leaves_what_it_promises_and_names_the_family_that_was_left_to_it(finished, report):
    for name in ("report.html", "report.json", "model.safetensors", "model-card.md", "study.toml", "run.json"):
        assert (finished / name).stat().st_size > 0
    assert 'family = "auto"' in (finished / "study.toml").read_text(encoding="utf-8")
    assert report["study"]["family"] == "item-gram"
    assert report["guarantee"]["study"]["epsilon"] == pytest.approx(8.0, abs=0.05)
    assert report["guarantee"]["study"]["epsilon"] <= 8.0
    assert {model["key"] for model in report["simulation"]["models"]} == set(RANKED)


def test_a_smaller_epsilon_leaves_popularity_and_the_plan_says_so(tmp_path):
    run.save_settings(tmp_path / "run", run.Settings(blocks.STUDY, 1.0, "local", 1))
    plan, _ = run.study_of(tmp_path / "run", run.load_settings(tmp_path / "run"))
    assert plan.model.family == "popularity"  # 400 customers at epsilon 1


def test_every_partner_is_charged_once_for_counts_once_for_the_sum_and_once_for_places(finished, report):
    for entry in report["budget"]:
        held = charges(finished / "seed-0" / "partners" / entry["partner"])
        assert sorted(r.charge.step for r in held) == ["count/1", "evaluate/1", "train/1"]
        assert all(r.settled for r in held)
        assert [step["step"] for step in entry["steps"]] == ["count 1", "step 1", "metrics 1"]
        assert max(step["study_epsilon"] for step in entry["steps"]) <= 8.0


def test_customers_of_one_kind_are_found_by_pooling_and_by_the_federation_and_not_by_popularity(report):
    popular = metric(report, "popularity")["mean"]
    assert popular < 0.4
    assert metric(report, "pooled")["mean"] > popular + 0.3
    assert metric(report, "federated-private")["mean"] > popular + 0.2
    assert metric(report, "popularity-private")["mean"] == pytest.approx(popular, abs=0.2)  # noise moves it by 0.03
    gap = report["simulation"]["gaps"]["popularity"]
    assert 0 < gap["low"] < gap["mean"] < gap["high"]


def test_the_released_floor_and_model_are_near_the_exact_ones_and_not_the_same(report):
    last = report["release"]["rounds"][-1]
    assert last["partners"] == 4
    assert last[MAIN] > last["floor"][MAIN]
    exact = metric(report, "federated-private")["seeds"][0]
    assert last[MAIN] == pytest.approx(exact, abs=0.35)  # of some fifty customers
    assert last["ranges"][MAIN]["low"] <= last[MAIN] <= last["ranges"][MAIN]["high"]
    lengths = [point[0] for point in report["release"]["hits"]["model"]]
    assert lengths == sorted(lengths)
    assert report["release"]["hits"]["model"][-1] == [blocks.ITEMS, 1.0]


def test_the_page_shows_charged_figures_first_and_exact_ones_in_the_band_alone(finished, report):
    page = (finished / "report.html").read_text(encoding="utf-8")
    reader = Reader(page)
    assert not reader.faults
    assert len(reader.ids) == len(set(reader.ids))
    assert {reference.removeprefix("#") for reference in reader.references} <= set(reader.ids)
    assert len(BAND.findall(page)) == 1
    assert BAND.sub("", page).split() == render(deployed(report)).split()
    places = [page.index(mark) for mark in ("<h1>", 'id="releases"', 'id="guarantee"', 'id="simulation"')]
    assert places == sorted(places)
    band = Reader(BAND.search(page).group(0)).words
    for model in report["simulation"]["models"]:
        assert model["title"] in band
        for figure in model["metrics"].values():
            assert f"{figure['mean']:.3f}" in band
    for group in report["simulation"]["review"]["items"]:
        assert group["group"] in band
    for sentence in report["simulation"]["verdict"]:
        assert sentence in band
    assert f"{report['release']['rounds'][-1]['floor'][MAIN]:.3f}" in Reader(BAND.sub("", page)).words


def test_the_band_is_missing_no_figure_where_nothing_is_known(report):
    bare = json.loads(json.dumps(report))
    bare["release"].update(rounds=[], hits={"model": [], "floor": []})
    bare["simulation"].update(gaps={}, review={"attribute": None, "items": [], "customers": {}})
    words = Reader(render(bare)).words
    assert "No metric was released." in words
    assert "None" not in words
    assert not re.search(r"\bnan\b", words)


def test_sweeps_and_comparisons_go_by_hits(report):
    other = json.loads(json.dumps(report))
    other["guarantee"]["study"]["epsilon"] = 4.0
    page = render_sweep([report, other])
    assert "Mean HR@10 of 99 against ε" in page
    assert f"{metric(report, 'pooled')['mean']:.3f}" in page
    assert "AUC" not in Reader(page).words
    both = Reader(render_comparison(report, other)).words
    assert "releases an HR@10 of 99 of" in both
    assert "Novelty@10, bits" in both
    assert {row["metric"] for row in compared(report, other)} == set(report["simulation"]["models"][0]["metrics"])


def test_the_card_says_how_the_model_does_beside_the_floor(finished, report):
    card = (finished / "model-card.md").read_text(encoding="utf-8")
    last = report["release"]["rounds"][-1]
    assert f"| {MAIN} | {last[MAIN]:.3f} |" in card
    assert f"| {MAIN} of what is most popular | {last['floor'][MAIN]:.3f} |" in card
    assert "over 1 round;" in card


def test_the_review_accounts_for_all_items_and_all_customers(report):
    review = report["simulation"]["review"]
    assert review["attribute"] == "kind"
    for share in ("catalogue", "popularity", "exposure"):
        assert sum(group[share] for group in review["items"]) == pytest.approx(1.0)
    asked = sum(entry["asked"] for entry in report["simulation"]["partners"])
    for groups in review["customers"].values():
        assert sum(group["customers"] for group in groups) == asked
    assert {group["group"] for group in review["customers"]["partner"]} == set(blocks.NAMES)


def test_an_interrupted_trial_of_partners_own_sums_goes_on_and_nobody_is_charged_twice(tmp_path):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 2  # the count is opened, the sum not asked for

    with pytest.raises(Interrupted):
        tried(tmp_path, blocks.local(), stop)
    halfway = {r.charge.step for folder in partner_folders(tmp_path, blocks.PLAN) for r in charges(folder)}
    assert halfway == {"count/1"}
    trial = tried(tmp_path, blocks.local())
    assert trial.outcome.progress.refusals == ()
    for folder in trial.outcome.folders:
        assert sorted(r.charge.step for r in charges(folder)) == ["count/1", "evaluate/1", "train/1"]


def opened_without_noise(folder, monkeypatch):
    """Run the federation on the blocks with noise patched to nothing, and return what every sum opened."""
    opened, stepped = {}, summed.stepped

    def noted(plan, state, step, total):
        opened[step] = (total, state.weights)
        return stepped(plan, state, step, total)

    monkeypatch.setattr("coterie.clients.sumnode.discrete_gaussians", lambda _, count, __: np.zeros(count, np.int64))
    monkeypatch.setattr(summed, "stepped", noted)
    outcome = run_federation(
        folder,
        blocks.PLAN,
        blocks.tables(),
        seed=0,
        engine="local",
        random=OsSource(),
        catalogue=blocks.CATALOGUE,
    )
    return outcome, opened


def test_without_noise_what_is_opened_is_the_plain_sum_over_the_partners_tables(tmp_path, monkeypatch):
    outcome, opened = opened_without_noise(tmp_path, monkeypatch)
    plan, made = outcome.signed.plan, calibrate(outcome.signed.plan).summed
    rows = []
    for folder in outcome.folders:
        with open_vault(folder, now) as vault:
            group_key = vault.workspace.group_key
            sealed = vault.table(INTERACTIONS)
            table = open_histories(sealed, plan.contract, blocks.CATALOGUE, group_key=group_key).training
        for start, end in zip(table.starts[:-1], table.starts[1:], strict=True):
            row = np.zeros(blocks.ITEMS)
            row[table.items[start:end]] = 1.0
            rows.append(row)
    histories = np.array(rows)
    assert 350 < len(histories) < 420
    counts = (histories / np.linalg.norm(histories, axis=1, keepdims=True)).sum(axis=0)
    total, _ = opened["count/1"]
    # Every customer's number is rounded to whole units, half a unit off at most.
    assert np.abs(total.total - counts * made.count.sensitivity).max() <= len(histories) / 2
    total, weights = opened["train/1"]
    popularity = weights[0].astype(np.float64)
    order = np.argsort(-popularity, kind="stable")
    scale = np.maximum(popularity[order] / popularity.max(), 0.01) ** -recommender_of(plan).exponent
    scaled = histories[:, order] * scale
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    gram = scaled.T @ scaled
    triangle = (gram * np.where(np.eye(len(gram)) > 0, 1, np.sqrt(2)))[np.triu_indices(len(gram))]
    assert np.abs(total.total - triangle * made.update.sensitivity).max() <= len(histories) / 2
    assert np.abs(triangle).sum() * made.update.sensitivity > 100 * len(histories)


def test_counts_carry_the_noise_of_every_partner_that_answered(published):
    plan, progress = published
    (release,) = rank_releases(plan, progress)
    event = calibrate(plan).histogram
    assert release.partners == 4
    assert release.noise == pytest.approx(2 * event.share / event.sensitivity)  # the root of four partners
    alone = dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, trust="local"))
    own = dataclasses.replace(progress, histograms={1: {"a": release.counts, "b": release.counts}})
    (both,) = rank_releases(alone, own)
    assert both.partners == 2
    assert both.noise == pytest.approx(np.sqrt(2) * calibrate(alone).histogram.sigma)
    np.testing.assert_array_equal(both.counts, 2 * release.counts)


def test_the_signed_record_has_the_charged_metrics_of_model_and_floor(published):
    plan, progress = published
    counts = sum(progress.histograms[1].values())
    edges, found = rank_bins(blocks.ITEMS, plan.metrics.bins), record_of(plan, progress).metrics
    for row, end in ((MODEL, ""), (FLOOR, "_floor")):
        wanted = metrics_from_rank_counts(counts[row], edges, longest=16, noise=0.0)
        assert {name: found[name + end] for name in wanted} == {name: one.value for name, one in wanted.items()}
    assert len(found) == 10


def test_customers_lost_in_the_noise_have_no_metrics(published):
    plan, progress = published
    lost = dataclasses.replace(progress, histograms={1: {"all": np.array([[1, -1] * 4, [0, 1] * 4])}})
    assert record_of(plan, lost).metrics == {}
    (release,) = rank_releases(plan, lost)
    assert release.hits(MODEL) == []
    assert rank_releases(plan, dataclasses.replace(progress, histograms={1: {}})) == []


def test_the_verdict_says_where_the_federation_is_not_better():
    def one(ours, popular, alone):
        keys = dict.fromkeys(RANKED, 0.5) | {"federated-private": ours, "popularity": popular, "alone": alone}
        gap = {"mean": ours - popular, "low": ours - popular - 0.01, "high": ours - popular + 0.01}
        return {
            "models": {key: {MAIN: value} for key, value in keys.items()},
            "partners": {"bank": {"models": keys}},
            "gaps": dict.fromkeys(set(RANKED) - {"federated-private"}, gap),
        }

    worse = ranked_verdict([one(0.4, 0.6, 0.7)])
    assert any("worse than an exact list of what is most popular, by 20.0 points (−21.0 to −19.0" in s for s in worse)
    assert any("better than no partner alone without any privacy" in s for s in worse)
    better = ranked_verdict([one(0.8, 0.6, 0.7)])
    assert any("better than an exact list of what is most popular, by 20.0 points (+19.0 to +21.0" in s for s in better)
    assert any("better than every partner alone without any privacy" in s for s in better)
