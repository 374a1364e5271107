"""The Merkle tree is RFC 9162's: its published vectors, its own recursive text, and nothing false is believed."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.privacy.errors import LedgerFault
from coterie.privacy.merkle import (
    EMPTY,
    Frontier,
    check_consistency,
    check_inclusion,
    completed,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    nodes_of,
    root_of,
)

# Inputs, roots and proofs of the reference implementations of Certificate Transparency (RFC 6962 and 9162 agree).
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
MOST = 64


def sha(data):
    return hashlib.sha256(data).digest()


def raw(data):
    """A published leaf: the RFC's hash of an input, without our label."""
    return sha(b"\x00" + data)


PUBLISHED = [raw(bytes.fromhex(text)) for text in INPUTS]
LEAVES = [raw(b"leaf %d" % number) for number in range(MOST)]
NODES = nodes_of(LEAVES)


# --- the oracle: sections 2.1.1, 2.1.3.1 and 2.1.4.1 word for word, over lists ------------------------------------


def split(size):
    k = 1
    while 2 * k < size:
        k *= 2
    return k


def mth(leaves):
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha(b"\x01" + mth(leaves[:k]) + mth(leaves[k:]))


def path(m, leaves):
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m, leaves, known):
    if m == len(leaves):
        return [] if known else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], known), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], known=False), mth(leaves[:k])]


ORACLE = [mth(LEAVES[:size]) for size in range(MOST + 1)]


# --- what is published ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots_come_out(size):
    frontier = Frontier()
    for leaf in PUBLISHED[:size]:
        frontier.add(leaf)
    assert root_of(size, nodes_of(PUBLISHED)).hex() == frontier.root().hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_the_published_proofs_of_inclusion_come_out_and_hold(index, size):
    proof = inclusion_proof(index, size, nodes_of(PUBLISHED))
    assert [step.hex() for step in proof] == INCLUSION[index, size]
    check_inclusion(PUBLISHED[index], index, size, proof=proof, root=bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_the_published_proofs_of_consistency_come_out_and_hold(first, second):
    proof = consistency_proof(first, second, nodes_of(PUBLISHED))
    assert [step.hex() for step in proof] == CONSISTENCY[first, second]
    old, new = ((size, bytes.fromhex(ROOTS[size])) for size in (first, second))
    check_consistency(old, new, proof)


def test_a_leaf_is_an_entry_behind_a_label_that_no_node_begins_with():
    assert leaf_hash(b"{}") == sha(b"\x00coterie/entry/v2\n{}")
    assert leaf_hash(b"{}") != raw(b"{}")


# --- every size up to 64 ----------------------------------------------------------------------------------------


def test_every_root_is_the_recursive_definitions():
    frontier = Frontier()
    assert frontier.root() == EMPTY == ORACLE[0] == root_of(0, NODES)
    for size, leaf in enumerate(LEAVES, start=1):
        frontier.add(leaf)
        assert frontier.root() == root_of(size, NODES) == ORACLE[size]


def test_every_proof_of_inclusion_is_the_recursive_definitions_and_holds():
    for size in range(1, MOST + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, NODES)
            assert list(proof) == path(index, LEAVES[:size])
            check_inclusion(LEAVES[index], index, size, proof=proof, root=ORACLE[size])


def test_every_proof_of_consistency_is_the_recursive_definitions_and_holds():
    for second in range(MOST + 1):
        for first in range(second + 1):
            proof = consistency_proof(first, second, NODES)
            expected = subproof(first, LEAVES[:second], known=True) if 0 < first < second else []
            assert list(proof) == expected
            check_consistency((first, ORACLE[first]), (second, ORACLE[second]), proof)


def test_what_each_leaf_completes_is_what_is_looked_up():
    kept = []

    def node(level, index):
        return kept[((index + 1) << level) - 1][level]

    for size, leaf in enumerate(LEAVES):
        made = completed(size, leaf, node)
        kept.append(made)
        assert list(made) == [NODES(level, (size + 1 >> level) - 1) for level in range(len(made))]
        assert (size + 1) % (1 << len(made) - 1) == 0
        assert (size + 1) % (1 << len(made)) != 0
        assert root_of(size + 1, node) == ORACLE[size + 1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: inclusion_proof(5, 5, NODES),
        lambda: inclusion_proof(-1, 5, NODES),
        lambda: inclusion_proof(0, 0, NODES),
        lambda: consistency_proof(6, 5, NODES),
        lambda: consistency_proof(-1, 5, NODES),
    ],
)
def test_a_proof_that_cannot_be_is_not_made(ask):
    with pytest.raises(ValueError, match="tree"):
        ask()


# --- nothing false is believed ----------------------------------------------------------------------------------


def hurt(draw, proof):
    """A proof that differs: a bit, a step left out, doubled, added or moved."""
    steps = list(proof)
    how = draw(st.sampled_from(["bit", "drop", "double", "add", "swap"] if steps else ["add"]))
    place = draw(st.integers(0, max(0, len(steps) - 1)))
    if how == "bit":
        step = bytearray(steps[place])
        step[draw(st.integers(0, 31))] ^= 1 << draw(st.integers(0, 7))
        steps[place] = bytes(step)
    elif how == "drop":
        del steps[place]
    elif how == "double":
        steps.insert(place, steps[place])
    elif how == "add":
        steps.insert(place, draw(st.sampled_from([EMPTY, LEAVES[0], ORACLE[1], ORACLE[8]])))
    else:
        other = draw(st.integers(0, len(steps) - 1))
        steps[place], steps[other] = steps[other], steps[place]
    return steps


