"""Facts about a study, against the ledger itself, the library's own accountant, and the partner's statement."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from coterie.clients.export import export_bundle
from coterie.privacy.accountant import epsilon
from coterie.privacy.calibration import calibrate
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.plain import plain
from coterie.privacy.plan import Partner
from coterie.privacy.randomness import OsSource
from coterie.privacy.review.composition import (
    MOST_PARTNERS,
    by_partners,
    composition,
    matches_plan,
    worst_profile,
)
from coterie.privacy.review.facts import BASES, DECLARED, RECOMPUTED, TOPICS, VERIFIED, facts
from coterie.privacy.review.profile import profile
from coterie.privacy.review.registry import registry_record
from coterie.privacy.review.verdict import Finding
from coterie.privacy.review.verify import CANNOT_PROVE, verify_bundle
from coterie.privacy.statement import NOT_COVERED, statement
from coterie.tests.clients.federation import Federation, study, table_of, today, with_column

ROOT = Path(__file__).parents[3]
HOSTILE = "<script>alert(1)</script> \x1b[31m|`x`| [a](http://b.example) \u202e www.c.example"
DIGITS = ("61.7305", "321.0987")
CANARY = "zq-canary"


def canaries(count=157):
    """A table whose every free column holds what is nowhere else."""
    table = table_of("amber", count)
    table = with_column(table, "customer", [f"{CANARY}-{index:05d}" for index in range(count)])
    table = with_column(table, "age", [float(DIGITS[0])] * count)
    return with_column(table, "spend", [float(DIGITS[1])] * count)


def federation(root, plan=None):
    """Three partners, of whom amber holds canaries, with the randomness that earns a guarantee."""
    tables = {"amber": canaries(), "birch": table_of("birch"), "cedar": table_of("cedar")}
    made = Federation(root, plan, tables)
    made.random = OsSource()
    return made


def reviewed(made, name, **kwargs):
    """Export amber's bundle and verify it."""
    path = made.root / f"{name}.bundle"
    export_bundle(made.folders["amber"], path, today)
    return verify_bundle(path, **kwargs)


def silent(text, count=157):
    """Whether nothing of amber's table is in a text."""
    counted = re.search(rf"(?<![0-9a-zA-Z.]){count}(?![0-9a-zA-Z])", text)
    return CANARY not in text and not any(digits in text for digits in DIGITS) and counted is None


