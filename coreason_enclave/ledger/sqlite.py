"""The durable ledger: one append-only SQLite table.

*Durability.* WAL with ``synchronous=FULL``: a committed entry has reached the disk. Each operation writes at most one
row, in one transaction, so killing the process at any point leaves the history before the operation or after it. After
each commit, the ledger moves the WAL into its own file, so that a copy of that file alone holds all entries. Only while
another connection reads may the last entries still lie in the WAL.

*One budget, many processes.* ``BEGIN IMMEDIATE`` takes SQLite's write lock before reading the state. Reading, checking
and appending thus form one step: of two sessions that compete for the last of a budget, the ledger refuses one. A
session can also :meth:`~SqliteLedger.hold` a lineage while spending on it, by locking a file next to the ledger. The
operating system frees the lock when the holder dies.

*Verification.* The ledger verifies the whole chain from its first entry at opening, and after any write by another
connection (``PRAGMA data_version``). Otherwise, the last row must equal the last row that this object wrote or
verified.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from coreason_enclave.errors import ConfigurationError, LedgerCorrupted, LedgerError
from coreason_enclave.ledger.chain import Link
from coreason_enclave.ledger.operations import Clock, Decision, EventSourcedLedger, next_link, system_clock
from coreason_enclave.ledger.state import LedgerState, follow
from coreason_enclave.system import file_lock, open_descriptor, sync_folder

_APPLICATION_ID = 0x43454C47  # "CELG"
_BUSY_MS = 10_000
_CHECKPOINT_MS = 250  # the longest that a reader may delay a commit
_TABLE = """
    CREATE TABLE entries (
        seq INTEGER PRIMARY KEY, prev TEXT NOT NULL, payload BLOB NOT NULL, hash TEXT NOT NULL
    ) STRICT
"""
_TRIGGER = """
    CREATE TRIGGER entries_without_{change} BEFORE {change} ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
