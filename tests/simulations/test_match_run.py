"""A simulated match: what is counted, what noise is in it, who learns which rows, and what the report says."""

import itertools
import json
import math
import shutil

import pytest
from typer.testing import CliRunner

from coterie.cli.main import app
from coterie.clients.matched import multiplicities, rows_of_match
from coterie.clients.vault import open_vault
from coterie.privacy.clock import now
from coterie.privacy.errors import FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.matching import decoys
from coterie.privacy.overlaps import read_overlap
from coterie.privacy.randomness import OsSource, SeededSource
from coterie.privacy.signed import SignedPlan
from coterie.privacy.study import read_study
from coterie.server.books import Books
from coterie.server.coordinator import Interrupted
from coterie.server.office import Office
from coterie.server.registry import Registry
from coterie.simulations import run, sources, studies
from coterie.simulations.compare import load_report
from coterie.simulations.deployedreport import deployed_report, write_report
from coterie.simulations.deployment import narrowed
from coterie.simulations.federation import run_federation
from coterie.simulations.partners import partner_folders, provision
from coterie.simulations.report import render
from coterie.simulations.shared import cells, exact_overlap
from coterie.tests.simulations import sharing
from coterie.tests.simulations.test_report import BAND, Reader

NAMES = tuple(sharing.FIRST)
SETS = [frozenset(part) for size in range(1, 5) for part in itertools.combinations(NAMES, size)]


def at(person):
    """Return the shops that a person is a customer of."""
    return frozenset(name for name, first in sharing.FIRST.items() if first <= person < first + sharing.CUSTOMERS)


PEOPLE = range(max(sharing.FIRST.values()) + sharing.CUSTOMERS)
TRUTH = {cell: sum(at(person) == cell for person in PEOPLE) for cell in SETS}


def charges(folder):
    with Ledger(folder / "ledger.sqlite", now) as ledger:
        return ledger.reservations()


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    """Return a match of the shops' customers, and how many dummies of each set every shop drew."""
    drawn, numbers = {}, decoys.numbers

    def spied(terms, name, stream):
        drawn[name] = {frozenset(cell): number for cell, number in numbers(terms, name, stream).items()}
        return dict(zip(decoys.cells_of(terms, name), drawn[name].values(), strict=True))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoys, "numbers", spied)
        trial = sharing.tried(tmp_path_factory.mktemp("noted"), sharing.COUNTED, OsSource())
    return trial, drawn


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished run."""
    folder = tmp_path_factory.mktemp("counted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "identifiers", lambda _: sharing.identifiers())
        run.save_settings(folder, run.Settings(sharing.STUDY, None, "local", 1))
        run.run_simulation(folder)
    return folder


# --- what is counted ------------------------------------------------------------------------------------


def test_the_exact_counts_of_a_simulation_are_plain_sets(noted):
    assert {cell: count for cell, count in TRUTH.items() if count} == cells(sharing.COUNTED, sharing.identifiers())
    exact = exact_overlap(sharing.COUNTED, sharing.identifiers())
    assert [one["customers"] for one in exact["cells"]] == [TRUTH[cell] for cell in SETS]
    assert [one["customers"] for one in exact["totals"]] == [sharing.CUSTOMERS] * 4
    pairs = [sum(set(pair) <= at(p) for p in PEOPLE) for pair in itertools.combinations(NAMES, 2)]
    assert [one["customers"] for one in exact["pairs"]] == pairs
    by_number = [sum(len(at(p)) == k for p in PEOPLE) for k in range(1, 5)]
    assert [one["customers"] for one in exact["multiplicity"]] == by_number
    assert {name: noted[0].exact[name] for name in exact} == exact


def test_counts_are_plain_sets_and_the_noise_that_the_shops_drew(noted):
    """Dummies of D(p, S) are on all lists of S, or on all of S but p's own: p draws how many of them are which."""
    trial, drawn = noted
    overlap = trial.outcome.progress.overlap
    half = overlap["width"] // 2
    assert set(drawn) == set(NAMES)
    assert len({tuple(one.values()) for one in drawn.values()}) == 4  # nobody draws another's noise
    for one in overlap["cells"]:
        cell = frozenset(one["partners"])
        here = sum(drawn[p][cell] - half for p in cell)
        left_out = sum(half - drawn[p][cell | {p}] for p in set(NAMES) - cell)
        noisy = TRUTH[cell] + here + left_out
        assert one["customers"] == (noisy if noisy >= 12 else None), cell
    assert any(one["customers"] is None for one in overlap["cells"])
    sigma = overlap["sigma"]
    deviations = {len(one["partners"]): one["deviation"] for one in overlap["cells"]}
    assert all(value == pytest.approx(2 * sigma) for value in deviations.values())  # four independent terms


