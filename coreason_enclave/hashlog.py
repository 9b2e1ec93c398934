"""An append-only log in which every line names the SHA-256 of the line before it.

One JSON object a line. ``prev`` is the digest of the previous line's exact bytes (64 zeros for the first), so a
verifier hashes what it reads and never re-serialises. A chain alone does not show that its end was cut off or
that all of it was rewritten: :meth:`HashLog.checkpoint` signs size, head and the root of a Merkle tree over the lines
(RFC 9162), and whoever keeps an older checkpoint elsewhere sees both, by a short proof and without the lines. A rewrite
with a stolen key is visible only against such an external copy: see :mod:`coreason_enclave.witness`.

A line torn by a crash (no line feed at the end) was never acknowledged: it is cut off on the next opening, and
the cut is recorded in the log itself.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from coreason_enclave.checkpoints import CHECKPOINT_TYPE, LogCheckpoint, LogProof, LogSeen, parse_checkpoint
from coreason_enclave.encoding import canonical_json, parse_json, sha256_hex
from coreason_enclave.envelope import KeyRing, open_envelope, seal
from coreason_enclave.errors import EnclaveError, EnvelopeError, Reason
from coreason_enclave.keys import Signer
from coreason_enclave.merkle import MerkleTree, leaf_hash

__all__ = [
    "CHECKPOINT_TYPE",
    "GENESIS",
    "HashLog",
    "LogCorrupted",
    "LogHead",
    "tree_of",
    "verify_checkpoint",
    "verify_lines",
]

GENESIS = "0" * 64

Clock = Callable[[], float]


class LogCorrupted(EnclaveError):
    """The chain, its numbering or its checkpoint does not verify."""

    default_reason = Reason.LEDGER_CORRUPTED


@dataclass(frozen=True)
class LogHead:
    """Number of lines and digest of the last one: what a checkpoint signs."""

    size: int
    head: str


class HashLog:
    """A durable log with one writing process at a time.

    Every :meth:`append` is on disk (``fsync``) before it returns. Threads of one process may share an instance.

    Raises:
        LogCorrupted: the existing file does not verify, or another process is writing to it.
    """

    def __init__(self, path: Path, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_exclusively(path)
        self._usable = True
        try:
            whole, torn = _split_torn(self._file.read())
            self._head, self._tree = verify_lines(whole), tree_of(whole)
            self._file.truncate(len(whole))
            self._file.seek(len(whole))
        except BaseException:
            self._file.close()
            raise
        if torn:
            self.append(actor="log", action="recovered", outcome="truncated", details={"bytes_cut": len(torn)})

    @property
    def head(self) -> LogHead:
        """Size and head after the last acknowledged line."""
        return self._head

    def append(
        self,
        *,
        actor: str,
        action: str,
        outcome: str,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> LogHead:
        """Write one event (JSON types only) and return the new head.

        Raises:
            LogCorrupted: an earlier write failed, so that nobody knows what reached the disk.
        """
        with self._lock:
            line = canonical_json(
                {
                    "seq": self._head.size,
                    "time": round(self._clock(), 3),
                    "actor": actor,
                    "action": action,
                    "outcome": outcome,
                    "reason": reason,
                    "details": dict(details or {}),
                    "prev": self._head.head,
                }
            )
            self._write(line + b"\n")
            self._head = LogHead(self._head.size + 1, sha256_hex(line))
            self._tree.append(leaf_hash(line))
            return self._head

    def _write(self, line: bytes) -> None:
        """Write and sync; a line that may be torn, or written and not acknowledged, is never written after."""
        if not self._usable:
            raise LogCorrupted("an earlier write to the log failed: open it again, which recovers what is whole")
        self._usable = False
        while line:
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())
        self._usable = True

    def checkpoint(self, signer: Signer, origin: str) -> bytes:
        """A signed statement of size, head and root, as an envelope to be kept beside the log and elsewhere.

        Args:
            origin: the log's identity, under which others keep its checkpoints.
        """
        with self._lock:
            newest = self._checkpoint(origin)
        return seal(CHECKPOINT_TYPE, newest.canonical(), signer)

    def shown_to(self, seen: LogSeen | None, signer: Signer, origin: str) -> tuple[bytes, LogProof]:
        """A checkpoint, and the proof that the log continues what somebody saw before.

        The proof of a checkpoint that this log never had is the nearest that there is, and convinces nobody.
        """
        with self._lock:  # one size for both
            newest = self._checkpoint(origin)
            since = 0 if seen is None or seen.size > newest.size else seen.size
            path = self._tree.consistency(since, newest.size)
        proof = LogProof(since=since, hashes=tuple(each.hex() for each in path))
        return seal(CHECKPOINT_TYPE, newest.canonical(), signer), proof

    def had(self, seen: LogSeen) -> bool:
        """Whether the log's first ``seen.size`` lines have this root."""
        with self._lock:
            return seen.size <= self._tree.size and self._tree.root(seen.size).hex() == seen.root

    def _checkpoint(self, origin: str) -> LogCheckpoint:
        head = self._head
        return LogCheckpoint(origin=origin, size=head.size, head=head.head, root=self._tree.root(head.size).hex())

    def close(self) -> None:
        """Release the file and its lock."""
        self._file.close()


def verify_lines(data: bytes) -> LogHead:
    """Check numbering and chain of a whole log; raises :class:`LogCorrupted` naming the first bad line."""
    head = LogHead(0, GENESIS)
    if data and not data.endswith(b"\n"):
        raise LogCorrupted("the last line is incomplete: the log was cut in the middle of a line")
    for line in data.split(b"\n")[:-1]:
        try:
            entry = parse_json(line)
        except EnvelopeError as error:
            raise LogCorrupted(f"line {head.size + 1} is not a log entry: {error}") from error
        seq = entry.get("seq")
        if type(seq) is not int or seq != head.size or entry.get("prev") != head.head:  # true and 0.0 equal a number
            raise LogCorrupted(f"line {head.size + 1} does not continue the chain: an entry was changed or removed")
        head = LogHead(head.size + 1, sha256_hex(line))
    return head


def verify_checkpoint(data: bytes, checkpoint: bytes, keys: KeyRing) -> LogHead:
    """Check that the log's first lines are exactly what a checkpoint signed; later lines may follow.

    Raises:
        LogCorrupted: lines are missing or differ. EnvelopeError: the checkpoint itself is not authentic.
    """
    signed = parse_checkpoint(open_envelope(checkpoint, CHECKPOINT_TYPE, keys).payload)
    lines = data.split(b"\n")[:-1]
    size, head = signed.size, signed.head
    if size > len(lines):
        raise LogCorrupted(f"the checkpoint covers {size} lines, the log has {len(lines)}: lines were cut off")
    if head != (sha256_hex(lines[size - 1]) if size else GENESIS) or signed.root != tree_of(data).root(size).hex():
        raise LogCorrupted("the log does not agree with its signed checkpoint: it was rewritten")
    return LogHead(size, head)


def tree_of(data: bytes) -> MerkleTree:
    """The Merkle tree over a log's whole lines; a leaf is a line without its line feed."""
    tree = MerkleTree()
    for line in data.split(b"\n")[:-1]:
        tree.append(leaf_hash(line))
    return tree


def _open_exclusively(path: Path) -> FileIO:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    file = FileIO(descriptor, "r+")  # unbuffered: a failed write leaves nothing behind that a later one would flush
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LogCorrupted(f"{path} is being written by another process: wait for it to end") from None
    return file


def _split_torn(data: bytes) -> tuple[bytes, bytes]:
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]
