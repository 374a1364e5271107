"""A simulated study ends with a report, can be interrupted, and never spends more than it says."""

import json
import math

import numpy as np
import pytest
from scipy import optimize

from coterie.models.modelfile import load_model
from coterie.privacy.clock import now
from coterie.privacy.errors import FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.randomness import OsSource, SeededSource
from coterie.server.coordinator import Interrupted
from coterie.simulations import baselines, run, trial
from coterie.simulations.compare import compared, load_report
from coterie.simulations.federation import run_federation
from coterie.simulations.partners import folder_of, partner_folders
from coterie.simulations.results import spread, verdict
from coterie.simulations.rows import Rows, everyone, read_rows
from coterie.simulations.sweep import run_sweep


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_study):
    """Return the folder of a finished run with two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run.save_settings(folder, run.Settings(small_study, 4.0, "local", 2))
    run.run_simulation(folder)
    return folder


def charges(folder):
    with Ledger(folder / "ledger.sqlite", now) as ledger:
        return ledger.reservations()


def test_a_run_leaves_what_it_promises(finished):
    for name in ("report.html", "report.json", "model.safetensors", "model-card.md", "study.toml", "run.json"):
        assert (finished / name).stat().st_size > 0
    report = load_report(finished)
    assert report["guarantee"]["study"]["epsilon"] == pytest.approx(4.0, abs=0.02)
    assert report["guarantee"]["study"]["epsilon"] <= 4.0
    assert report["made"]["seeds"] == [0, 1]
    assert {model["key"] for model in report["simulation"]["models"]} == set(trial.MODELS)
    model = load_model(finished / "model.safetensors")
    assert model.about["digest"] == report["study"]["digest"]


def test_the_report_says_what_the_ledgers_hold(finished):
    report = load_report(finished)
    for entry in report["budget"]:
        held = charges(finished / "seed-0" / "partners" / folder_of(entry["partner"]))
        assert len(held) == len(entry["steps"]) == 3  # two updates, one histogram
        assert all(r.settled for r in held)
        assert {r.charge.random for r in held} == {"os"}
        assert max(step["study_epsilon"] for step in entry["steps"]) <= 4.0


def test_released_metrics_are_near_the_exact_ones_but_not_the_same(finished):
    report = load_report(finished)
    released = report["release"]["rounds"][-1]["auc"]
    exact = report["simulation"]["models"][0]["metrics"]["auc"]["seeds"][0]
    assert released != exact
    assert released == pytest.approx(exact, abs=0.1)


def test_every_model_file_and_record_has_the_calibration_that_the_report_shows(finished):
    report, seed = load_report(finished), finished / "seed-0"
    fitted = report["release"]["calibration_fit"]
    assert fitted["kind"] != "none"
    told = {"slope": fitted["slope"], "intercept": fitted["intercept"]}
    received = sorted((seed / "partners").glob("*/models/*.safetensors"))
    assert len(received) == len(report["budget"])
    for path in (finished / "model.safetensors", seed / "model.safetensors", *received):
        assert load_model(path).about["calibration"] == told
    for path in received:
        metrics = json.loads(path.with_suffix(".record.json").read_bytes())["record"]["metrics"]
        assert {name: metrics[f"calibration_{name}"] for name in told} == told


def test_a_finished_run_is_not_run_again(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("ledger.sqlite")}
    run.run_simulation(finished)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("ledger.sqlite")} == before
    with pytest.raises(FileFault, match="holds a run already"):
        run.save_settings(finished, run.load_settings(finished))


def test_an_interrupted_run_goes_on_from_the_last_published_round(tmp_path, small):
    plan, tables = small
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 2  # before round 2

    with pytest.raises(Interrupted):
        run_federation(tmp_path, plan, tables, seed=0, engine="local", random=OsSource(), stop=stop)
    halfway = [len(charges(folder)) for folder in partner_folders(tmp_path, plan)]
    assert halfway == [2, 2, 2]  # an update and a histogram of round 1
    outcome = run_federation(tmp_path, plan, tables, seed=0, engine="local", random=OsSource())
    assert outcome.progress.round == 2
    assert [len(charges(folder)) for folder in outcome.folders] == [4, 4, 4]
    assert outcome.progress.refusals == ()


def test_a_seeded_run_claims_no_epsilon(tmp_path, small_study):
    run.save_settings(tmp_path / "run", run.Settings(small_study, 4.0, "local", 1))
    report = run.run_simulation(tmp_path / "run", random=SeededSource(b"x"))
    assert report["guarantee"]["study"]["epsilon"] is None
    assert all(group["epsilon"] is None for group in report["guarantee"]["groups"])
    assert all(entry["epsilon"] is None for entry in report["guarantee"]["multiplicity"])
    assert "no guarantee" in report["guarantee"]["words"][0]


def test_a_sweep_draws_more_use_from_more_epsilon(tmp_path, small_study):
    reports = run_sweep(tmp_path, small_study, [0.2, 8.0], seeds=2, jobs=2, done=lambda _: None)
    ours = [report["simulation"]["models"][0]["metrics"]["auc"]["mean"] for report in reports]
    assert ours[1] > ours[0]
    page = (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert "<svg" in page
    rows = compared(*reports)
    assert {row["model"] for row in rows} == set(trial.MODELS)
    assert all(row["difference"] == row["second"]["mean"] - row["first"]["mean"] for row in rows)


def test_a_report_of_another_kind_is_refused(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"format": "something else"}))
    with pytest.raises(FileFault, match="coterie/report/v1"):
        load_report(tmp_path)


def test_the_pooled_baseline_is_the_minimum_of_its_loss(tmp_path, small):
    plan, tables = small
    outcome = run_federation(tmp_path, plan, tables, seed=0, engine="local", random=OsSource())
    training, _ = read_rows(outcome.signed.plan, outcome.folders)
    rows = everyone(training)

    def loss(parameters):
        w, b = parameters[:-1], parameters[-1]
        logits = rows.features @ w + b
        fit = np.average(np.logaddexp(0, logits) - rows.labels * logits, weights=rows.weights)
        return fit + (w @ w) / (2 * rows.customers)

    best = optimize.minimize(loss, np.zeros(rows.features.shape[1] + 1), method="L-BFGS-B").fun
    found = baselines.converged(plan, rows)
    ours = loss(np.concatenate([found[0][0], found[1]]).astype(float))
    assert ours == pytest.approx(best, abs=2e-4)


def test_everyone_keeps_customers_of_two_partners_apart():
    rows = Rows(np.zeros((2, 1), np.float32), np.array([0, 1], np.float32), np.array([0, 0]))
    together = everyone({"a": rows, "b": rows})
    assert together.customers == 2
    assert together.weights.tolist() == [0.5] * 4


def test_an_interval_is_student_t():
    figure = spread([0.7, 0.8, 0.9])
    # t(0.975, 2) = 4.302653, standard error = 0.1 / sqrt 3
    assert figure["mean"] == pytest.approx(0.8)
    assert figure["high"] - figure["mean"] == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert spread([0.7])["low"] is None


def test_the_verdict_says_where_the_federation_does_not_win():
    def one(ours, alone):
        figures = {"federated-private": {"auc": ours}, "alone-private": {"auc": 0.6}, "pooled": {"auc": 0.9}}
        partner = {
            "union": {"federated-private": ours, "alone-private": 0.6, "alone": alone},
            "models": {"federated-private": ours, "alone-private": 0.6, "alone": alone},
        }
        return {"models": figures, "partners": {"bank": partner}}

    assert any("beats no partner alone without any privacy" in s for s in verdict([one(0.7, 0.8)]))
    assert any("beats every partner alone without any privacy" in s for s in verdict([one(0.85, 0.8)]))


def test_folders_of_different_partners_differ():
    names = ["A B", "a-b", "A-B", "Банк", "銀行", "bank"]
    assert len({folder_of(name) for name in names}) == len(names)
    assert folder_of("bank") == "bank"
