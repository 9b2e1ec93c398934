"""An append-only log in which every line names the SHA-256 of the previous line.

The log holds one JSON object per line. ``prev`` holds the digest of the previous line's exact bytes (64 zeros for the
first line), so a verifier hashes the bytes as read and never re-serialises.

A chain alone does not reveal everything:

- A truncated end or a complete rewrite shows only against a signed checkpoint
  (:mod:`coreason_enclave.wire.checkpoints`). A checkpoint holds size, head and the root of a Merkle tree over the lines
  (RFC 9162).
- A rewrite with a stolen key shows only against a checkpoint in someone else's hands: see
  :mod:`coreason_enclave.witness`.

A crash may tear the last line (no line feed at the end). No caller got an acknowledgement for a torn line: the next
opening cuts the line off and records the cut in the log.
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

from coreason_enclave.crypto.encoding import canonical_json, parse_json, sha256_hex
from coreason_enclave.crypto.merkle import MerkleTree, leaf_hash
from coreason_enclave.errors import EnclaveError, EnvelopeError, Reason

GENESIS = "0" * 64

Clock = Callable[[], float]


class LogCorrupted(EnclaveError):
    """The chain, its numbering or its checkpoint fails verification, or the log cannot be written safely."""

    default_reason = Reason.LEDGER_CORRUPTED


@dataclass(frozen=True)
class LogHead:
    """Number of lines, and digest of the last line (hex)."""

    size: int
    head: str


@dataclass(frozen=True)
class LogSnapshot:
    """A log at one moment: head, tree root, and a proof that the tree continues an older tree.

    Attributes:
        since: size of the older tree.
        consistency: RFC 9162 proof between both sizes.
    """

    head: LogHead
    root: bytes
    since: int
    consistency: tuple[bytes, ...]


class HashLog:
    """A durable log with one writing process at a time.

    Every :meth:`append` reaches the disk (``fsync``) before returning. Threads of one process may share an instance.

    Raises:
        LogCorrupted: the existing file fails verification, or another process writes to the log.
    """

    def __init__(self, path: Path, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_exclusively(path)
        self._usable = True
        try:
            complete, torn = _split_torn(self._file.read())
            self._head, self._tree = _verified(path, complete), tree_of(complete)
            self._file.truncate(len(complete))
            self._file.seek(len(complete))
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
            LogCorrupted: an earlier write failed, so the content on disk is unknown.
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
        """Write and sync one line.

        After a failure the log refuses further lines: the failed line may be torn, or written without acknowledgement.
        """
        if not self._usable:
            raise LogCorrupted("an earlier write to the log failed: reopen the log, which recovers all complete lines")
        self._usable = False
        while line:
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())
        self._usable = True

    def snapshot(self, since: int = 0) -> LogSnapshot:
        """Return head, root and consistency proof, all of one size; a ``since`` beyond the end counts as 0."""
        with self._lock:
            size = self._head.size
            older = 0 if since > size else since
            return LogSnapshot(self._head, self._tree.root(size), older, tuple(self._tree.consistency(older, size)))

    def had(self, size: int, root: bytes) -> bool:
        """Return True if the tree over the first ``size`` lines has this root."""
        with self._lock:
            return size <= self._tree.size and self._tree.root(size) == root

    def close(self) -> None:
        """Release the file and its lock."""
        self._file.close()


def verify_lines(data: bytes) -> LogHead:
    """Check numbering and chain of a whole log, and return its head.

    Raises:
        LogCorrupted: names the first bad line.
    """
    head = LogHead(0, GENESIS)
    if data and not data.endswith(b"\n"):
        raise LogCorrupted("the last line is incomplete: the log was cut in the middle of a line")
    for line in data.split(b"\n")[:-1]:
        try:
            entry = parse_json(line)
        except EnvelopeError as error:
            raise LogCorrupted(f"line {head.size + 1} is not a log entry: {error}") from error
        seq = entry.get("seq")
        if type(seq) is not int or seq != head.size or entry.get("prev") != head.head:  # True == 1, 0.0 == 0
            raise LogCorrupted(f"line {head.size + 1} does not continue the chain: an entry was changed or removed")
        head = LogHead(head.size + 1, sha256_hex(line))
    return head


def tree_of(data: bytes) -> MerkleTree:
    """Return the Merkle tree over a log's complete lines; a leaf excludes the line feed."""
    tree = MerkleTree()
    for line in data.split(b"\n")[:-1]:
        tree.append(leaf_hash(line))
    return tree


def _verified(path: Path, complete: bytes) -> LogHead:
    """Return the head of a whole log; a refusal names file and remedy."""
    try:
        return verify_lines(complete)
    except LogCorrupted as error:
        raise LogCorrupted(f"{path}: {error}. Keep the file as evidence, and restore it from a backup") from error


def _open_exclusively(path: Path) -> FileIO:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    file = FileIO(descriptor, "r+")  # unbuffered: no later write may flush the rest of a failed write
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LogCorrupted(f"{path} is being written by another process: wait until that process ends") from None
    return file


def _split_torn(data: bytes) -> tuple[bytes, bytes]:
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]
