"""Measuring: held-out customers, each counted once, and noise on every count before anything is released."""

import dataclasses

import numpy as np
import pyarrow.parquet
import pytest

from coterie.clients.measuring import noisy_histogram, score_histogram
from coterie.clients.opening import open_table
from coterie.clients.tables.files import table_at
from coterie.privacy.discrete import discrete_gaussians
from coterie.privacy.randomness import OsSource, SeededSource
from coterie.tests.clients.federation import CONTRACT, REGIONS, SEEDED, mechanisms, study, table_of, with_cells

KEY = bytes(range(32))
WEIGHTS = (np.array([[3.9, -2.7, 0.25, 3.5, 0.4, -1.9, 0.3]], np.float32), np.array([-0.2], np.float32))
ROWS = dataclasses.replace(CONTRACT, rows_per_customer=4)


@pytest.fixture
def opening(tmp_path):
    def opened(table, contract=CONTRACT):
        path = tmp_path / "table.parquet"
        pyarrow.parquet.write_table(table, path)
        return open_table(table_at(path), contract, group_key=KEY, stream=OsSource().stream("rows"))

    return opened


def place(row, bins=8):
    """The score bin of a row, by hand: equal in log-odds from -6 to 6, the outer ones open."""
    spend = [row["spend"] < 50, 50 <= row["spend"] < 150, row["spend"] >= 150]
    features = [(row["age"] - 54) / 36, *map(float, spend), *(float(row["region"] == region) for region in REGIONS)]
    logit = float(np.dot(WEIGHTS[0][0].astype(float), features)) + float(WEIGHTS[1][0])
    return min(max(int((logit + 6) // (12 / bins)), 0), bins - 1)


def test_held_out_customers_are_counted_by_label_and_score(opening):
    table = table_of(count=600)
    opened = opening(table)
    counts = score_histogram(opened, study(), WEIGHTS, SEEDED.stream("x"))
    expected = np.zeros((2, 8), np.int64)
    for row, held_out in zip(table.to_pylist(), opened.held_out, strict=True):
        if held_out:
            expected[row["bought"], place(row)] += 1
    assert np.array_equal(counts, expected)
    assert counts.sum() == opened.held_out.sum()
    assert (counts > 0).sum() > 5


def test_a_customer_with_many_rows_is_counted_once_by_a_random_one_of_them(opening):
    table = table_of(count=600)
    crowd = table.take(np.repeat(np.arange(600), 3))
    crowd = with_cells(crowd, "bought", {row: row % 3 == 0 for row in range(1800)})
    opened = opening(crowd, ROWS)
    plan = study(contract=ROWS)
    held_out = len(np.unique(opened.customer[opened.held_out]))
    positives = []
    for number in range(60):
        counts = score_histogram(opened, plan, WEIGHTS, SEEDED.stream(str(number)))
        assert counts.sum() == held_out
        positives.append(counts[1].sum())
    # One row in three has label 1, so does one customer in three: 60 draws of some 120 customers.
    assert abs(np.mean(positives) / held_out - 1 / 3) < 0.03
    assert np.std(positives) > 1


def test_one_customer_more_changes_one_count_by_one(opening):
    table = table_of(count=600)
    opened = opening(table)
    row = int(np.flatnonzero(opened.held_out)[3])
    rest = opening(table.take([index for index in range(600) if index != row]))
    stream = [SEEDED.stream("x") for _ in range(2)]
    change = score_histogram(opened, study(), WEIGHTS, stream[0]) - score_histogram(rest, study(), WEIGHTS, stream[1])
    assert sorted(change.ravel().tolist()) == [0] * 15 + [1]


def test_without_held_out_customers_there_are_zeros_and_then_noise(opening):
    opened = opening(table_of(count=600))
    none = dataclasses.replace(opened, held_out=np.zeros(600, np.bool_))
    assert not score_histogram(none, study(), WEIGHTS, SEEDED.stream("x")).any()


def test_every_count_gets_noise_of_its_own_also_those_that_are_zero():
    zeros = np.zeros((2, 8), np.int64)
    draws = np.array([noisy_histogram(zeros, 3.0, SeededSource(b"n").stream(str(n))) for n in range(600)])
    assert draws.dtype == np.int64
    assert np.abs(draws.mean(axis=0)).max() < 5 * 3.0 / 600**0.5
    assert np.abs(draws.var(axis=0) / 9.0 - 1).max() < 0.35
    flat = draws.reshape(600, 16)
    correlation = np.corrcoef(flat.T) - np.eye(16)
    assert np.abs(correlation).max() < 0.2


def test_what_is_released_is_the_counts_plus_the_noise_of_the_event_that_is_charged(agreed):
    released = agreed.measure()
    label = f"amber/{agreed.digest}/evaluate/1/1"
    stream = SEEDED.stream(label)
    rows, group_key = SEEDED.stream("amber/rows/" + label[6:]), agreed.workspace().group_key
    with agreed.sealed() as table:
        opened = open_table(table, CONTRACT, group_key=group_key, stream=rows)
    counts = score_histogram(opened, agreed.plan, agreed.weights(), stream)
    noise = discrete_gaussians(mechanisms().histogram.sigma, 16, stream).reshape(2, 8)
    assert np.array_equal(released.arrays[0], counts + noise)
    assert noise.any()
    (held,) = agreed.reservations()
    assert held.charge.event.sigma == mechanisms().histogram.sigma
