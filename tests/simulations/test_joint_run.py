"""A simulated study of shared customers: they are found first, and nobody else is trained on or measured."""

import dataclasses

import numpy as np
import pytest

from coterie.clients.matched import multiplicities
from coterie.clients.vault import open_vault
from coterie.privacy.calibration import calibrate
from coterie.privacy.clock import now
from coterie.privacy.ledger import Ledger
from coterie.server import summed
from coterie.simulations import oneparty, run, sources
from coterie.simulations.compare import load_report
from coterie.simulations.histories import hold_back
from coterie.simulations.partners import group_key_of, partner_folders, provision
from coterie.simulations.shared import sharing as taking_part
from coterie.tests.simulations import blocks, sharing
from coterie.tests.simulations.test_match_run import NAMES, at
from coterie.tests.simulations.test_report import Reader

TAKING = {
    name: {customer for customer, person in sharing.people(name).items() if 2 <= len(at(person)) <= 3} for name in NAMES
}


def rows(table, customer):
    """Return the items of a customer's rows, in their order."""
    return [row["item"] for row in table.to_pylist() if row["customer"] == customer]


STUDY = blocks.STUDY
for old, new in (
    ('unit = "customer of one partner"', 'unit = "person at up to k partners"\npartners_per_person = 3'),
    ("minimum_customers = 50", "minimum_customers = 20\npartners = 2"),
    ('family = "auto"', 'family = "item-gram"'),
    ("[training]", '[matching]\nidentifier = "email"\noutcome = "rows"\nleast = 12\nsize_class = 16\n\n[training]'),
):
    if old not in STUDY:
        raise LookupError(old)
    STUDY = STUDY.replace(old, new)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run whose sums have no noise, and what each of them opened."""
    folder, sums, stepped = tmp_path_factory.mktemp("joint") / "run", {}, summed.stepped

    def noted(plan, state, step, total):
        sums[step] = total.total
        return stepped(plan, state, step, total)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "identifiers", lambda _: sharing.identifiers())
        patch.setattr(sources, "load", lambda _: blocks.tables())
        patch.setattr(sources, "catalogue", lambda _: blocks.CATALOGUE)
        patch.setattr("coterie.clients.sumnode.discrete_gaussians", lambda _, count, __: np.zeros(count, np.int64))
        patch.setattr(summed, "stepped", noted)
        run.save_settings(folder, run.Settings(STUDY, None, "local", 1))
        run.run_simulation(folder)
    return folder, sums


@pytest.fixture(scope="module")
def workspaces(finished):
    """Return the digest of the run's plan, and the shops' workspaces by name."""
    place = finished[0] / "seed-0"
    plan = provision(place, sharing.JOINT, blocks.tables(), seed=0).plan
    return plan.digest(), dict(zip(NAMES, partner_folders(place, plan), strict=True))


def kept(name):
    """Return what a shop's table is without the last items of those who take part."""
    among = taking_part(sharing.JOINT, sharing.identifiers())[name]
    contract, key = sharing.JOINT.contract, group_key_of(0)
    return hold_back(blocks.tables()[name], contract, blocks.CATALOGUE, group_key=key, among=among)


def test_who_takes_part_is_at_two_or_three_shops():
    found = taking_part(sharing.JOINT, sharing.identifiers())
    assert {name: set(customers.to_pylist()) for name, customers in found.items()} == TAKING
    assert {name: len(customers) for name, customers in TAKING.items()} == dict(
        zip(NAMES, (60, 90, 90, 60), strict=True)
    )


def test_last_items_are_taken_from_those_who_take_part_and_from_nobody_else():
    table, one = blocks.tables()["south"], kept("south")
    changed = {customer for customer in sharing.people("south") if rows(one.table, customer) != rows(table, customer)}
    assert changed
    assert changed <= TAKING["south"]
    assert len(one.seen) + one.held_out == len(TAKING["south"])
    assert (one.held >= 0).sum() == len(changed)
    everybody = hold_back(table, sharing.JOINT.contract, blocks.CATALOGUE, group_key=group_key_of(0))
    assert len(everybody.seen) + everybody.held_out == sharing.CUSTOMERS


