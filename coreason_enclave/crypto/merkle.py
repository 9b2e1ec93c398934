"""A Merkle tree over a log's lines (RFC 6962, RFC 9162): its root, and proofs about the root.

A root commits to every leaf and to the order of the leaves. Two kinds of proof:

- An inclusion proof shows that a leaf belongs to a root.
- A consistency proof shows that the leaves under an older root are the first leaves under a newer root.

Both grow with the logarithm of the number of leaves. A verifier needs no leaf to check either proof.

>>> tree = MerkleTree()
>>> for line in (b"one", b"two", b"three"):
...     tree.append(leaf_hash(line))
>>> older = tree.root(2)
>>> verify_consistency(2, older, 3, tree.root(), tree.consistency(2))
True
>>> verify_inclusion(leaf_hash(b"two"), 1, 3, tree.inclusion(1), tree.root())
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256().digest()
"""Root of a tree without leaves."""

_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one leaf; no inner node can have the same hash."""
    return hashlib.sha256(b"\x00" + data).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A growing tree of leaf hashes (32 bytes each).

    The tree keeps the hash of every complete subtree: 64 bytes a leaf.

    Appending takes constant time on average. Roots and proofs, for the present or any earlier size, take logarithmic
    time.
    """

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]  # level k: roots of the complete subtrees of 2^k leaves, in order

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0]) // _BYTES

    def append(self, leaf: bytes) -> None:
        """Add a leaf's hash at the end."""
        level, node = 0, leaf
        while True:
            if level == len(self._levels):
                self._levels.append(bytearray())
            row = self._levels[level]
            row += node
            if len(row) % (2 * _BYTES):
                return
            node = _node_hash(bytes(row[-2 * _BYTES : -_BYTES]), bytes(row[-_BYTES:]))
            level += 1

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` leaves; default: all leaves."""
        size = self._within(self.size if size is None else size)
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the root over the first ``size`` leaves covers the leaf at ``index``."""
        size = self._within(self.size if size is None else size)
        if not 0 <= index < size:
            raise IndexError(f"the tree of size {size} has no leaf {index}")
        path: list[bytes] = []
        low, high = 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self._hash(middle, high))
                high = middle
            else:
                path.append(self._hash(low, middle))
                low = middle
        return path[::-1]

    def consistency(self, older: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the first ``older`` leaves begin the first ``size`` leaves.

        The proof is empty if ``older`` equals 0 or ``size``.
        """
        size = self._within(self.size if size is None else size)
        if not 0 <= older <= size:
            raise IndexError(f"size {older} is not below size {size}")
        if older in (0, size):
            return []
        path: list[bytes] = []
        low, high, known = 0, size, True  # known: the verifier has the hash of the remaining [low, high)
        while older != high:
            middle = low + _split(high - low)
            if older <= middle:
                path.append(self._hash(middle, high))
                high = middle
            else:
                path.append(self._hash(low, middle))
                low, known = middle, False
        if not known:
            path.append(self._hash(low, high))
        return path[::-1]

    def _hash(self, low: int, high: int) -> bytes:
        """Return the root over leaves ``low`` to ``high``, a range that the tree's own shape cuts out."""
        width = high - low
        if width & (width - 1) == 0:
            at = (low // width) * _BYTES
            return bytes(self._levels[width.bit_length() - 1][at : at + _BYTES])
        middle = low + _split(width)
        return _node_hash(self._hash(low, middle), self._hash(middle, high))

    def _within(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise IndexError(f"the tree has {self.size} leaves, not {size}")
        return size


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Return True if an inclusion proof verifies (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, current = index, size - 1, leaf
    for other in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            current = _node_hash(other, current)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            current = _node_hash(current, other)
        node, last = node >> 1, last >> 1
    return last == 0 and current == root


def verify_consistency(older: int, older_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Return True if a log of ``older`` lines begins a log of ``size`` lines (RFC 9162, section 2.1.4.2)."""
    if not 0 <= older <= size:
        return False
    if older == size:
        return not path and older_root == root
    if older == 0:
        return not path and older_root == EMPTY_ROOT
    proof = [older_root, *path] if older & (older - 1) == 0 else list(path)
    if not path or not proof:
        return False
    node, last = older - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = proof[0]
    for other in proof[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = _node_hash(other, first), _node_hash(other, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = _node_hash(second, other)
        node, last = node >> 1, last >> 1
    return last == 0 and first == older_root and second == root


def _split(width: int) -> int:
    """Return the largest power of two below ``width``, where the tree's shape cuts a range of leaves."""
    return 1 << ((width - 1).bit_length() - 1)
