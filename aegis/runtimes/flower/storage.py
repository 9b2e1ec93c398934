"""SuperLink's database on disk: the room of consumed messages returns to the file system while SuperLink runs.

SuperLink deletes a message's objects once they are confirmed, and keeps the room: SQLite reuses free pages and never
shortens a file by itself, and its write-ahead file stays as long as it once was. Here the database is made so that free
pages can be given back (``auto_vacuum = INCREMENTAL``, which has to be chosen before its first table), and the
supervisor gives them back in small steps, so that SuperLink waits for none of them noticeably.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SuperLinkStorage"]

_INCREMENTAL = 2
_STEP_PAGES = 512
_STEPS = 32
_LARGE_BYTES = 8 << 20
"""What a database may have free, and its write-ahead file may hold, before something is done about it."""
_WAIT_S = 0.1

_log = logging.getLogger(__name__)


class SuperLinkStorage:
    """One database file.

    Args:
        database: the file; SQLite keeps the write-ahead file ``<name>-wal`` next to the database.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._write_ahead = database.with_name(f"{database.name}-wal")

    def prepare(self) -> None:
        """Make or convert the database and return every free page; call only while no SuperLink uses the file."""
        with _or_another_time(), self._opened(wait_s=5.0) as database:
            if _number(database, "auto_vacuum") != _INCREMENTAL:
                database.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
                database.execute("VACUUM")  # rewrites the file: the choice holds from here on
            _give_back(database)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._database.chmod(0o600)

    def tidy(self) -> None:
        """Return free pages to the file system where they exceed 8 MiB; SuperLink may run meanwhile."""
        if not self._database.exists():
            return
        with _or_another_time(), self._opened(wait_s=_WAIT_S) as database:
            free = _number(database, "freelist_count") * _number(database, "page_size") > _LARGE_BYTES
            if free:
                for _ in range(_STEPS):
                    _give_back(database, _STEP_PAGES)
            if free or self._write_ahead_bytes() > _LARGE_BYTES:  # pages leave the file when they are checkpointed
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _write_ahead_bytes(self) -> int:
        try:
            return self._write_ahead.stat().st_size
        except FileNotFoundError:
            return 0

    def _opened(self, wait_s: float) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(self._database, timeout=wait_s, isolation_level=None))


@contextlib.contextmanager
def _or_another_time() -> Iterator[None]:
    """A database that is busy, or damaged, is left alone: SuperLink itself says what is wrong with a damaged one."""
    try:
        yield
    except sqlite3.OperationalError as error:
        _log.info("SuperLink's database is not tidied now: %s", error)
    except sqlite3.DatabaseError as error:
        _log.warning("SuperLink's database cannot be tidied: %s", error)


def _give_back(database: sqlite3.Connection, max_pages: int = 0) -> None:
    """Return at most ``max_pages`` free pages, 0 for all. As a script: ``execute`` would stop after the first page."""
    database.executescript(f"PRAGMA incremental_vacuum({max_pages})")


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])
