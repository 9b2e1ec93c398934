"""Returns the free space of SuperLink's database to the file system while SuperLink runs.

SuperLink deletes a message's objects after confirmation, but the files keep their size:

- SQLite reuses free pages and never shortens a file by itself;
- the write-ahead file keeps its maximum length.

This module creates the database with ``auto_vacuum = INCREMENTAL``, a mode that SQLite accepts only before the first
table. The supervisor then returns free pages in small steps, so that SuperLink never waits noticeably.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_INCREMENTAL = 2
_STEP_PAGES = 512
_STEPS = 32
_LARGE_BYTES = 8 << 20
"""Threshold for action: free bytes in a database, and size of its write-ahead file."""
_WAIT_S = 0.1

_log = logging.getLogger(__name__)


class SuperLinkStorage:
    """One database file of SuperLink.

    Args:
        database: the file; SQLite keeps the write-ahead file ``<name>-wal`` next to the database.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._write_ahead = database.with_name(f"{database.name}-wal")

    def prepare(self) -> None:
        """Create or convert the database and return every free page. Call only while no SuperLink uses the file."""
        with _log_failures(), self._opened(wait_s=5.0) as database:
            if _number(database, "auto_vacuum") != _INCREMENTAL:
                database.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
                database.execute("VACUUM")  # rewrites the file, which makes the mode permanent
            _release_pages(database)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._database.chmod(0o600)

    def tidy(self) -> None:
        """Return free pages to the file system if they exceed 8 MiB. SuperLink may run meanwhile."""
        if not self._database.exists():
            return
        with _log_failures(), self._opened(wait_s=_WAIT_S) as database:
            free = _number(database, "freelist_count") * _number(database, "page_size") > _LARGE_BYTES
            if free:
                for _ in range(_STEPS):
                    _release_pages(database, _STEP_PAGES)
            if free or self._write_ahead_bytes() > _LARGE_BYTES:  # a checkpoint shortens the file
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _write_ahead_bytes(self) -> int:
        try:
            return self._write_ahead.stat().st_size
        except FileNotFoundError:
            return 0

    def _opened(self, wait_s: float) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(self._database, timeout=wait_s, isolation_level=None))


@contextlib.contextmanager
def _log_failures() -> Iterator[None]:
    """Log and skip a busy or damaged database. SuperLink itself reports the damage."""
    try:
        yield
    except sqlite3.OperationalError as error:
        _log.info("SuperLink's database was not compacted this time: %s", error)
    except sqlite3.DatabaseError as error:
        _log.warning("SuperLink's database cannot be compacted: %s", error)


def _release_pages(database: sqlite3.Connection, max_pages: int = 0) -> None:
    """Return at most ``max_pages`` free pages; 0 returns all.

    Runs as a script, because ``execute`` would stop after the first page.
    """
    database.executescript(f"PRAGMA incremental_vacuum({max_pages})")


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])
