"""Plans with private bins: what they may say, what they release in which order, and what their noise costs."""

import dataclasses
import math

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.optimize import brentq
from scipy.stats import norm

from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.centralnoise import central_noise
from coterie.privacy.contract import Column
from coterie.privacy.errors import FileFault, PlanFault
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, PoissonGaussian
from coterie.privacy.plan import SECURE, Bins, Metrics, Secure, plan_from_dict
from coterie.privacy.schedule import countings, releases_of, round_of, summed, trained, trainings
from coterie.privacy.study import read_study
from coterie.privacy.sums import epoch_of, most_epochs, numbers_of
from coterie.simulations import studies
from coterie.tests.clients.binnedkit import AUDITED, BINS, CONTRACT, FAMILIES, TRUSTS, binned
from coterie.tests.clients.federation import changed, secure_study, study

PLANS = [binned(family, trust) for family in FAMILIES for trust in TRUSTS]
IDS = [f"{plan.model.family} {plan.privacy.trust}" for plan in PLANS]
each_plan = pytest.mark.parametrize("plan", PLANS, ids=IDS)


def faults_of(plan):
    with pytest.raises(FileFault) as caught:
        plan.check("study.toml")
    return caught.value.faults


def bins(**changes):
    return dataclasses.replace(BINS, **changes)


def with_column(name, **changes):
    """The contract with one column changed."""
    columns = tuple(dataclasses.replace(c, **changes) if c.name == name else c for c in CONTRACT.columns)
    return dataclasses.replace(CONTRACT, columns=columns)


def words(count):
    return tuple(f"word {number}" for number in range(count))


# --- what a plan may say ------------------------------------------------------------------------------------------


@each_plan
def test_a_plan_on_bins_keeps_every_rule_and_survives_its_own_writing(plan):
    plan.check("study.toml")
    again = plan_from_dict(plan.to_dict())
    assert again == plan
    assert again.digest() == plan.digest()


