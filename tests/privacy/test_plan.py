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
    assert names(plan) - written <= {"values", "edges", "key"} - written  # empty lists have no leaves
    assert {"spare", "colluders", "threshold", "positive_weight", "outside", "minimum_customers"} <= written


def test_a_dictionary_of_a_plan_is_the_plan(plan):
    assert plan_from_dict(plan.to_dict()) == plan
    partners = tuple(dataclasses.replace(p, key=f"ed25519:{p.name}") for p in plan.partners)
    keyed = dataclasses.replace(plan, partners=partners)
    assert plan_from_dict(keyed.to_dict()) == keyed
    assert keyed.digest() != plan.digest()