def charged(made):
    """Every charge of amber's ledger."""
    return [entry.body for entry in made.entries() if entry.kind == "reserve"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return federation(tmp_path_factory.mktemp("facts"))


@pytest.fixture(scope="module")
def early(made):
    """After one update."""
    made.propose()
    made.train("amber", 1)
    return reviewed(made, "early")


@pytest.fixture(scope="module")
def late(made, early):
    """After the whole study."""
    made.measure("amber", 1)
    made.train("amber", 2)
    made.measure("amber", 2)
    return reviewed(made, "late")


def told(verdict, topic=None, name=""):
    return [f for f in facts(verdict, verdict.studies[0]) if topic in (None, f.topic) and f.name.startswith(name)]


def only(verdict, topic, name):
    (fact,) = told(verdict, topic, name)
    return fact


def epsilon_of(bodies, delta=1e-5):
    """Epsilon by the library alone, from the bodies of charges of one group."""
    total = None
    for body in bodies:
        event = body["event"]
        if event["kind"] == "poisson-gaussian":
            one = pld.from_gaussian_mechanism(
                event["noise_multiplier"], value_discretization_interval=1e-4, sampling_prob=event["sample_rate"]
            ).self_compose(event["steps"])
        else:
            one = pld.from_discrete_gaussian_mechanism(event["sigma"], value_discretization_interval=1e-4)
        total = one if total is None else total.compose(one)
    return total.get_epsilon_for_delta(delta)


def test_every_topic_has_a_fact_and_every_fact_a_basis(late):
    found = told(late)
    assert [f.topic for f in found] == sorted((f.topic for f in found), key=TOPICS.index)
    assert {f.topic for f in found} == set(TOPICS)
    assert all(f.basis in BASES and f.value and f.name for f in found)
    assert len({(f.topic, f.name) for f in found}) == len(found)
    assert [f.value for f in found if f.topic == "not covered"] == list(NOT_COVERED)
    assert [f.value for f in found if f.topic == "cannot be proved"] == list(CANNOT_PROVE)


@pytest.mark.parametrize("group", ["training", "holdout"])
def test_what_was_charged_is_what_the_library_says_of_the_ledger(made, late, group):
    bodies = [body for body in charged(made) if body["group"] == group]
    fact = only(late, "guarantee", f"charged, group {group}")
    assert fact.basis == RECOMPUTED
    assert fact.value.startswith(f"epsilon {epsilon_of(bodies):.4g} ")
    assert only(late, "guarantee", f"charges, group {group}").value.startswith(f"{len(bodies)} of 2 ")


def test_a_recomputed_figure_moves_with_the_ledger(made, early, late):
    first = epsilon_of([body for body in charged(made) if body["group"] == "training"][:1])
    assert only(early, "guarantee", "charged, group training").value.startswith(f"epsilon {first:.4g} ")
    assert only(early, "guarantee", "charged, group holdout").value.startswith("epsilon 0 ")
    allowed = [only(verdict, "guarantee", "may be charged, group training").value for verdict in (early, late)]
    assert allowed[0] == allowed[1]
    for topic, name in (("privacy profile", "epsilon at"), ("privacy profile", "in words, 1")):
        assert only(early, topic, name).value != only(late, topic, name).value
    shares = [
        only(verdict, "composition across studies", "lifetime budget, group training") for verdict in (early, late)
    ]
    assert shares[0].value != shares[1].value
    assert all(share.basis == RECOMPUTED for share in shares)


def test_the_table_by_partners_and_the_replaced_customer_are_the_statements(made, late):
    shown = statement(made.plan, calibrate(made.plan))
    table = [f.value.split()[1] for f in told(late, "several partners", "customer of")]
    assert table == [f"{row['epsilon']:.3g}" for row in shown["multiplicity"]]
    assert len(table) == len(made.plan.partners)
    replaced = float(only(late, "neighbouring relation", "replace one").value.split()[1])
    assert replaced == pytest.approx(shown["replace_one"], rel=1e-3)


@pytest.mark.parametrize(("update", "histogram"), [((2.0, 0.05, 40), 6.0), ((0.9, 0.2, 3), 20.0), ((5.0, 1.0, 1), 5.0)])
def test_no_mixture_of_groups_is_worse_than_the_tables(late, update, histogram):
    training, holdout = (PoissonGaussian(*update),) * 3, (DiscreteGaussian(histogram, 1),) * 2
    found = composition(late, late.studies[0])
    table = by_partners(dataclasses.replace(found, allowed={"training": training, "holdout": holdout}))
    for k, worst in table:
        every = [epsilon(training * i + holdout * (k - i), found.delta) for i in range(k + 1)]
        assert worst == max(every)


def test_a_roster_without_end_is_not_reckoned_to_its_end(late, monkeypatch):
    monkeypatch.setattr("coterie.privacy.review.composition.epsilon", lambda events, delta: float(len(events)))
    found = composition(late, late.studies[0])
    partners = tuple(Partner(name=f"p{index}", customers=1) for index in range(1000))
    events = {"training": (PoissonGaussian(7.7, 0.1, 1),), "holdout": (DiscreteGaussian(77.0, 1),)}
    crowd = dataclasses.replace(found, plan=dataclasses.replace(found.plan, partners=partners), allowed=events)
    assert [k for k, _ in by_partners(crowd)] == list(range(1, MOST_PARTNERS + 1))


def test_rho_is_told_where_it_exists(late, made):
    sigma = calibrate(made.plan).histogram.sigma
    rho = [f for f in told(late) if f.topic.startswith("zero-concentrated")]
    assert [f.value.split(":")[0] for f in rho] == ["none", f"{2 / (2 * sigma**2):.4g}"]


def test_the_profile_is_never_below_the_statement(late):
    table = only(late, "privacy profile", "epsilon at").value
    assert "4 at delta 1e-05" in table
    found = float(only(late, "privacy profile", "greatest true positive rate at false positive rate 0.01").value)
    assert 0.01 < found < 0.01 * 54.6 + 1e-5


def test_the_profile_holds_for_customers_of_both_groups(late):
    found = composition(late, late.studies[0])
    worst = worst_profile(found)
    groups = [profile(found.charged[group]) for group in ("training", "holdout")]
    assert worst.accuracy == max(group.accuracy for group in groups)
    for name in ("epsilons", "deltas", "found", "beliefs"):
        each = zip(*(getattr(group, name) for group in groups), strict=True)
        assert [value for _, value in getattr(worst, name)] == [max(a, b) for (_, a), (_, b) in each]


def test_what_software_does_is_declared_and_what_is_signed_is_verified(late):
    declared = {("unit", "how it is enforced"), ("sampling", "assumption"), ("tuning", "how"), ("software", "version")}
    declared |= {("trust", "if the coordinator"), ("randomness", "generator"), ("public inputs", "training customers")}
    assert all(only(late, *key).basis == DECLARED for key in declared)
    verified = {
        ("unit", "whose"),
        ("sampling", "rate"),
        ("trust", "model"),
        ("randomness", "source"),
        ("guarantee", "what the"),
    }
    assert all(only(late, *key).basis == VERIFIED for key in verified)
    assert only(late, "sampling", "charges have").value == "yes"


def failing(verdict, name):
    bad = {"status": "fails", "findings": (Finding(1, "is not so"),)}
    checks = [dataclasses.replace(c, **bad) if c.name == name else c for c in verdict.checks]
    return dataclasses.replace(verdict, checks=tuple(checks))


@pytest.mark.parametrize("name", ["tree", "signature", "consents"])
def test_nothing_of_the_plan_is_verified_where_its_check_fails(late, name):
    fact = only(failing(late, name), "unit", "whose")
    assert fact.basis == DECLARED
    assert f'"{name}" fails' in fact.value


def test_a_failed_tree_leaves_no_fact_verified_and_says_so_beside_figures(late):
    broken = failing(late, "tree")
    assert not [f for f in told(broken) if f.basis == VERIFIED]
    assert '"tree" fails' in only(broken, "guarantee", "charged, group training").value


def test_repeatable_noise_leaves_no_figure(tmp_path):
    seeded = federation(tmp_path)
    seeded.random = Federation(tmp_path / "other").random
    seeded.propose()
    seeded.train()
    verdict = reviewed(seeded, "seeded")
    found = [f for f in told(verdict) if f.basis == RECOMPUTED]
    assert {f.topic for f in found} <= {"verdict", "composition across studies"}
    assert only(verdict, "randomness", "source").basis == DECLARED
    assert "no guarantee" in only(verdict, "several partners", "figures").value
    record = registry_record(verdict, verdict.studies[0])["deployment"]["privacy_loss"]
    assert record["privacy_parameters"]["epsilon"] is None
    assert record["by_partners"] == []


def test_a_missing_plan_and_a_review_without_accountants_say_so(made, late):
    path = made.workspace().plan(made.digest)
    kept = path.read_bytes()
    path.unlink()
    try:
        verdict = reviewed(made, "without")
    finally:
        path.write_bytes(kept)
    found = told(verdict)
    assert {f.topic for f in found} == set(TOPICS)
    assert "plan is not in the bundle" in only(verdict, "trust", "from the plan").value
    assert "plan is not in the bundle" in only(verdict, "privacy profile", "figures").value
    quick = reviewed(made, "quick", accounting=False)
    assert "without its accountants" in only(quick, "guarantee", "figures").value
    assert {f.topic for f in told(quick)} == set(TOPICS)


def test_a_consent_to_less_than_the_plan_needs_is_seen(late):
    plan = late.plans[late.studies[0].plan]
    other = json.loads(json.dumps(plan))
    other["training"]["sample_rate"], other["training"]["rounds"], other["metrics"]["rounds"] = 0.6, 3, [1, 2, 3]
    changed = dataclasses.replace(late, plans={late.studies[0].plan: other})
    found = composition(changed, changed.studies[0])
    assert len(matches_plan(found)) == 3
    assert "another rate" in only(changed, "sampling", "charges have").value


def test_without_the_accountants_figures_nothing_is_told_of_a_composition(late):
    groups = late.studies[0].groups
    unknown = dataclasses.replace(groups[0], recomputed=None)
    unheld = dataclasses.replace(late.studies[0], groups=(unknown, groups[1]))
    assert composition(late, late.studies[0]) is not None
    assert composition(late, unheld) is None


def test_an_odd_rate_keeps_all_its_digits(tmp_path):
    odd = federation(tmp_path, study(training__sample_rate=1 / 3))
    odd.propose()
    odd.train()
    verdict = reviewed(odd, "odd")
    found = composition(verdict, verdict.studies[0])
    assert found.charged["training"][0].sample_rate == 1 / 3
    assert matches_plan(found) == ()


def hostile(verdict):
    """The verdict with hostile texts wherever a bundle may hold a text."""
    (one,) = verdict.studies
    plan = json.loads(json.dumps(verdict.plans[one.plan]))
    texts = HOSTILE.replace("\x1b", "")  # a plan with control characters is not believed at all
    plan["tuning"], plan["name"], plan["purpose"] = {"configurations": 3, "data": texts}, texts[:60], texts[:100]
    plan["partners"][1]["name"], plan["contract"]["label"] = texts[:60], texts[:100]
    plan["contract"]["columns"][0]["name"] = f"age {texts}"[:90]
    budgets = tuple(
        dataclasses.replace(b, name=f"budget of purpose {HOSTILE}", runs=((HOSTILE, 3),)) for b in verdict.budgets
    )
    return dataclasses.replace(
        verdict,
        partner=HOSTILE,
        software=HOSTILE,
        made=HOSTILE,
        studies=(
            dataclasses.replace(one, name=HOSTILE, purpose=HOSTILE, partners=("amber", HOSTILE), segments=(HOSTILE,)),
        ),
        plans={one.plan: plan},
        budgets=budgets,
        policy={**(verdict.policy or {}), "purposes": [HOSTILE], HOSTILE: HOSTILE},
    )


def test_hostile_texts_stay_inert(late):
    assert composition(hostile(late), hostile(late).studies[0]) is not None
    said = [text for f in told(hostile(late)) for text in (f.name, f.value)]
    assert any("<script>" in text for text in said)  # as it is: whoever prints it escapes it
    assert all(text.isprintable() for text in said)
    assert plain(HOSTILE).startswith("<script>alert(1)</script> ?[31m|")


def test_a_registry_record_is_plain_json_with_the_ledgers_figures(made, late):
    record = registry_record(late, late.studies[0])
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record["deployment"]) == {
        *("product", "dp_flavor", "privacy_loss", "model", "accounting", "implementation"),
    }
    loss = record["deployment"]["privacy_loss"]
    assert loss["privacy_parameters"]["delta"] == made.plan.privacy.delta
    worst = max(epsilon_of([b for b in charged(made) if b["group"] == group]) for group in ("training", "holdout"))
    assert loss["privacy_parameters"]["epsilon"] == pytest.approx(worst, rel=1e-9)
    assert record["evidence"]["ledger"] == {"entries": late.size, "root": late.root}
    assert "authors" in record["to_be_completed"][0]
    assert json.dumps(registry_record(hostile(late), hostile(late).studies[0]), ensure_ascii=False).isprintable()


def test_nothing_of_the_table_is_in_facts_or_record(late):
    assert silent("\n".join(f"{f.name}: {f.value}" for f in told(late)))
    assert silent(json.dumps(registry_record(late, late.studies[0])))


def test_the_auditors_modules_open_without_the_heavy_libraries():
    names = ("facts", "explain", "difference", "impact", "registry", "composition")
    code = "; ".join(f"import coterie.privacy.review.{name}" for name in names)
    command = f"import sys; sys.path.insert(0, {str(ROOT / '.dev')!r}); {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    heavy = {"torch", "flwr", "opacus", "ray", "pyarrow", "matplotlib", "dp_accounting"}
    assert not heavy & {module.split(".")[0] for module in done.stdout.split()}
