"""Tables as customers: every row in its customer's sample, padding masked, no size in sight."""

import numpy as np
import pytest

from coterie.privacy.training import Customers


def rows_of(batch, index):
    """Return the (features, label) pairs of one customer that its mask leaves."""
    features = batch.features if batch.features.ndim == 3 else batch.features[:, None]
    kept = batch.mask[index].bool().numpy()
    found = zip(features[index].numpy()[kept].tolist(), batch.labels[index].numpy()[kept].tolist(), strict=True)
    return sorted(found)


@pytest.mark.parametrize("rows", [1, 4])
def test_every_row_is_in_its_customer_s_sample_once(lab, rows):
    features, labels, ids = lab.table(9, 3, rows=rows, seed=2)
    batch = Customers(features, labels, ids).batch(np.arange(9))
    for index, customer in enumerate(np.unique(ids)):
        mine = ids == customer
        assert rows_of(batch, index) == sorted(zip(features[mine].tolist(), labels[mine].tolist(), strict=True))
    assert batch.mask.sum() == len(ids)


def test_customers_are_chosen_by_position_in_any_order_and_number(lab):
    features, labels, ids = lab.table(6, 2, rows=3, seed=3)
    customers = Customers(features, labels, ids)
    whole, some = customers.batch(np.arange(6)), customers.batch(np.array([4, 1]))
    assert rows_of(some, 0) == rows_of(whole, 4)
    assert rows_of(some, 1) == rows_of(whole, 1)
    assert customers.batch(np.array([], dtype=np.int64)).features.shape == (0, 3, 2)


def test_what_a_customer_is_called_does_not_matter(lab):
    features, labels, ids = lab.table(5, 2, rows=3, seed=4)
    renamed = Customers(features, labels, ids * 10**12 - 10**15)
    assert len(renamed) == len(Customers(features, labels, ids)) == 5
    for index in range(5):
        one = Customers(features, labels, ids).batch(np.arange(5))
        assert rows_of(renamed.batch(np.arange(5)), index) == rows_of(one, index)


def test_a_table_without_customers_is_allowed():
    empty = Customers(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert len(empty) == 0
    assert empty.batch(np.array([], dtype=np.int64)).features.shape == (0, 4)


def test_its_text_shows_no_size(lab):
    one, other = (Customers(*lab.table(n, 2)) for n in (5, 77))
    assert repr(one) == repr(other) == str(one)