def test_every_shop_pays_once_for_each_group_of_its_customers(noted):
    trial, _ = noted
    for folder in trial.outcome.folders:
        held = charges(folder)
        assert sorted(r.charge.step for r in held) == ["match/holdout", "match/training"]
        assert all(r.settled for r in held)
        assert len({r.charge.event for r in held}) == 1


def test_an_interrupted_match_goes_on_and_nobody_is_charged_twice(tmp_path):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 8  # some lists are on their way

    with pytest.raises(Interrupted):
        sharing.tried(tmp_path, sharing.COUNTED, OsSource(), stop=stop)
    folders = partner_folders(tmp_path, sharing.COUNTED)
    assert all(len(charges(folder)) == 2 for folder in folders)
    trial = sharing.tried(tmp_path, sharing.COUNTED, OsSource())
    assert all(len(charges(folder)) == 2 for folder in folders)
    assert trial.outcome.progress.refusals == ()
    for one in trial.outcome.progress.overlap["totals"]:
        assert abs(one["customers"] - sharing.CUSTOMERS) < 12 * one["deviation"]


@pytest.mark.slow  # Ray starts for ten seconds and more; trained studies run through it in every run
def test_both_engines_match_with_the_same_bytes(tmp_path, twins):
    here = tmp_path / "run"
    provision(here, sharing.COUNTED, {}, seed=0, identifiers=sharing.identifiers())
    there = twins(here)
    local = sharing.tried(here, sharing.COUNTED, SeededSource(b"noise")).outcome.progress
    ray = sharing.tried(there, sharing.COUNTED, SeededSource(b"noise"), engine="ray").outcome.progress
    assert local.matched == ray.matched != ""
    assert local.receipts == ray.receipts != ()
    assert local.overlap == ray.overlap


# --- rows -----------------------------------------------------------------------------------------------


def test_rows_are_the_plain_intersections_and_each_shop_learns_its_own_alone(tmp_path):
    outcome = run_federation(
        tmp_path,
        sharing.LISTED,
        {},
        seed=0,
        engine="local",
        random=OsSource(),
        identifiers=sharing.identifiers(),
    )
    assert outcome.progress.overlap == {}
    plan = outcome.signed.plan
    for name, folder in zip(NAMES, outcome.folders, strict=True):
        mine = sharing.people(name)
        with open_vault(folder, now) as vault:
            found = {other: set() for other in NAMES if other != name}
            for piece in rows_of_match(vault, plan.digest(), "rows"):
                for row in piece.to_pylist():
                    found[row["partner"]].add(row["customer"])
            customers, known = multiplicities(vault, plan.digest())
        for other, who in found.items():
            assert who == {customer for customer, person in mine.items() if other in at(person)}
        counted = dict(zip(customers.to_pylist(), known.tolist(), strict=True))
        assert counted == {c: len(at(person)) for c, person in mine.items() if len(at(person)) > 1}
        with Ledger(folder / "ledger.sqlite", now) as ledger:
            (entry,) = ledger.entries("disclosure")
        assert entry.body["outcome"] == "rows"
        assert charges(folder) == ()


def test_a_study_that_only_discloses_has_no_report(tmp_path):
    text = sharing.STUDY.replace('outcome = "counts"', 'outcome = "rows"')
    run.save_settings(tmp_path / "run", run.Settings(text, None, "local", 1))
    with pytest.raises(FileFault, match="leaves its result with the partners"):
        run.run_simulation(tmp_path / "run")


def test_a_source_without_the_plans_kind_of_identifier_is_named_with_those_that_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "identifiers", lambda _: sharing.identifiers())
    text = sharing.STUDY.replace('identifier = "email"', 'identifier = "phone"')
    run.save_settings(tmp_path / "run", run.Settings(text, None, "local", 1))
    with pytest.raises(FileFault, match="name one of email"):
        run.run_simulation(tmp_path / "run")


