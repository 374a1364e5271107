"""The plan: its file, its rules and its digest."""

import dataclasses
import datetime
import json

import pytest

from coterie.privacy import plan as plans
from coterie.privacy.errors import FileFault
from coterie.privacy.plan import plan_from_dict
from coterie.privacy.study import read_study


def replaced(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new)


def faults(path):
    with pytest.raises(FileFault) as caught:
        read_study(path)
    assert "4711" not in str(caught.value)
    assert all(fault.fix for fault in caught.value.faults)
    return {fault.place.removeprefix(f"{path}: "): fault.rule for fault in caught.value.faults}


# --- the file -------------------------------------------------------------------------------------------

BROKEN = {  # (old line, new line) -> key path
    ('name = "spring"', 'name = ""'): "name",
    ('task = "propensity"', 'task = "canary-4711"'): "task",
    ("expires = 2031-12-31", 'expires = "2031-12-31"'): "expires",
    ("expires = 2031-12-31", "expires = 2031-12-31T00:00:00"): "expires",
    ('family = "logistic"', 'family = "forest-4711"'): "model.family",
    ('family = "logistic"', 'family = "mlp"\nhidden = 4711'): "model.hidden",
    ("rounds = 4", "rounds = 4711"): "training.rounds",
    ("local_steps = 5", "local_steps = 0"): "training.local_steps",
    ("sample_rate = 0.25", "sample_rate = 0.0"): "training.sample_rate",
    ("sample_rate = 0.25", "sample_rate = 1.4711"): "training.sample_rate",
    ("sample_rate = 0.25", 'sample_rate = "auto-4711"'): "training.sample_rate",
    ("clip = 1.0", "clip = 0"): "training.clip",
    ("clip = 1.0", "clip = 1e-9"): "training.clip",
    ("sample_rate = 0.25", "sample_rate = 1e-9"): "training.sample_rate",
    ("epsilon = 1.0", "epsilon = 20.4711"): "privacy.epsilon",
    ("delta = 1e-5", "delta = 1e-13"): "privacy.delta",
    ("[cohort]", "[cohort]\n[tuning]\nconfigurations = -4711"): "tuning.configurations",
    ("clip = 1.0", "clip = nan"): "training.clip",
    ("spare = 2", "spare = -1"): "training.spare",
    ("spare = 2", 'server = "fedprox"'): "training.server",
    ("epsilon = 1.0", "epsilon = 0"): "privacy.epsilon",
    ("epsilon = 1.0", "epsilon = 4711"): "privacy.epsilon",
    ("epsilon = 1.0", "epsilon = inf"): "privacy.epsilon",
    ("delta = 1e-5", "delta = 0.0"): "privacy.delta",
    ("delta = 1e-5", "delta = 0.4711"): "privacy.delta",
    ('unit = "customer of one partner"', 'unit = "row"'): "privacy.unit",
    ('trust = "local"', 'trust = "secure sum"'): "privacy.trust",
    ('trust = "local"', 'trust = "local"\nsplit = {training = 1.4711}'): "privacy.split.training",
    ('trust = "local"', 'trust = "local"\nsplit = {metrics = 0}'): "privacy.split.metrics",
    ("rounds = [2, 4]", "rounds = [2, 4]\nbins = 3"): "metrics.bins",
    ("rounds = [2, 4]", "rounds = 4711"): "metrics.rounds",
    ("customers = 600", "customers = 0"): "partners[0].customers",
    ("[cohort]", "[cohort]\nminimum_customers = 9"): "cohort.minimum_customers",
    ("[cohort]", "[cohort]\nmaximum_customers = 4711"): "cohort.maximum_customers",
    ("low = 18", "low = nan"): "contract.columns[0].low",
    # Beyond types and ranges.
    ("threshold = 2", "threshold = 4"): "privacy.threshold",
    ("colluders = 1", "colluders = 3"): "privacy.colluders",
    ("rounds = [2, 4]", "rounds = []"): "metrics.rounds",
    ("rounds = [2, 4]", "rounds = [2]"): "metrics.rounds",
    ("rounds = [2, 4]", "rounds = [2, 2, 4]"): "metrics.rounds",
    ("rounds = [2, 4]", "rounds = [4, 2]"): "metrics.rounds",
    ("rounds = [2, 4]", "rounds = [0, 4]"): "metrics.rounds",
    ("rounds = [2, 4]", "rounds = [2, 4, 4711]"): "metrics.rounds",
    ('name = "grocer"', 'name = "books"'): "partners",
    ("high = 95", "high = 18"): "contract.columns.age",
    ('values = ["city", "town"]', 'values = ["canary-4711"]'): "contract.columns.area",
    ('label = "bought"', 'label = "age"'): "contract.columns",
}