@st.composite
def inclusion_claims(draw):
    """A true claim of inclusion with one thing made false."""
    size = draw(st.integers(1, MOST))
    index = draw(st.integers(0, size - 1))
    claim = {"leaf": LEAVES[index], "index": index, "size": size, "root": ORACLE[size]}
    claim["proof"] = list(inclusion_proof(index, size, NODES))
    what = draw(st.sampled_from(["leaf", "index", "size", "root", "proof"]))
    if what == "proof":
        other = hurt(draw, claim["proof"])
    elif what in {"leaf", "root"}:
        other = draw(st.sampled_from(LEAVES + ORACLE))
    elif what == "index":
        other = draw(st.integers(-2, MOST + 2))
    else:
        other = draw(st.integers(-2, 2 * MOST))
    return claim, what, other


def shows_the_same_place(claim, size):
    """Whether a leaf lies in a tree of another size on a path of the same turns, which the size alone cannot change."""

    def turns(index, size):
        if size == 1:
            return []
        k = split(size)
        return [*turns(index, k), "left"] if index < k else [*turns(index - k, size - k), "right"]

    index = claim["index"]
    return 0 <= index < size and turns(index, size) == turns(index, claim["size"])


@settings(max_examples=3000, deadline=None)
@given(inclusion_claims())
def test_no_false_proof_of_inclusion_is_believed(drawn):
    claim, what, other = drawn
    false = {**claim, what: other}
    if what == "size" and shows_the_same_place(claim, other):
        return  # a root fixes the size only together with it: a checkpoint signs both
    if other == claim[what]:
        return
    with pytest.raises(LedgerFault):
        check_inclusion(false["leaf"], false["index"], false["size"], proof=false["proof"], root=false["root"])


@st.composite
def consistency_claims(draw):
    """A true claim of consistency with one thing made false."""
    second = draw(st.integers(1, MOST))
    first = draw(st.integers(1, second))
    old, new = (first, ORACLE[first]), (second, ORACLE[second])
    proof = list(consistency_proof(first, second, NODES))
    what = draw(st.sampled_from(["old root", "new root", "both roots", "proof"]))
    root = draw(st.sampled_from(ORACLE + LEAVES))
    if what == "proof":
        return old, new, hurt(draw, proof), proof
    changed = {"old root": ((first, root), new), "new root": (old, (second, root))}
    return *changed.get(what, ((first, root), (second, root))), proof, None


@settings(max_examples=3000, deadline=None)
@given(consistency_claims())
def test_no_false_proof_of_consistency_is_believed(drawn):
    old, new, proof, before = drawn
    if proof == before or (before is None and (old[1], new[1]) == (ORACLE[old[0]], ORACLE[new[0]])):
        return
    if old == new and not proof:
        return  # one tree with itself: no proof is needed, whatever its root
    with pytest.raises(LedgerFault):
        check_consistency(old, new, proof)


def test_no_tree_is_believed_to_extend_one_of_another_history():
    other = [*LEAVES[:5], raw(b"another"), *LEAVES[6:]]
    nodes = nodes_of(other)
    refused = 0
    for second in range(6, 33):
        for first in range(6, second + 1):
            for proof in (consistency_proof(first, second, nodes), consistency_proof(first, second, NODES)):
                for old, new in (
                    (ORACLE[first], root_of(second, nodes)),
                    (root_of(first, nodes), ORACLE[second]),
                ):
                    with pytest.raises(LedgerFault):
                        check_consistency((first, old), (second, new), proof)
                    refused += 1
    assert refused == 4 * sum(range(1, 28))


def test_no_proof_is_believed_for_a_tree_that_is_higher_or_lower_than_its_own():
    refused = 0
    for second in range(2, 33):
        for first in range(1, second):
            proof = consistency_proof(first, second, NODES)
            for other in range(first + 1, 70):
                if (other - 1).bit_length() != (second - 1).bit_length():
                    with pytest.raises(LedgerFault):
                        check_consistency((first, ORACLE[first]), (other, ORACLE[second]), proof)
                    refused += 1
    assert refused > 10_000


@pytest.mark.parametrize(("first", "second"), [(3, 2), (-1, 4), (0, -1), (-2, -1)])
def test_sizes_that_cannot_be_are_not_believed(first, second):
    with pytest.raises(LedgerFault):
        check_consistency((first, ORACLE[0]), (second, ORACLE[0]), [])


def test_an_earlier_tree_of_nothing_has_the_root_of_nothing_and_no_proof():
    check_consistency((0, EMPTY), (5, ORACLE[5]), [])
    for old, proof in ((ORACLE[1], []), (EMPTY, [ORACLE[5]])):
        with pytest.raises(LedgerFault):
            check_consistency((0, old), (5, ORACLE[5]), proof)
