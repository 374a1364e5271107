"""Proofs that single entries are in a bundle's tree, for a reader who wants to check one by hand.

The tree is built again from the entries themselves, so that a proof leads to the root that a review recomputes. It is
held in memory, 32 bytes an entry and as much again for the levels above, so there is a greatest ledger for it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie.privacy.errors import Fault
from coterie.privacy.merkle import check_inclusion, inclusion_proof, leaf_hash, nodes_of, root_of
from coterie.privacy.review.bundle import BundleFault, Part, read_parts
from coterie.privacy.review.verdict import Verdict

__all__ = ["LARGEST", "LONGEST", "SHOWN", "Proof", "named_in", "proofs_of"]

SHOWN = 300
"""How many entries a page shows, unless told otherwise."""
LARGEST = 1 << 20
"""Entries of the largest ledger whose tree is built here."""
LONGEST = 20_000
"""Bytes of the longest entry whose text is shown."""

_TELLING = {"opened", "policy", "consent", "refusal", "lost", "model", "erasure"}


@dataclass(frozen=True)
class Proof:
    """An entry, and why it is in the tree (RFC 9162, section 2.1.3).

    Args:
        entry: Its place in the ledger, from 1.
        at: Its time.
        kind: Its kind.
        text: Its canonical JSON, of which the leaf is the hash; empty where it is longer than `LONGEST`.
        leaf: Its hash in the tree, in hexadecimal.
        steps: Hashes to join with, from the leaf to the root: ("left" or "right", hash in hexadecimal).
        size: Entries of the tree.
        root: Its root in hexadecimal.
    """

    entry: int
    at: str
    kind: str
    text: str
    leaf: str
    steps: tuple[tuple[str, str], ...]
    size: int
    root: str


def named_in(verdict: Verdict) -> frozenset[int]:
    """Return the entries that a verdict's findings name."""
    return frozenset(found.entry for check in verdict.checks for found in check.findings if found.entry)


def proofs_of(
    path: Path,
    *,
    named: Collection[int] = (),
    limit: int = SHOWN,
    seen: Callable[[int, int], None] | None = None,
) -> tuple[Proof, ...]:
    """Prove entries of a bundle: all of them where there are no more than `limit`.

    Of longer ledgers, a quarter of the room each is for the first entries, the last, those that are named, and those
    that say more than a charge does.

    Args:
        path: The bundle.
        named: Entries of interest, such as those that findings name.
        limit: Most proofs.
        seen: Called now and then with entries read and entries in all.

    Returns:
        Proofs in the ledger's order; each has been checked. None where the bundle breaks off, or has more than
        `LARGEST` entries.

    Raises:
        BundleFault: The file cannot be read, or is no bundle.
        LedgerFault: A proof does not lead to the root; never for a tree that was built here.
    """
    leaves: list[bytes] = []
    try:
        with path.open("rb") as file:
            parts = read_parts(file)
            count = next(parts)[0].value.parts["entry"]
            if count > LARGEST:
                return ()
            wanted = _Wanted(count, limit, named)
            kept = []
            for part in _entries(parts):
                leaves.append(leaf_hash(part.raw))
                if wanted.takes(part):
                    kept.append(part)
                if seen is not None and part.index % 5000 == 0:
                    seen(part.index, count)
    except OSError as error:
        raise BundleFault(Fault(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
    return _proofs(kept, leaves) if len(leaves) == count else ()


def _entries(parts: Iterator[tuple[Part, bytes]]) -> Iterator[Part]:
    """Yield entries until the bundle ends or breaks off, which the review has a finding for."""
    try:
        for part, _ in parts:
            if part.kind == "entry":
                yield part
    except BundleFault:
        return


class _Wanted:
    """Decides which entries are proved."""

    def __init__(self, count: int, limit: int, named: Collection[int]) -> None:
        self._all, self._quarter = count <= limit, limit // 4
        self._last = count - self._quarter
        self._named = frozenset(sorted(named)[: self._quarter])
        self._telling = self._quarter

    def takes(self, part: Part) -> bool:
        """Return whether an entry is one of them."""
        if self._all or part.index <= self._quarter or part.index > self._last or part.index in self._named:
            return True
        if part.value.kind not in _TELLING or not self._telling:
            return False
        self._telling -= 1
        return True


def _proofs(kept: Sequence[Part], leaves: Sequence[bytes]) -> tuple[Proof, ...]:
    nodes, size = nodes_of(leaves), len(leaves)
    root = root_of(size, nodes)
    found = []
    for part in kept:
        index, leaf = part.index - 1, leaves[part.index - 1]
        path = inclusion_proof(index, size, nodes)
        check_inclusion(leaf, index, size, proof=path, root=root)
        text = part.raw.decode() if len(part.raw) <= LONGEST else ""
        steps = tuple(zip(_sides(index, size), (step.hex() for step in path), strict=True))
        entry = part.value
        found.append(Proof(part.index, entry.at, entry.kind, text, leaf.hex(), steps, size, root.hex()))
    return tuple(found)


def _sides(index: int, size: int) -> list[str]:
    """Return on which side each hash of an inclusion proof is joined (section 2.1.3.2)."""
    sides, node, last = [], index, size - 1
    while last:
        if node & 1 or node == last:
            sides.append("left")
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            sides.append("right")
        node, last = node >> 1, last >> 1
    return sides