@pytest.mark.parametrize("change", BROKEN, ids=[f"{new} for {old}" for old, new in BROKEN])
def test_each_broken_rule_names_its_key_and_never_the_value(study_text, study_file, change):
    assert set(faults(study_file(replaced(study_text, *change)))) == {BROKEN[change]}


def test_the_steps_of_a_study_are_bounded_with_its_spare_attempts(study_text, study_file):
    most = replaced(study_text, "local_steps = 5", "local_steps = 10000")
    read_study(study_file(replaced(most, "spare = 2", "spare = 6")))
    assert list(faults(study_file(replaced(most, "spare = 2", "spare = 7")))) == ["training"]


def test_partners_have_a_key_each(study_text, study_file):
    keyed = replaced(study_text, "customers = 600", 'customers = 600\nkey = "k"')
    read_study(study_file(keyed))
    twice = replaced(keyed, "customers = 2000", 'customers = 2000\nkey = "k"')
    assert list(faults(study_file(twice))) == ["partners"]


@pytest.mark.parametrize("key", ["trust", "threshold", "colluders", "unit", "epsilon", "delta"])
def test_what_decides_privacy_has_no_default(study_text, study_file, key):
    lines = [line for line in study_text.splitlines() if not line.startswith(f"{key} ")]
    assert faults(study_file("\n".join(lines))) == {f"privacy.{key}": "is missing"}


@pytest.mark.parametrize("key", ["sample_rate", "clip", "learning_rate", "rounds", "local_steps"])
def test_what_a_step_is_has_no_default(study_text, study_file, key):
    # The metrics' rounds are a list, so the first line that matches is the training's.
    lines = study_text.splitlines()
    lines.remove(next(line for line in lines if line.startswith(f"{key} =")))
    assert faults(study_file("\n".join(lines))) == {f"training.{key}": "is missing"}


def test_rules_of_plan_and_contract_are_reported_together(study_text, study_file):
    text = study_text
    for old, new in [
        ("threshold = 2", "threshold = 9"),
        ("colluders = 1", "colluders = 9"),
        ("rounds = [2, 4]", "rounds = [4711]"),
        ("high = 95", "high = 18"),
        ('name = "grocer"', 'name = "books"'),
    ]:
        text = replaced(text, old, new)
    expected = {"privacy.threshold", "privacy.colluders", "metrics.rounds", "contract.columns.age", "partners"}
    assert set(faults(study_file(text))) == expected


def test_a_sound_study_is_read_as_it_is_written(plan):
    assert plan.expires == datetime.date(2031, 12, 31)
    assert [partner.name for partner in plan.partners] == ["books", "fashion", "grocer"]
    assert plan.partner("grocer").customers == 3000
    assert plan.partner("nobody") is None
    assert plan.contract.columns[0].edges == (30.0, 50.0)


# --- the digest -----------------------------------------------------------------------------------------


