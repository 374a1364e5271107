"""Marks on arrays made from customers' rows, so that the door can refuse them.

The mark is on the memory: views, slices and tensors that share it are caught, however they were wrapped. A
copy is not; that is why the door also asks for a charged release. The mark guards against accidents.
"""

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_tainted", "taint"]

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