def test_what_is_opened_is_the_plain_sum_over_shared_customers_in_thirds(finished):
    """Every one of them adds a vector of norm 1/3 at each shop, so that a person at three adds 1 in all."""
    unit = calibrate(sharing.JOINT).summed.count.sensitivity
    opened = finished[1]["count/1"] * 3 / unit
    counts, customers = np.zeros(blocks.ITEMS), 0
    for name in NAMES:
        seen = kept(name).seen
        customers += len(seen)
        for start, end in zip(seen.starts[:-1], seen.starts[1:], strict=True):
            row = np.zeros(blocks.ITEMS)
            row[seen.items[start:end]] = 1.0
            counts += row / np.linalg.norm(row)
    assert 200 < customers < 280  # four fifths of 300, and of 480 if nobody were left out
    # Every customer's number is rounded to whole units, half a unit off at most.
    assert np.abs(opened - counts).max() <= 1.5 * customers / unit < 0.1
    assert counts.max() > 5


def test_shops_learn_of_their_own_customers_in_how_many_shops_they_are(workspaces):
    digest, folders = workspaces
    for name, folder in folders.items():
        with open_vault(folder, now) as vault:
            customers, known = multiplicities(vault, digest)
        found = {customer for customer, k in zip(customers.to_pylist(), known.tolist(), strict=True) if 2 <= k <= 3}
        assert found == TAKING[name]
        with Ledger(folder / "ledger.sqlite", now) as ledger:
            (entry,) = ledger.entries("disclosure")
            assert entry.body["outcome"] == "rows"
            assert sorted(r.charge.step for r in ledger.reservations()) == ["count/1", "evaluate/1", "train/1"]


def test_baselines_know_the_same_customers_and_nobody_else(finished):
    for entry in load_report(finished[0])["simulation"]["partners"]:
        one = kept(entry["partner"])
        assert (entry["customers"], entry["held_out"]) == (len(one.seen), one.held_out)
        assert entry["customers"] + entry["held_out"] == len(TAKING[entry["partner"]])
        assert entry["asked"] == int((one.held >= 0).sum())


def test_a_party_alone_protects_its_own_customers_whole():
    party = oneparty.alone(sharing.JOINT, 100)
    assert party.parts == 1
    assert party.matching is None
    assert party.privacy.epsilon == sharing.JOINT.privacy.epsilon


def test_the_report_tells_of_the_disclosure_and_of_persons(finished):
    folder, _ = finished
    report = load_report(folder)
    assert report["guarantee"]["study"]["unit"] == "person at up to 3 partners"
    assert report["guarantee"]["study"]["epsilon"] <= 8.0
    several = [entry["epsilon"] for entry in report["guarantee"]["multiplicity"]]
    assert several == sorted(several)
    assert several[2] <= 8.0 < several[3]
    (disclosure,) = report["guarantee"]["disclosures"]
    assert disclosure.startswith("Not covered by epsilon")
    assert disclosure in report["guarantee"]["not_covered"]
    words = Reader((folder / "report.html").read_text(encoding="utf-8")).words
    assert disclosure in words
    assert "but for the match, which is a disclosure" in words
    assert (folder / "model.safetensors").exists()


def test_a_person_of_more_parts_adds_less():
    fourths = dataclasses.replace(
        sharing.JOINT, privacy=dataclasses.replace(sharing.JOINT.privacy, partners_per_person=4)
    )
    found = taking_part(fourths, sharing.identifiers())
    assert {name: len(customers) for name, customers in found.items()} == {
        name: sum(len(at(person)) > 1 for person in sharing.people(name).values()) for name in NAMES
    }
