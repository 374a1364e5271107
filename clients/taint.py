"""Marks on arrays made from customers' rows, so that the door can refuse them.

The mark is on the memory: views, slices and tensors that share it are caught, however they were wrapped. A
copy is not; that is why the door also asks for a charged release. The mark guards against accidents. It is asked
for when a release is settled, since nothing of it is left once a release has become bytes.
"""

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.errors import Fault, ReleaseRefused
from coterie.privacy.release import Release

__all__ = ["is_tainted", "refuse_tainted", "taint"]

_marked: dict[int, "weakref.ref[NDArray[Any]]"] = {}


def taint(array: NDArray[Any]) -> NDArray[Any]:
    """Mark an array as made from customers' rows, for as long as its memory lives."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    key = id(owner)
    _marked[key] = weakref.ref(owner, lambda _: _marked.pop(key, None))
    return array


def is_tainted(array: NDArray[Any]) -> bool:
    """Return whether an array shares memory with a marked one."""
    living = (ref() for ref in list(_marked.values()))
    return any(np.may_share_memory(array, marked) for marked in living if marked is not None)


def refuse_tainted(release: Release) -> None:
    """Refuse a release that is made of customers' rows.

    Raises:
        ReleaseRefused: One of its arrays shares memory with a marked one.
    """
    if any(is_tainted(array) for array in release.arrays):
        raise ReleaseRefused(Fault(release.kind, "shares memory with customers' rows", "release noise alone"))
