"""What follows from a plan for its secure sums: epochs and numbers, of the plan alone."""

import dataclasses

import pytest

from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import PlanFault
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.sums import epoch_of, is_paid, most_epochs, numbers_of
from coterie.tests.clients.federation import MORE, changed, secure_study, study

KEYS = tuple(f"ed25519:{index:064x}" for index in range(6))


def keyed(plan):
    partners = tuple(dataclasses.replace(p, key=key) for p, key in zip(plan.partners, KEYS, strict=False))
    return dataclasses.replace(plan, partners=partners)


PLAN = keyed(secure_study())


def test_an_epoch_is_the_plans_in_all_that_a_coordinator_must_not_choose():
    epoch = epoch_of(PLAN, 7, ("train/3", "train/4"))
    assert (epoch.plan, epoch.number, epoch.steps) == (PLAN.digest(), 7, ("train/3", "train/4"))
    assert epoch.roster == tuple(zip(MORE[:4], KEYS, strict=False))
    assert epoch.threshold == PLAN.privacy.threshold == 3
    assert epoch.bits == numbers_of(PLAN, "train/3").bits == 32


def test_a_threshold_and_a_roster_of_other_plans_are_other_epochs():
    larger = keyed(secure_study(MORE, privacy__threshold=6))
    assert epoch_of(larger, 1, ("train/1",)).threshold == 6
    assert len(epoch_of(larger, 1, ("train/1",)).roster) == 6


@pytest.mark.parametrize(
    "steps",
    [
        (),
        ("train/1", "train/1"),
        ("train/1", "evaluate/1"),
        ("train/5",),
        ("train/0",),
        ("evaluate/3",),
        ("train/1", "train/99"),
        ("keys/1",),
        ("",),
    ],
)
def test_steps_that_are_not_the_plans_of_one_kind_make_no_epoch(steps):
    with pytest.raises(PlanFault, match="of one kind"):
        epoch_of(PLAN, 1, steps)


def test_an_epoch_has_no_more_steps_than_are_dealt_for_at_once():
    long = keyed(secure_study(training__rounds=1, training__local_steps=1025, metrics__rounds=(1,)))
    names = tuple(f"train/{number}" for number in range(1, 1026))
    with pytest.raises(PlanFault):
        epoch_of(long, 1, names)
    assert len(epoch_of(long, 1, names[:1024]).steps) == 1024


def test_numbers_are_those_of_the_events_that_pay():
    mechanisms = calibrate(PLAN)
    for step, event in (("train/1", mechanisms.update), ("evaluate/2", mechanisms.histogram)):
        numbers = numbers_of(PLAN, step)
        assert (numbers.share, numbers.sensitivity) == (event.share, event.sensitivity)
    assert numbers_of(PLAN, "train/1") != numbers_of(PLAN, "evaluate/1")


def test_a_plan_without_secure_sums_has_no_numbers_and_no_epoch():
    plan = keyed(study())
    with pytest.raises(PlanFault, match="no such sums"):
        numbers_of(plan, "train/1")
    with pytest.raises(PlanFault):
        epoch_of(plan, 1, ("train/1",))


@pytest.mark.parametrize(
    ("rounds", "measured", "spare", "most"), [(1, (1,), 0, 12), (2, (1, 2), 0, 20), (5, (5,), 3, 40), (20, (), 1, 88)]
)
def test_a_plan_has_four_epochs_for_each_that_it_needs(rounds, measured, spare, most):
    plan = changed(PLAN, training__rounds=rounds, metrics__rounds=measured, training__spare=spare)
    assert most_epochs(plan) == most


def test_a_sum_is_paid_by_the_event_of_its_plan_and_by_no_other():
    mechanisms = calibrate(PLAN)
    events = {"train/1": mechanisms.update, "evaluate/2": mechanisms.histogram}
    for step, event in events.items():
        numbers = numbers_of(PLAN, step)
        assert is_paid(PLAN, step, numbers, event)
        for field, value in dataclasses.asdict(event).items():
            other = value / 2 if field == "sample_rate" else value + 1
            assert not is_paid(PLAN, step, numbers, dataclasses.replace(event, **{field: other})), field
        for field in ("share", "sensitivity"):
            other = dataclasses.replace(numbers, **{field: getattr(numbers, field) - 1})
            assert not is_paid(PLAN, step, other, event), field
        assert not is_paid(PLAN, step, numbers, PoissonGaussian(event.noise_multiplier, event.sample_rate, 1))
    assert not is_paid(PLAN, "train/1", numbers_of(PLAN, "train/1"), events["evaluate/2"])
    fewer = changed(PLAN, privacy__colluders=0)
    assert not is_paid(fewer, "train/1", numbers_of(PLAN, "train/1"), events["train/1"])