# --- the report -----------------------------------------------------------------------------------------


def test_a_run_leaves_counts_and_no_model(finished):
    for name in ("report.html", "report.json", "overlap.json", "study.toml", "run.json"):
        assert (finished / name).stat().st_size > 0
    assert not [path for path in finished.rglob("model*") if path.is_file()]
    report = load_report(finished)
    assert report["model"] is None
    assert report["study"]["outcome"] == "counts"
    assert report["guarantee"]["study"]["epsilon"] == pytest.approx(8.0, abs=0.05)
    assert report["guarantee"]["study"]["epsilon"] <= 8.0
    for entry in report["budget"]:
        assert [step["step"] for step in entry["steps"]] == ["match/training", "match/holdout"]
        assert all(step["study_epsilon"] <= 8.0 for step in entry["steps"])
    assert json.loads((finished / "overlap.json").read_text())["overlap"] == report["release"]["overlap"]


def test_the_report_holds_noisy_counts_to_exact_ones(finished):
    report = load_report(finished)
    exact = report["simulation"]["exact"]
    assert {frozenset(one["partners"]): one["customers"] for one in exact["cells"]} == TRUTH
    for name, counts in exact.items():
        for noisy, truth in zip(report["release"]["overlap"][name], counts, strict=True):
            if noisy["customers"] is not None:
                assert abs(noisy["customers"] - truth["customers"]) < 12 * noisy["deviation"]
        assert 0 <= report["simulation"]["errors"][name]["mean"] < 12
    shared = sum(len(at(person)) > 1 for person in PEOPLE)
    assert (
        f"Of {len(PEOPLE)} people {shared} ({100 * shared / len(PEOPLE):.1f} %)" in report["simulation"]["verdict"][0]
    )


def test_the_page_shows_noisy_counts_and_exact_ones_in_the_band_alone(finished):
    report, page = load_report(finished), (finished / "report.html").read_text(encoding="utf-8")
    reader = Reader(page)
    assert not reader.faults
    assert len(reader.ids) == len(set(reader.ids))
    assert len(BAND.findall(page)) == 1
    deployed = {key: value for key, value in report.items() if key != "simulation"}
    assert BAND.sub("", page).split() == render(deployed).split()
    band = Reader(BAND.search(page).group(0)).words
    for sentence in report["simulation"]["verdict"]:
        assert sentence in band
    words = Reader(BAND.sub("", page)).words
    for sentence in report["guarantee"]["overlap"]["words"]:
        assert sentence in words
    assert "None" not in words


def test_a_seeded_match_claims_no_epsilon(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "identifiers", lambda _: sharing.identifiers())
    run.save_settings(tmp_path / "run", run.Settings(sharing.STUDY, None, "local", 1))
    report = run.run_simulation(tmp_path / "run", random=SeededSource(b"x"))
    assert report["guarantee"]["study"]["epsilon"] is None
    assert all(group["epsilon"] is None for group in report["guarantee"]["groups"])
    assert all(entry["epsilon"] is None for entry in report["guarantee"]["multiplicity"])
    assert "no guarantee" in report["guarantee"]["words"][0]
    assert sum(one["customers"] is not None for one in report["release"]["overlap"]["cells"]) > 3


def test_a_finished_match_is_not_made_again(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("ledger.sqlite")}
    assert run.run_simulation(finished)["release"] == load_report(finished)["release"]
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("ledger.sqlite")} == before


# --- deployed ------------------------------------------------------------------------------------------


@pytest.fixture
def office(tmp_path, finished):
    """Return a coordinator's folder with the finished match in its books."""
    place = finished / "seed-0" / "coordinator"
    made = Office.create(tmp_path / "office", name="coordinator", address="localhost:4711", clock=now)
    made.identity_file.unlink()
    shutil.copy(place / "identity.pem", made.identity_file)
    signed = SignedPlan.from_bytes((place / "plan.json").read_bytes(), coordinator=made.identity.public)
    with Books(made.books_url, now) as books:
        books.submit(signed)
    return made, signed.plan, Registry(place).resume(signed.plan.digest())