WIDE = dataclasses.replace(
    CONTRACT, columns=tuple(Column(name=f"n{number}", kind="numeric", low=0, high=1) for number in range(30))
)
WRONG = {
    "additive without bins": ("additive", {"bins": None, "secure": None}, "bins", "the additive family learns on bins"),
    "newton without bins": ("logistic", {"bins": None}, "secure.optimizer", "newton goes with [bins]"),
    "newton for an mlp": ("mlp", {"secure": Secure(optimizer="newton")}, "secure.optimizer", "no curvature of an mlp"),
    "rising but logistic": ("logistic", {"bins": bins(rising=("age",))}, "bins.rising", "additive family"),
    "falling but mlp": ("mlp", {"bins": bins(falling=("age",))}, "bins.rising", "additive family"),
    "rising words": ("additive", {"bins": bins(rising=("region",))}, "bins.rising", "numeric columns"),
    "rising and falling": ("additive", {"bins": bins(rising=("age",), falling=("age",))}, "bins.rising", "each once"),
    "rising twice": ("additive", {"bins": bins(rising=("age", "age"))}, "bins.rising", "each once"),
    "rising of nothing": ("additive", {"bins": bins(rising=("height",))}, "bins.rising", "of the contract"),
    "a rising pair": ("additive", {"bins": bins(rising=("age",), pairs=("age * spend",))}, "bins.pairs", "undo it"),
    "a pair with itself": ("additive", {"bins": bins(pairs=("age * age",))}, "bins.pairs", "different pairs"),
    "a pair twice": ("additive", {"bins": bins(pairs=("age * spend", "spend * age"))}, "bins.pairs", "different pairs"),
    "a pair of one": ("additive", {"bins": bins(pairs=("age",))}, "bins.pairs", "different pairs"),
    "a pair of nothing": ("additive", {"bins": bins(pairs=("age * height",))}, "bins.pairs", "the contract's columns"),
    "a pair of an audited column": (
        "additive",
        {"bins": bins(pairs=("age * sex",)), "contract": AUDITED, "metrics": Metrics(rounds=(1,), groups="sex")},
        "bins.pairs",
        "the contract's columns",
    ),
    "many cells": ("additive", {"bins": bins(cells=700), "contract": WIDE}, "bins.cells", "more than 20000 cells"),
    "a server's optimiser": ("additive", {"training__server": "fedadam"}, "training.server", "no part in sums on bins"),
    "a server's rate": ("additive", {"training__server_learning_rate": 0.5}, "training.server", "no part in sums"),
    "groups of numbers": ("additive", {"metrics__groups": "age"}, "metrics.groups", "categorical column"),
    "groups of nothing": ("additive", {"metrics__groups": "height"}, "metrics.groups", "categorical column"),
    "an audit that nobody reads": ("additive", {"contract": AUDITED}, "contract.columns", "does not name"),
    "an audit beside other groups": (
        "additive",
        {"contract": AUDITED, "metrics__groups": "region"},
        "contract.columns",
        "does not name",
    ),
    "very many groups": (
        "additive",
        {"contract": with_column("region", values=words(64)), "metrics__groups": "region"},
        "metrics.groups",
        "more than 64 groups",
    ),
    "a person at several partners": (
        "additive",
        {
            "privacy__trust": SECURE,
            "privacy__unit": "person at up to k partners",
            "privacy__partners_per_person": 2,
        },
        "privacy.unit",
        "recommendation",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_with_bins_is_named_where_it_stands_with_a_way_out(name):
    family, changes, place, says = WRONG[name]
    plan = changed(binned(family), **changes)
    (fault,) = [fault for fault in faults_of(plan) if says in fault.rule]
    assert fault.place == f"study.toml: {place}"
    assert fault.fix


def test_more_pairs_than_twenty_are_refused():
    names = [f"n{number}" for number in range(8)]
    pairs = [f"{one} * {two}" for at, one in enumerate(names) for two in names[at + 1 :]]
    fine = binned(contract=WIDE, bins=bins(pairs=tuple(pairs[:20])))
    fine.check("study.toml")
    assert "more than 20" in str(faults_of(changed(fine, bins=bins(pairs=tuple(pairs[:21])))))


def test_bins_are_for_propensity_alone():
    from coterie.tests.clients.recommending import recommends

    assert "are none for recommendation" in str(faults_of(changed(recommends(), bins=BINS)))
    matching = read_study(studies.path("overlap")).plan
    assert faults_of(changed(matching, bins=BINS))


@pytest.mark.parametrize("groups", [63, 64])
def test_as_many_groups_as_sixty_four_with_who_has_none_are_counted(groups):
    plan = binned(contract=with_column("region", values=words(groups)), metrics__groups="region")
    if groups == 63:
        plan.check("study.toml")
        assert (plan.grouped, plan.histogram_shape) == (64, (128, 8))
    else:
        assert faults_of(plan)


def test_a_column_for_audits_is_read_in_plans_without_bins_too():
    plan = study(contract=AUDITED, metrics__groups="sex")
    plan.check("study.toml")
    assert plan.grouped == 3
    assert [column.name for column in plan.contract.features] == ["age", "spend", "region"]


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("region", {"values": words(10_000)}, "2 to 1000 different texts"),
        ("region", {"atoms": (0.0,)}, "belong to numeric columns"),
        ("region", {"spacing": "log"}, "belong to numeric columns"),
        ("age", {"atoms": (30.0, 20.0)}, "atoms must ascend strictly"),
        ("age", {"atoms": (20.0, 20.0)}, "atoms must ascend strictly"),
        ("age", {"atoms": (17.0,)}, "atoms must ascend strictly"),
        ("age", {"atoms": (91.0,)}, "atoms must ascend strictly"),
        ("age", {"atoms": (math.nan,)}, "atoms must ascend strictly"),
        ("age", {"low": 90, "high": 18}, ""),
    ],
)
def test_a_column_that_bins_cannot_be_made_of_is_one_clear_fault(name, changes, says):
    (fault,) = faults_of(binned(contract=with_column(name, **changes)))
    assert says in fault.rule
    assert name in fault.place
    assert fault.fix


def test_an_audit_of_numbers_is_refused_whether_or_not_anybody_counts_by_it():
    for groups in ("", "age"):
        plan = binned(contract=with_column("age", use="audit"), metrics__groups=groups)
        assert "must be categorical, to be counted by its words" in str(faults_of(plan))


def test_a_contract_of_nothing_but_audits_has_no_feature():
    plan = binned(contract=dataclasses.replace(AUDITED, columns=AUDITED.columns[-1:]), metrics__groups="sex")
    assert "name at least one feature" in str(faults_of(plan))


def test_a_plan_that_only_matches_says_nothing_of_bins():
    plan = changed(read_study(studies.path("overlap")).plan, bins=BINS)
    assert "trains nothing" in str(faults_of(plan))


