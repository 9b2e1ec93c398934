"""A database file gives its room back beside a process that uses it, and what cannot be tidied stops nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.runtimes.flower.storage import SuperLinkStorage

MEGABYTE = 1 << 20


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "superlink.sqlite"


@contextlib.contextmanager
def in_use(database: Path) -> Iterator[sqlite3.Connection]:
    """SuperLink's own kind of connection, with a table of objects."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS objects (content BLOB)")
        yield connection


def on_disk(database: Path) -> int:
    return sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*"))


def consume(connection: sqlite3.Connection, megabytes: int) -> None:
    connection.execute("INSERT INTO objects VALUES (zeroblob(?))", (megabytes * MEGABYTE,))
    connection.execute("DELETE FROM objects")


def test_room_is_given_back_while_the_database_is_in_use(database: Path) -> None:
    storage = SuperLinkStorage(database)
    storage.prepare()
    assert database.stat().st_mode & 0o777 == 0o600
    with in_use(database) as connection:
        consume(connection, 40)
        grown = on_disk(database)
        storage.tidy()

        assert (grown > 40 * MEGABYTE, on_disk(database) < 2 * MEGABYTE) == (True, True)
        assert connection.execute("SELECT count(*) FROM objects").fetchone() == (0,)


def test_a_database_of_an_older_version_is_converted_and_keeps_its_rows(database: Path) -> None:
    with in_use(database) as connection:
        consume(connection, 20)
        connection.execute("INSERT INTO objects VALUES (x'2a')")
    storage = SuperLinkStorage(database)
    storage.prepare()

    assert on_disk(database) < MEGABYTE
    with in_use(database) as connection:
        assert connection.execute("SELECT content FROM objects").fetchall() == [(b"\x2a",)]
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_little_is_left_alone(database: Path) -> None:
    storage = SuperLinkStorage(database)
    storage.prepare()
    with in_use(database) as connection:
        consume(connection, 2)
        before = on_disk(database)
        storage.tidy()

        assert on_disk(database) == before


def test_a_database_that_is_locked_missing_or_damaged_stops_nothing(database: Path, tmp_path: Path) -> None:
    storage = SuperLinkStorage(database)
    storage.tidy()
    assert not database.exists()
    storage.prepare()
    with in_use(database) as connection:
        consume(connection, 20)
        connection.execute("BEGIN IMMEDIATE")
        storage.tidy()
        connection.execute("ROLLBACK")
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all" * 1000)
    SuperLinkStorage(damaged).prepare()
    SuperLinkStorage(damaged).tidy()
    SuperLinkStorage(tmp_path / "no folder" / "superlink.sqlite").prepare()

    assert damaged.read_bytes().startswith(b"no database at all")
