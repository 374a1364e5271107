"""A Merkle tree over the ledger's entries: RFC 9162 (Certificate Transparency 2.0), section 2.1, with SHA-256.

The tree is never kept as a whole. Every entry stores the perfect sub-trees that end with it, and a `Nodes` looks
them up: roots and proofs cost a logarithm of the ledger's length.
"""

import hashlib
from collections.abc import Callable, Sequence

from coterie.privacy.errors import Fault, LedgerFault

__all__ = [
    "EMPTY",
    "Frontier",
    "Nodes",
    "check_consistency",
    "check_inclusion",
    "completed",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "nodes_of",
    "root_of",
]

EMPTY = hashlib.sha256().digest()
"""Root of the empty tree (section 2.1.1)."""

Nodes = Callable[[int, int], bytes]
"""Looks up the perfect sub-tree of a level that has an index: leaves index * 2**level and 2**level on."""

_DOMAIN = b"\x00coterie/entry/v2\n"


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256(0x00 || entry), the entry behind a label of its own (section 2.1.1)."""
    return hashlib.sha256(_DOMAIN + entry).digest()


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed(size: int, leaf: bytes, nodes: Nodes) -> tuple[bytes, ...]:
    """Return the perfect sub-trees that a leaf completes, the leaf itself first.

    Args:
        size: Leaves before it.
        leaf: Its hash.
        nodes: Looks up what is there.
    """
    made, index, level = [leaf], size, 0
    while index % 2:
        made.append(_parent(nodes(level, index - 1), made[-1]))
        index, level = index // 2, level + 1
    return tuple(made)


class Frontier:
    """The tree's root while leaves are added, in memory that grows with the logarithm of their number."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []  # perfect sub-trees from the left, greatest first

    def add(self, leaf: bytes) -> None:
        """Add a leaf's hash."""
        peak, index = leaf, self.size
        while index & 1:
            peak = _parent(self._peaks.pop(), peak)
            index >>= 1
        self._peaks.append(peak)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of what was added so far."""
        if not self._peaks:
            return EMPTY
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = _parent(peak, root)
        return root


def nodes_of(leaves: Sequence[bytes]) -> Nodes:
    """Return a `Nodes` over leaves in memory; each level is made when it is first asked for."""
    levels: list[list[bytes]] = [list(leaves)]

    def node(level: int, index: int) -> bytes:
        while len(levels) <= level:
            below = levels[-1]
            levels.append([_parent(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])
        return levels[level][index]

    return node


def root_of(size: int, nodes: Nodes) -> bytes:
    """Return the root of the first `size` leaves (section 2.1.1)."""
    return _range(0, size, nodes) if size else EMPTY


def inclusion_proof(index: int, size: int, nodes: Nodes) -> tuple[bytes, ...]:
    """Return PATH(index, D[size]) (section 2.1.3.1).

    Raises:
        ValueError: The leaf is not among the first `size`.
    """
    if not 0 <= index < size:
        raise ValueError("the leaf is not in the tree")
    return tuple(_path(index, 0, size, nodes))


def consistency_proof(first: int, second: int, nodes: Nodes) -> tuple[bytes, ...]:
    """Return PROOF(first, D[second]) (section 2.1.4.1); of nothing with anything, none is needed.

    Raises:
        ValueError: `first` exceeds `second`.
    """
    if not 0 <= first <= second:
        raise ValueError("the first tree is not part of the second")
    if first in {0, second}:
        return ()
    return tuple(_subproof(first, (0, second), nodes, known=True))


def check_inclusion(leaf: bytes, index: int, size: int, *, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is in a tree (section 2.1.3.2).

    Raises:
        LedgerFault: The proof does not show it.
    """
    fault = LedgerFault(Fault(f"entry {index + 1}", "is not shown to be in the tree", "ask for the bundle again"))
    if not 0 <= index < size:
        raise fault
    node, last, value = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise fault
        if node & 1 or node == last:
            value = _parent(step, value)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            value = _parent(value, step)
        node, last = node >> 1, last >> 1
    if last != 0 or value != root:
        raise fault


def check_consistency(first: tuple[int, bytes], second: tuple[int, bytes], proof: Sequence[bytes]) -> None:
    """Check that a tree extends an earlier one (section 2.1.4.2).

    Args:
        first: Size and root of the earlier tree.
        second: Size and root of the later one.
        proof: What `consistency_proof` made.

    Raises:
        LedgerFault: The proof does not show it.
    """
    (small, old_root), (large, new_root) = first, second
    rule = f"of {large} entries is not shown to extend the one of {small}"
    fault = LedgerFault(Fault("the ledger", rule, "something was removed or rewritten: ask the partner"))
    if not 0 <= small <= large:
        raise fault
    if small in {0, large}:
        expected = EMPTY if small == 0 else new_root
        if proof or old_root != expected:
            raise fault
        return
    if _two_roots(small, large, proof, old_root) != [old_root, new_root]:
        raise fault


def _two_roots(small: int, large: int, proof: Sequence[bytes], old_root: bytes) -> list[bytes]:
    """Return both roots that a proof leads to; fewer where it has a wrong length."""
    path = list(proof)
    if small & (small - 1) == 0:  # the earlier tree is one perfect sub-tree, which the verifier knows
        path.insert(0, old_root)
    if not path:
        return []
    node, last = small - 1, large - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for step in path[1:]:
        if last == 0:
            return []
        if node & 1 or node == last:
            old, new = _parent(step, old), _parent(step, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = _parent(new, step)
        node, last = node >> 1, last >> 1
    return [old, new] if last == 0 else []


def _split(size: int) -> int:
    """Return the greatest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _range(start: int, end: int, nodes: Nodes) -> bytes:
    size = end - start
    if size & (size - 1) == 0 and start % size == 0:
        level = size.bit_length() - 1
        return nodes(level, start >> level)
    middle = start + _split(size)
    return _parent(_range(start, middle, nodes), _range(middle, end, nodes))


def _path(index: int, start: int, end: int, nodes: Nodes) -> list[bytes]:
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(index, start, middle, nodes), _range(middle, end, nodes)]
    return [*_path(index, middle, end, nodes), _range(start, middle, nodes)]


def _subproof(first: int, within: tuple[int, int], nodes: Nodes, *, known: bool) -> list[bytes]:
    start, end = within
    if first == end:
        return [] if known else [_range(start, end, nodes)]
    middle = start + _split(end - start)
    if first <= middle:
        return [*_subproof(first, (start, middle), nodes, known=known), _range(middle, end, nodes)]
    return [*_subproof(first, (middle, end), nodes, known=False), _range(start, middle, nodes)]
