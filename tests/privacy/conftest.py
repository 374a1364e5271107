"""A small plan that the tests of this folder vary, and a clock that stands still."""

import datetime

import pytest

from coterie.privacy.study import read_study

STUDY = """
name = "spring"
purpose = "campaign selection"
task = "propensity"
expires = 2031-12-31

[contract]
customer = "customer"
label = "bought"
rows_per_customer = 2

[[contract.columns]]
name = "age"
kind = "numeric"
low = 18
high = 95
edges = [30, 50]

[[contract.columns]]
name = "area"
kind = "categorical"
values = ["city", "town"]

[model]
family = "logistic"

[training]
rounds = 4
local_steps = 5
sample_rate = 0.25
learning_rate = 0.5
clip = 1.0
spare = 2

[privacy]
unit = "customer of one partner"
epsilon = 1.0
delta = 1e-5
trust = "local"
threshold = 2
colluders = 1

[metrics]
rounds = [2, 4]

[cohort]

[[partners]]
name = "books"
customers = 600

[[partners]]
name = "fashion"
customers = 2000

[[partners]]
name = "grocer"
customers = 3000
"""


@pytest.fixture
def study_text():
    """A whole study file without a source."""
    return STUDY


@pytest.fixture
def study_file(tmp_path):
    """Write a study file and return its path."""

    def write(text, name="spring.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def plan(study_file):
    """The plan of the study file."""
    return read_study(study_file(STUDY)).plan


@pytest.fixture
def clock():
    """A clock that always says the same."""
    return lambda: datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