def test_a_deployed_match_is_reported_with_its_counts_and_nothing_exact(office, tmp_path):
    made, plan, progress = office
    with pytest.raises(FileFault, match="has no counts"):
        deployed_report(made, "counted", clock=now)
    Registry(made.study(plan.digest())).publish(progress)
    report = deployed_report(made, "counted", clock=now)
    assert report["release"]["overlap"] == progress.overlap
    assert (report["simulation"], report["budget"], report["model"]) == (None, [], None)
    assert report["guarantee"]["study"]["epsilon"] == pytest.approx(8.0, abs=0.05)
    write_report(report, tmp_path / "out" / "report.html")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["overlap.json", "report.html", "report.json"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not BAND.search(page)
    counts = read_overlap((tmp_path / "out" / "overlap.json").read_bytes(), place="counts")
    assert counts.overlap.to_dict() == progress.overlap
    assert (counts.plan, counts.partner) == (plan.digest(), "north")
    # The release that the teller's ledger and the coordinator's receipts name.
    assert counts.release in {receipt.release for receipt in progress.receipts}


# --- the commands ---------------------------------------------------------------------------------------


def test_the_command_prints_every_told_count_with_its_noise_and_its_exact_one(finished):
    report = load_report(finished)
    done = CliRunner().invoke(app, ["simulate", "run", "--resume", str(finished)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "exact (simulation only)" in done.output
    for one in report["release"]["overlap"]["multiplicity"]:
        if one["customers"] is not None:
            assert f"{one['customers']:,}" in done.output
    untold = sum(one["customers"] is None for one in report["release"]["overlap"]["cells"])
    assert f"{untold} of 15 are below 12 and not told" in done.output
    assert report["simulation"]["verdict"][0] in done.output
    plain = CliRunner().invoke(app, ["simulate", "run", "--resume", str(finished), "--json"])
    assert json.loads(plain.stdout)["release"] == report["release"]


def test_what_compares_models_refuses_a_match_in_one_line(finished, tmp_path):
    for command in (
        ["simulate", "sweep", "overlap", "--output", str(tmp_path / "sweep")],
        ["simulate", "compare", str(finished), str(finished), "--output", str(tmp_path / "page.html")],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code != 0
        assert "nothing to compare" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_match_of_fewer_partners_needs_all_of_them():
    plan = read_study(studies.path("overlap")).plan
    fewer = narrowed(plan, ["region-1", "region-2", "region-3"])
    assert [partner.name for partner in fewer.partners] == ["region-1", "region-2", "region-3"]
    assert fewer.privacy.threshold == 3
    joint = narrowed(read_study(studies.path("journey-joint")).plan, ["region-1", "region-2", "region-3"])
    assert (joint.privacy.threshold, joint.privacy.partners_per_person, joint.cohort.partners) == (3, 3, 2)
    with pytest.raises(FileFault, match="partners"):
        narrowed(plan, ["region-1"])


def test_policies_of_simulated_partners_permit_this_match_and_no_other(noted):
    trial, _ = noted
    for folder in trial.outcome.folders:
        text = (folder / "policy.toml").read_text(encoding="utf-8")
        assert 'outcomes = ["counts"]' in text
        assert 'identifiers = ["email"]' in text
        assert "disclosures = 0" in text


# --- the studies that come with coterie -----------------------------------------------------------------


def near(report, deviations):
    """Say that every told count lies so near its exact one."""
    for name, counts in report["simulation"]["exact"].items():
        for noisy, truth in zip(report["release"]["overlap"][name], counts, strict=True):
            if noisy["customers"] is not None:
                assert abs(noisy["customers"] - truth["customers"]) < deviations * noisy["deviation"]


@pytest.mark.slow
@pytest.mark.parametrize("study", ["overlap", "overlap-synthetic"])
def test_the_built_in_matches_end_near_the_truth(tmp_path, study):
    run.save_settings(tmp_path / "run", run.Settings(studies.path(study).read_text(encoding="utf-8"), None, "local", 1))
    report = run.run_simulation(tmp_path / "run")
    near(report, 8)
    assert report["guarantee"]["study"]["epsilon"] <= 1.0
    several = [row["share"] for row in report["guarantee"]["multiplicity"][1:] if row["share"] is not None]
    expected = {"overlap": 919 / 2401, "overlap-synthetic": 1562 / 6237}[study]
    assert math.isclose(sum(several), expected, abs_tol=0.06)
    for one in report["release"]["overlap"]["cells"]:
        assert one["customers"] is None or one["customers"] >= 30