def leaves(value, path=()):
    """Yield the path of every plain value in nested JSON."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def test_every_value_of_a_plan_is_in_its_digest(plan):
    original = plan.to_dict()
    paths = list(leaves(original))
    assert len(paths) > 40
    digests = {plan.digest()}
    for path in paths:
        changed = json.loads(json.dumps(original))
        place = changed
        for key in path[:-1]:
            place = place[key]
        old = place[path[-1]]
        place[path[-1]] = f"{old}x" if isinstance(old, str) else old + 1
        digests.add(plans.digest(changed))
    assert len(digests) == len(paths) + 1


def test_every_field_of_a_plan_is_in_its_dictionary(plan):
    def names(value):
        found = set()
        if dataclasses.is_dataclass(value):
            for one in dataclasses.fields(value):
                inner = getattr(value, one.name)
                found |= {one.name} if inner is not None else set()
                found |= names(inner)
        if isinstance(value, tuple):
            found = found.union(*(names(item) for item in value))
        return found

    written = {key for path in leaves(plan.to_dict()) for key in path if isinstance(key, str)}
    # Empty lists have no leaves; kinds of cells that are as before are left out, and digests stay.
    later = {"cells", "customer_cells", "atoms", "spacing", "use", "groups"}
    assert names(plan) - written <= {"values", "edges", "key", *later} - written
    assert {"spare", "colluders", "threshold", "positive_weight", "outside", "minimum_customers"} <= written


def test_kinds_of_cells_are_in_a_plan_where_they_are_chosen_and_digests_of_before_stay(plan):
    assert not {"cells", "customer_cells"} & {key for path in leaves(plan.to_dict()) for key in path}
    first, *others = plan.contract.columns
    columns = (dataclasses.replace(first, cells="searchable"), *others)
    contract = dataclasses.replace(plan.contract, columns=columns, customer_cells="searchable")
    chosen = dataclasses.replace(plan, contract=contract)
    assert chosen.to_dict()["contract"]["customer_cells"] == "searchable"
    assert [column.get("cells") for column in chosen.to_dict()["contract"]["columns"]] == [
        "searchable",
        *[None] * len(others),
    ]
    assert chosen.digest() != plan.digest()
    assert plan_from_dict(chosen.to_dict()) == chosen


def test_a_dictionary_of_a_plan_is_the_plan(plan):
    assert plan_from_dict(plan.to_dict()) == plan
    partners = tuple(dataclasses.replace(p, key=f"ed25519:{p.name}") for p in plan.partners)
    keyed = dataclasses.replace(plan, partners=partners)
    assert plan_from_dict(keyed.to_dict()) == keyed
    assert keyed.digest() != plan.digest()


# --- secure aggregation ---------------------------------------------------------------------------------


def secure(plan, count, threshold, colluders, **training):
    """The plan with secure sums over so many partners, unchecked."""
    partners = tuple(plans.Partner(name=f"p{number}", customers=100) for number in range(count))
    privacy = dataclasses.replace(plan.privacy, trust="secure-aggregation", threshold=threshold, colluders=colluders)
    training = dataclasses.replace(plan.training, **training)
    return dataclasses.replace(plan, partners=partners, privacy=privacy, training=training)


def objected(plan):
    try:
        plan.check("plan")
    except FileFault as error:
        found = error.faults
    else:
        return set()
    assert all(fault.fix for fault in found)
    return {fault.place.removeprefix("plan: ") for fault in found}


def test_thresholds_and_colluders_of_secure_sums_are_those_that_the_protocol_bears(plan):
    sound = []
    for count in range(1, 13):
        for threshold in range(1, count + 1):
            for colluders in range(1, count):
                # Two disjoint stories need T honest partners each, and colluders may be in both.
                stories = 2 * (threshold - colluders) > count - colluders
                third = threshold > 2 * count / 3
                enough = threshold >= 3 and threshold - colluders >= 2
                fine = count >= 3 and third and enough and stories
                assert (objected(secure(plan, count, threshold, colluders)) == set()) == fine
                sound += [(count, threshold, colluders)] * fine
    assert (3, 3, 1) in sound
    assert (4, 3, 1) in sound
    assert (10, 8, 3) in sound
    assert (4, 3, 2) not in sound


@pytest.mark.parametrize(
    ("numbers", "places"),
    [
        ((2, 2, 1), {"privacy.threshold", "privacy.colluders"}),
        ((6, 4, 1), {"privacy.threshold"}),  # two thirds are not above two thirds
        ((6, 5, 4), {"privacy.colluders"}),
        ((5, 4, 3), {"privacy.colluders"}),
        ((3, 4, 1), {"privacy.threshold"}),
        ((9, 7, 5), {"privacy.colluders"}),  # 14 is not above 14
    ],
)
def test_what_makes_secure_sums_unsafe_is_named(plan, numbers, places):
    assert objected(secure(plan, *numbers)) == places


def test_the_server_has_no_part_in_secure_sums(plan):
    assert objected(secure(plan, 4, 3, 1, server="fedadam")) == {"training.server"}
    assert objected(secure(plan, 4, 3, 1, server_learning_rate=0.5)) == {"training.server"}
    assert objected(dataclasses.replace(plan, training=dataclasses.replace(plan.training, server="fedadam"))) == set()


def test_a_local_plan_may_have_any_threshold(plan):
    assert objected(dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, threshold=1))) == set()


@pytest.mark.parametrize(
    "setting", ["batch_cap = 0", 'optimizer = "lbfgs"', "momentum = 1.0", "averaging = 1", "x = 1"]
)
def test_settings_of_secure_sums_have_ranges(study_text, study_file, setting):
    broken = study_text + f"\n[secure]\n{setting}\n"
    assert list(faults(study_file(broken))) == [f"secure.{setting.split(' ')[0]}"]


def test_settings_of_secure_sums_are_in_the_digest_where_they_are_given(plan, study_text, study_file):
    assert "secure" not in plan.to_dict()
    text = study_text + '\n[secure]\noptimizer = "adam"\naveraging = 0.9\n'
    told = read_study(study_file(text)).plan
    assert told.secure == plans.Secure(optimizer="adam", averaging=0.9)
    assert told.digest() != plan.digest()
    assert plan_from_dict(told.to_dict()) == told
