"""The tree over a log's lines: published vectors, the RFCs' definitions as an oracle, and proofs that were altered."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.crypto.merkle import EMPTY_ROOT, MerkleTree, leaf_hash, verify_consistency, verify_inclusion

# The test vectors of the Certificate Transparency reference implementation.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSIONS = {
    (0, 1): [],
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
CONSISTENCIES = {
    (1, 1): [],
    (1, 8): INCLUSIONS[0, 8],
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
MOST = 40


def grown(leaves: list[bytes]) -> MerkleTree:
    tree = MerkleTree()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    return tree


def lines(count: int) -> list[bytes]:
    return [b"line %d" % number for number in range(count)]


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word: no state, no levels."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


def defined_consistency(older: int, leaves: list[bytes], complete: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 9162, section 2.1.4.1, word for word."""
    if older == len(leaves):
        return [] if complete else [defined_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if older <= k:
        return [*defined_consistency(older, leaves[:k], complete), defined_root(leaves[k:])]
    return [*defined_consistency(older - k, leaves[k:], False), defined_root(leaves[:k])]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert grown(LEAVES).root(size).hex() == grown(LEAVES[:size]).root().hex() == ROOTS[size - 1]


@pytest.mark.parametrize("place", INCLUSIONS)
def test_inclusion_proofs_are_the_published_ones(place: tuple[int, int]) -> None:
    index, size = place
    path = grown(LEAVES).inclusion(index, size)
    assert [each.hex() for each in path] == INCLUSIONS[place]
    assert verify_inclusion(leaf_hash(LEAVES[index]), index, size, path, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize("sizes", CONSISTENCIES)
def test_consistency_proofs_are_the_published_ones(sizes: tuple[int, int]) -> None:
    older, size = sizes
    path = grown(LEAVES).consistency(older, size)
    assert [each.hex() for each in path] == CONSISTENCIES[sizes]
    roots = [bytes.fromhex(ROOTS[each - 1]) for each in sizes]
    assert verify_consistency(older, roots[0], size, roots[1], path)


def test_roots_and_proofs_of_every_small_size_are_those_that_the_rfc_defines() -> None:
    leaves = lines(MOST)
    tree = grown(leaves)
    for size in range(MOST + 1):
        assert tree.root(size) == defined_root(leaves[:size])
        for older in range(1, size):
            path = tree.consistency(older, size)
            assert path == defined_consistency(older, leaves[:size])
            assert verify_consistency(older, tree.root(older), size, tree.root(size), path)
        for index in range(size):
            path = tree.inclusion(index, size)
            assert verify_inclusion(leaf_hash(leaves[index]), index, size, path, tree.root(size))


def test_nothing_is_the_beginning_of_every_log() -> None:
    tree = grown(lines(5))
    assert MerkleTree().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()
    assert verify_consistency(0, EMPTY_ROOT, 5, tree.root(), tree.consistency(0))
    assert not verify_consistency(0, tree.root(), 5, tree.root(), [])
    assert not verify_consistency(0, EMPTY_ROOT, 5, tree.root(), [EMPTY_ROOT])


def test_a_log_with_one_other_line_among_the_first_has_no_proof() -> None:
    """The claim that matters: whatever a rewriter sends as the proof, the older root does not begin its log."""
    leaves = lines(MOST)
    for older in range(1, MOST):
        honest = grown(leaves)
        for changed in range(older):
            rewritten = grown([*leaves[:changed], b"another", *leaves[changed + 1 :]])
            for path in (rewritten.consistency(older), honest.consistency(older)):
                assert not verify_consistency(older, honest.root(older), MOST, rewritten.root(), path)


@given(sizes=st.tuples(st.integers(1, 300), st.integers(1, 300)).map(sorted), place=st.integers(0), bit=st.integers(0))
def test_a_proof_with_one_bit_changed_one_hash_less_or_one_more_is_refused(
    sizes: list[int], place: int, bit: int
) -> None:
    older, size = sizes
    tree = grown(lines(size))
    path, roots = tree.consistency(older), (tree.root(older), tree.root())
    assert verify_consistency(older, roots[0], size, roots[1], path)
    assert not verify_consistency(older, roots[0], size, roots[1], [*path, EMPTY_ROOT])
    if path:
        position = place % len(path)
        changed = bytearray(path[position])
        changed[bit // 8 % 32] ^= 1 << bit % 8
        altered = [*path[:position], bytes(changed), *path[position + 1 :]]
        assert not verify_consistency(older, roots[0], size, roots[1], altered)
        assert not verify_consistency(older, roots[0], size, roots[1], path[:-1])


@given(size=st.integers(2, 200), index=st.integers(0), other=st.integers(0))
def test_an_inclusion_proof_shows_one_leaf_at_one_place(size: int, index: int, other: int) -> None:
    tree, leaves = grown(lines(size)), lines(size)
    index, other = index % size, other % size
    path = tree.inclusion(index)
    assert verify_inclusion(leaf_hash(leaves[index]), index, size, path, tree.root())
    assert not verify_inclusion(leaf_hash(b"another"), index, size, path, tree.root())
    assert not verify_inclusion(leaf_hash(leaves[index]), index, size, path, EMPTY_ROOT)
    assert not verify_inclusion(leaf_hash(leaves[index]), index, size, [*path, EMPTY_ROOT], tree.root())
    if other != index:
        assert not verify_inclusion(leaf_hash(leaves[index]), other, size, path, tree.root())


def test_sizes_and_places_that_the_tree_does_not_have_are_refused() -> None:
    tree = grown(lines(3))
    for ask in (
        lambda: tree.root(4),
        lambda: tree.root(-1),
        lambda: tree.inclusion(3),
        lambda: tree.inclusion(-1),
        lambda: tree.consistency(4),
        lambda: tree.consistency(2, 1),
    ):
        with pytest.raises(IndexError):
            ask()
    assert not verify_inclusion(leaf_hash(b""), 3, 3, [], tree.root())
    assert not verify_inclusion(leaf_hash(b""), -1, 3, [], tree.root())
    assert not verify_consistency(4, tree.root(), 3, tree.root(), [])
    assert not verify_consistency(-1, tree.root(), 3, tree.root(), [])