# --- names of before ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plan", "contract"),
    [
        ("income", "e07845b1", "f8aba7d9"),
        ("coupon", "3a2e89fd", "79607c66"),
        ("movies", "1038d881", "6b8460aa"),
        ("overlap", "80f37761", "9bf5d046"),
    ],
)
def test_plans_and_contracts_without_bins_keep_the_names_that_partners_approved(name, plan, contract):
    found = read_study(studies.path(name)).plan
    assert found.digest().startswith(f"sha256:{plan}")
    assert found.contract.digest().startswith(f"sha256:{contract}")


def test_everything_new_that_a_contract_or_a_plan_says_is_in_its_name():
    plain = [CONTRACT, with_column("age", atoms=(20.0,)), with_column("age", spacing="log")]
    plain += [AUDITED, dataclasses.replace(AUDITED, columns=tuple(map(as_feature, AUDITED.columns)))]
    assert len({contract.digest() for contract in plain}) == len(plain)
    plans = [binned(), binned(bins=bins(pairs=("age * region",))), binned(bins=bins(rising=("age",)))]
    plans += [binned(bins=bins(falling=("age",))), binned(metrics__groups="region"), binned("logistic")]
    plans += [binned(bins=bins(**{name: value})) for name, value in (("most", 6), ("cells", 17), ("counts", 0.3))]
    plans += [binned(bins=bins(**{name: value})) for name, value in (("ridge", 3.0), ("damping", 2.0))]
    assert len({plan.digest() for plan in plans}) == len(plans)


def as_feature(column):
    return dataclasses.replace(column, use="feature")


# --- what is released, in which order -----------------------------------------------------------------------------


@each_plan
def test_one_count_comes_before_all_steps_and_all_of_it_are_sums(plan):
    assert summed(plan)
    assert (countings(plan), trainings(plan)) == (1, 3)
    assert trained(plan) == ("count/1", "train/1", "train/2", "train/3")
    assert releases_of(plan, 1) == ("count/1", "train/1", "train/2", "train/3", "evaluate/1")
    assert round_of(plan, "count/1") == 1
    assert round_of(plan, "count/2") is None


def test_plans_without_bins_count_nothing_first():
    for plan in (study(), secure_study()):
        assert countings(plan) == 0
        assert not any(name.startswith("count/") for name in trained(plan))
    assert not summed(study())


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_have_an_epoch_of_their_own(family):
    plan = binned(family, SECURE)
    plan = changed(plan, partners=tuple(dataclasses.replace(one, key=f"key of {one.name}") for one in plan.partners))
    assert epoch_of(plan, 1, ("count/1",)).bits == numbers_of(plan, "count/1").bits
    with pytest.raises(PlanFault):
        epoch_of(plan, 1, ("count/1", "train/1"))
    assert most_epochs(plan) > most_epochs(changed(plan, bins=None, secure=None, model__family="logistic"))


# --- what it costs ------------------------------------------------------------------------------------------------


def multiplier(event):
    """The noise of an event over its sensitivity, by hand."""
    if isinstance(event, DistributedGaussian):
        return math.sqrt(event.shares * event.share**2 - 36) / event.sensitivity
    return event.noise_multiplier if isinstance(event, PoissonGaussian) else event.sigma


def closed_form(mu, delta):
    """Epsilon of Gaussians over all customers that together are `mu` apart (Balle and Wang 2018, theorem 8)."""

    def excess(eps):
        return norm.cdf(mu / 2 - eps / mu) - math.exp(eps + norm.logcdf(-mu / 2 - eps / mu)) - delta

    return brentq(excess, 1e-9, 100)


def spent(kinds, delta):
    """Epsilon by privacy loss distributions, rounded up: of (noise over sensitivity, rate, how many)."""
    total = pld.identity(value_discretization_interval=1e-3)
    for noise, rate, count in kinds:
        one = pld.from_gaussian_mechanism(
            noise, sampling_prob=rate, value_discretization_interval=1e-3, pessimistic_estimate=True
        )
        total = total.compose(one.self_compose(count))
    return total.get_epsilon_for_delta(delta)


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize(("eps", "spare", "counts"), [(0.5, 0, 0.1), (1.0, 2, 0.3), (8.0, 1, 0.05)])
def test_counts_and_steps_together_keep_the_budget_by_the_closed_form(trust, eps, spare, counts):
    plan = binned("additive", trust, privacy__epsilon=eps, training__spare=spare, bins=bins(counts=counts))
    made = calibrate(plan)
    assert (made.countings, made.updates, made.histograms) == (1 + spare, 3 + spare, 1 + spare)
    parts = (made.countings / multiplier(made.counting) ** 2, made.updates / multiplier(made.update) ** 2)
    total = closed_form(math.sqrt(sum(parts)), 1e-5)
    assert 0.985 * eps < total <= eps
    # The split follows the plan's share, as squared multipliers count it.
    assert parts[0] / sum(parts) == pytest.approx(counts, rel=0.02)
    held_out = closed_form(math.sqrt(made.histograms) / multiplier(made.histogram), 1e-5)
    assert held_out <= eps * 1.0001  # of a histogram on whole numbers, the line is an approximation


