"""The schedule: every release of a study has one name, one round, and its place."""

import pytest

from coterie.privacy.schedule import releases_of, round_of, trainings
from coterie.tests.clients.federation import secure_study, study

OWN = study(training__rounds=3, training__local_steps=4, metrics__rounds=(1, 3))
SUMMED = secure_study(training__rounds=3, training__local_steps=4, metrics__rounds=(1, 3))


def test_what_a_partner_releases_by_itself_is_counted_in_rounds():
    assert trainings(OWN) == 3
    assert [releases_of(OWN, r) for r in (1, 2, 3)] == [
        ("train/1", "evaluate/1"),
        ("train/2",),
        ("train/3", "evaluate/3"),
    ]


def test_secure_sums_are_counted_in_steps_through_all_rounds():
    assert trainings(SUMMED) == 12
    assert releases_of(SUMMED, 1) == ("train/1", "train/2", "train/3", "train/4", "evaluate/1")
    assert releases_of(SUMMED, 2) == ("train/5", "train/6", "train/7", "train/8")
    assert releases_of(SUMMED, 3) == ("train/9", "train/10", "train/11", "train/12", "evaluate/3")


@pytest.mark.parametrize("plan", [OWN, SUMMED], ids=["own", "summed"])
def test_every_release_of_a_round_belongs_to_it_and_to_no_other(plan):
    names = [(name, r) for r in range(1, plan.training.rounds + 1) for name in releases_of(plan, r)]
    assert len({name for name, _ in names}) == len(names)
    assert all(round_of(plan, name) == r for name, r in names)
    assert sum(name.startswith("train/") for name, _ in names) == trainings(plan)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "train", "train/", "train/0", "train/13", "train/01", "train/+1", "train/-1", "train/1.0"),
        *("train/ 1", "train/1 ", "train/1\n", "train/\u0661", "train/\u00b2", "train/1/1", "train//1", "Train/1"),
        *("evaluate/2", "evaluate/4", "evaluate/0", "evaluate/01", "evaluate", "measure/1", "1", "train/" + "9" * 30),
    ],
)
def test_a_name_that_the_plan_does_not_have_belongs_to_no_round(name):
    assert round_of(SUMMED, name) is None
    assert round_of(OWN, name) is None


def test_a_step_beyond_the_rounds_is_the_summed_plans_alone():
    assert round_of(OWN, "train/4") is None
    assert round_of(SUMMED, "train/4") == 1
    assert round_of(SUMMED, "train/5") == 2
