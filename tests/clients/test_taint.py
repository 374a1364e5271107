"""Marks on customers' memory: no view of it gets away, and nothing else is marked."""

import gc

import numpy as np
import torch

from coterie.clients import taint as module
from coterie.clients.opening import open_table
from coterie.clients.taint import is_tainted, taint
from coterie.clients.training import training_customers
from coterie.privacy.randomness import OsSource
from coterie.tests.clients.federation import study

VIEWS = {
    "itself": lambda a: a,
    "a slice": lambda a: a[3:5],
    "a step": lambda a: a[::7],
    "a transpose": lambda a: a.T,
    "another shape": lambda a: a.reshape(-1),
    "other bytes": lambda a: a.view(np.uint8),
    "one cell": lambda a: a[2:3, 1:2],
    "a torch tensor and back": lambda a: torch.from_numpy(a)[1:].numpy(),
    "a torch view and back": lambda a: torch.from_numpy(a).t().numpy(),
    "a buffer": lambda a: np.frombuffer(memoryview(a).cast("B"), dtype=np.uint8),
}


def test_every_view_of_marked_memory_is_caught():
    rows = taint(np.arange(60.0).reshape(12, 5))
    for name, view in VIEWS.items():
        assert is_tainted(view(rows)), name


def test_a_mark_on_a_view_is_a_mark_on_the_whole():
    whole = np.arange(60.0).reshape(12, 5)
    taint(whole[2:4])
    assert is_tainted(whole[9:])


def test_other_memory_and_sums_are_not_marked():
    rows = taint(np.arange(60.0).reshape(12, 5))
    assert not is_tainted(np.arange(60.0))
    assert not is_tainted(rows.sum(axis=0))


def test_a_mark_ends_with_its_memory():
    gc.collect()
    before = len(module._marked)
    rows = taint(np.arange(1000.0))
    view = rows[5:]
    del rows
    gc.collect()
    assert is_tainted(view)
    del view
    gc.collect()
    assert len(module._marked) == before


def test_everything_that_a_table_is_opened_as_is_marked(federation):
    stream, group_key = OsSource().stream("rows"), federation.workspace().group_key
    with federation.sealed() as table:
        opened = open_table(table, federation.plan.contract, group_key=group_key, stream=stream)
    for array in (*opened.columns.values(), opened.labels, opened.customer, opened.held_out):
        assert is_tainted(array)


def test_the_tensors_that_training_reads_are_marked(federation):
    stream, group_key = OsSource().stream("rows"), federation.workspace().group_key
    with federation.sealed() as table:
        opened = open_table(table, federation.plan.contract, group_key=group_key, stream=stream)
    customers = training_customers(opened, study())
    assert is_tainted(customers._features.numpy())
    assert is_tainted(customers._labels.numpy())