@pytest.mark.parametrize(("trust", "rate"), [("local", 0.4), (SECURE, 0.05)])
def test_counts_over_everybody_and_sampled_steps_together_keep_the_budget_by_their_loss_distributions(trust, rate):
    plan = binned("logistic", trust, privacy__epsilon=2.0, training__sample_rate=rate, training__spare=1)
    made = calibrate(plan)
    assert made.counting.sample_rate == 1.0
    assert made.update.sample_rate == rate
    noise = multiplier(made.counting), multiplier(made.update)
    kinds = [(noise[0], 1.0, made.countings), (noise[1], rate, made.updates)]
    assert 1.9 < spent(kinds, 1e-5) <= 2.0 + 1e-3
    assert spent([kinds[0], (noise[1] * 0.97, rate, made.updates)], 1e-5) > 2.0
    assert spent([(noise[0] * 0.9, 1.0, made.countings), kinds[1]], 1e-5) > 2.0


def test_a_greater_share_for_counts_makes_counts_finer_and_steps_coarser():
    noise = [(multiplier(made.counting), multiplier(made.update)) for made in map(calibrate, _shares(0.05, 0.2, 0.8))]
    assert sorted(noise, reverse=True) == noise
    assert sorted(one[1] for one in noise) == [one[1] for one in noise]


def _shares(*shares):
    return [binned(bins=bins(counts=share)) for share in shares]


def test_a_share_that_leaves_nothing_for_counts_is_refused():
    with pytest.raises(PlanFault, match="too little for counting"):
        calibrate(binned(bins=bins(counts=1e-9)))


@each_plan
def test_each_sum_is_an_event_of_its_kind_with_the_noise_that_its_numbers_make(plan):
    made = calibrate(plan)
    kind = DistributedGaussian if plan.privacy.trust == SECURE else PoissonGaussian
    assert isinstance(made.counting, kind)
    assert isinstance(made.update, kind)
    assert isinstance(made.histogram, DistributedGaussian if kind is DistributedGaussian else DiscreteGaussian)
    assert set(made.events(TRAINING)) == {made.counting, made.update}
    assert set(made.events(HOLDOUT)) == {made.histogram}
    shares = 2 if plan.privacy.trust == SECURE else 1
    for event, step in ((made.counting, "count/1"), (made.update, "train/1")):
        numbers = numbers_of(plan, step)
        assert multiplier(event) * numbers.sensitivity <= math.sqrt(shares * numbers.share**2 - 36) * (1 + 1e-12)
        assert numbers.bound >= numbers.sensitivity * 200  # twice the customers that a partner declared


def test_noise_that_one_party_would_add_is_that_of_the_plan_under_local():
    for family in FAMILIES:
        plan, other = binned(family), binned(family, SECURE)
        made, central = calibrate(plan), central_noise(plan)
        assert (central.counting, central.update) == (made.counting.noise_multiplier, made.update.noise_multiplier)
        assert central_noise(other) == central
        assert central.steps == 3


@pytest.mark.parametrize("trust", TRUSTS)
def test_so_many_slots_that_whole_numbers_cannot_hold_them_are_refused_before_anything_is_charged(trust):
    fine = bins(most=256, cells=600)
    plan = binned("mlp", trust, contract=WIDE, bins=fine, model__hidden=64)
    plan.check("study.toml")
    assert calibrate(plan).updates == 3
    with pytest.raises(PlanFault, match="cannot hold"):
        calibrate(changed(plan, model__hidden=1024))


def test_bins_of_the_plan_are_read_from_a_study_file():
    plan = read_study(studies.path("income-additive")).plan
    assert plan.model.family == "additive"
    assert isinstance(plan.bins, Bins)
    assert plan_from_dict(plan.to_dict()).digest() == plan.digest()