"""
_SCHEMA = (
    _TABLE,
    _TRIGGER.format(change="UPDATE"),
    _TRIGGER.format(change="DELETE"),
    f"PRAGMA application_id = {_APPLICATION_ID}",
)
_ALL = "SELECT seq, prev, payload, hash FROM entries ORDER BY seq"
_LAST = "SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1"
_INSERT = "INSERT INTO entries (seq, prev, payload, hash) VALUES (?, ?, ?, ?)"


class SqliteLedger(EventSourcedLedger):
    """A site's ledger in one file.

    Args:
        path: the database; its folder is made with mode 0700, the file with 0600. A missing file becomes an empty
            ledger, without lineages and without budget.
        clock: whole seconds, recorded with each entry.
        must_exist: refuse a missing file instead of creating a ledger.
        connection_factory: SQLite's hook for observing statements.

    Raises:
        ConfigurationError: the file is missing (with ``must_exist``), its folder cannot be used, or others can write to
            the folder.
        LedgerCorrupted: the file holds no ledger, or its history does not verify.
        LedgerError: the file cannot be used now: locked, read-only, no space.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = system_clock,
        must_exist: bool = False,
        connection_factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        super().__init__(clock)
        self.path = Path(path)
        self._mutex = threading.RLock()
        self._pid = os.getpid()
        self._state: LedgerState | None = None
        self._data_version = -1
        self._closed = False
        _prepare_folder(self.path, must_exist=must_exist)
        with _sqlite_errors(self.path), file_lock(self._lock_path("opening"), wait=True):
            _prepare_file(self.path)
            self._connection = _connect(self.path, connection_factory)
            try:
                self._found_if_empty()
                self._verified()
                self._move_log_into_file()  # entries that a crash left in the WAL
            except BaseException:
                self._connection.close()
                raise

    @property
    def durable(self) -> bool:
        """Return True."""
        return True

    @contextmanager
    def hold(self, lineage: str) -> Iterator[None]:
        """See :meth:`.PrivacyLedger.hold`."""
        self._verified().lineage(lineage)
        name = hashlib.sha256(lineage.encode()).hexdigest()
        with file_lock(self._lock_path(name), wait=False) as taken:
            if not taken:
                raise LedgerError(f"lineage {lineage!r} is in use by another session: wait until that session ends")
            yield

    def close(self) -> None:
        """See :meth:`.PrivacyLedger.close`."""
        with self._mutex:
            self._closed = True
            self._connection.close()

    def _lock_path(self, name: str) -> Path:
        folder = self.path.with_name(self.path.name + ".locks")
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"{name}.lock"

    def _found_if_empty(self) -> None:
        """Create a ledger in an empty database; leave any other database to verification."""
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables:
            return
        if self._connection.execute("PRAGMA application_id").fetchone()[0]:
            raise LedgerCorrupted(f"{self.path} lost its ledger entries: restore a backup; a new ledger lacks them")
        link, _ = next_link(LedgerState(), self._founding())
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            self._connection.execute(statement)
        self._insert(link)
        self._connection.execute("COMMIT")
        # A WAL lost later must not leave an empty file, which reads as a new ledger.
        self._move_log_into_file()
        sync_folder(self.path.parent)

    def _verified(self) -> LedgerState:
        with self._transaction("BEGIN"):
            return self._read()

    def _append(self, decide: Decision) -> tuple[LedgerState, bool]:
        with self._mutex:
            with self._transaction("BEGIN IMMEDIATE"):
                state = self._read()
                entry = decide(state)
                if entry is None:
                    return state, False
                link, after = next_link(state, entry)
                self._insert(link)
            self._state = after
            self._move_log_into_file()
            return after, True

    def _move_log_into_file(self) -> None:
        """Checkpoint the WAL. Its entries are already durable; after a failure, the next checkpoint moves them."""
        with suppress(sqlite3.OperationalError):
            self._connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_MS}")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")

    def _links(self) -> Sequence[Link]:
        with self._transaction("BEGIN"):
            self._read()
            return [Link(*row) for row in self._connection.execute(_ALL)]

    def _hash_at(self, seq: int) -> str | None:
        with self._transaction("BEGIN"):
            self._read()
            row = self._connection.execute("SELECT hash FROM entries WHERE seq = ?", (seq,)).fetchone()
            return None if row is None else str(row[0])

    def _insert(self, link: Link) -> None:
        self._connection.execute(_INSERT, (link.seq, link.prev, link.payload, link.hash))

    def _read(self) -> LedgerState:
        """Return the verified state, within the caller's open transaction."""
        last = self._connection.execute(_LAST).fetchone()
        version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        known, self._state = self._state, None
        untouched = version == self._data_version and known is not None and known.head is not None
        if not untouched or known is None or known.head is None or last != (known.head.seq, known.head.hash):
            known = self._verify_all()
        self._state, self._data_version = known, version
        return known

    def _verify_all(self) -> LedgerState:
        state = LedgerState()
        for row in self._connection.execute(_ALL):
            state = follow(state, Link(*row))
        if state.head is None:
            raise LedgerCorrupted(f"{self.path} has no entries: its history was removed")
        return state

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        """Run the body in a transaction; a failure discards all changes, both on disk and in memory."""
        with self._mutex, _sqlite_errors(self.path):
            self._check_usable()
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._state = None
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _check_usable(self) -> None:
        if self._closed:
            raise LedgerError(f"the ledger {self.path} is closed: open it again")
        if os.getpid() != self._pid:
            raise LedgerError(f"the ledger {self.path} was opened before a fork: open it again in this process")


def _connect(path: Path, factory: type[sqlite3.Connection]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=factory)
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise LedgerError(f"{path} cannot use a write-ahead log: keep the ledger on a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _prepare_folder(path: Path, *, must_exist: bool) -> None:
    if must_exist and not path.is_file():
        raise ConfigurationError(f"ledger {path} does not exist: check the path")
    try:
        _make_folder(path.parent)
        mode = path.parent.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"the ledger's folder {path.parent} cannot be used: {error}") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"other users can write to the ledger's folder {path.parent}: run chmod 700 on it")


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and its missing parents, each durably."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def _prepare_file(path: Path) -> None:
    """Make the file private before SQLite opens it; the WAL inherits the mode."""
    try:
        with open_descriptor(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW) as descriptor:
            os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be opened for writing: {error}") from error


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """Turn sqlite3's passing errors into :class:`LedgerError`, and a damaged file into :class:`LedgerCorrupted`."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
        raise LedgerError(f"the ledger {path} cannot be used now: {error}") from error
    except sqlite3.Error as error:
        raise LedgerCorrupted(f"the file {path} is damaged or is not a ledger: {error}") from error
