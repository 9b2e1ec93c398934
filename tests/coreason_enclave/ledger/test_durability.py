"""A committed entry is on the disk, in the ledger's own file, and every connection is set up so."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from coreason_enclave.errors import ConfigurationError, LedgerCorrupted
from coreason_enclave.ledger import LineageRegistration, RoundPlan, SqliteLedger, verify_export
from coreason_enclave.ledger.backup import back_up
from coreason_enclave.main import main

LINEAGE = "clinic/visits"
FULL = 2
Plan = Callable[..., RoundPlan]


class Kept(sqlite3.Connection):
    """Every connection that a ledger opened, for questions."""

    all: ClassVar[list[sqlite3.Connection]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.all.append(self)


def settings_of(connection: sqlite3.Connection) -> tuple[str, int]:
    return tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous"))  # type: ignore[return-value]


def test_every_connection_of_a_ledger_syncs_each_commit(
    path: Path, make_registration: Callable[..., LineageRegistration], make_plan: Plan
) -> None:
    Kept.all.clear()
    for number in range(2):  # founded, and opened again
        with closing(SqliteLedger(path, connection_factory=Kept)) as ledger:
            assert settings_of(Kept.all[-1]) == ("wal", FULL)
            ledger.register(make_registration())
            ledger.reserve(LINEAGE, make_plan(round_number=number), "01" * 32, require_all=True)
            assert settings_of(Kept.all[-1]) == ("wal", FULL)
    assert len(Kept.all) == 2


def test_after_each_commit_the_file_alone_holds_every_entry(
    tmp_path: Path, used: SqliteLedger, make_plan: Plan
) -> None:
    for number in range(2, 5):
        used.reserve(LINEAGE, make_plan(round_number=number, steps=1), "03" * 32, require_all=True)
        folder = tmp_path / f"copy-{number}"
        folder.mkdir(mode=0o700)
        shutil.copy(used.path, folder / "ledger.db")
        with closing(SqliteLedger(folder / "ledger.db", must_exist=True)) as copy:
            assert verify_export(copy.export(), expected_head=used.head()).head == used.head()


def test_what_a_crash_left_in_the_log_is_moved_when_the_ledger_is_opened(
    tmp_path: Path, used: SqliteLedger, make_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteLedger, "_move_log_into_file", lambda self: None)
    used.reserve(LINEAGE, make_plan(round_number=2, steps=1), "03" * 32, require_all=True)
    folder = tmp_path / "crashed"
    folder.mkdir(mode=0o700)
    for end in ("", "-wal"):
        shutil.copy(f"{used.path}{end}", folder / f"ledger.db{end}")
    monkeypatch.undo()

    with closing(SqliteLedger(folder / "ledger.db", must_exist=True)) as opened:
        assert opened.head() == used.head()
        assert (folder / "ledger.db-wal").stat().st_size == 0


def test_a_reader_that_stays_does_not_hold_up_a_commit_and_no_entry_is_lost(
    used: SqliteLedger, make_plan: Plan
) -> None:
    with closing(sqlite3.connect(used.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        began = time.monotonic()
        used.reserve(LINEAGE, make_plan(round_number=2, steps=1), "03" * 32, require_all=True)
        assert time.monotonic() - began < 5
        assert used.head().seq == 5
    used.reserve(LINEAGE, make_plan(round_number=3, steps=1), "04" * 32, require_all=True)
    assert used.path.with_name("ledger.db-wal").stat().st_size == 0


def test_a_new_ledger_its_folders_and_their_names_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = set[str](), os.fsync

    def noting(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    SqliteLedger(tmp_path / "a" / "b" / "ledger.db").close()

    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= synced


def test_a_backup_of_a_ledger_in_use_holds_every_entry_and_is_private(used: SqliteLedger, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"

    findings = back_up(used.path, copy)

    assert findings.head == used.head()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.sqlite", "site"]
    with closing(SqliteLedger(copy, must_exist=True)) as restored:
        assert restored.head() == used.head()


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_backup_never_replaces_a_file(used: SqliteLedger, tmp_path: Path, what: str) -> None:
    taken = tmp_path / "taken"
    if what == "file":
        taken.write_bytes(b"older backup")
    else:
        taken.symlink_to(tmp_path / "nowhere")

    with pytest.raises(ConfigurationError, match="never overwrites a file"):
        back_up(used.path, taken)

    assert not (tmp_path / "nowhere").exists()
    assert what == "link" or taken.read_bytes() == b"older backup"


def test_a_damaged_ledger_is_not_backed_up(used: SqliteLedger, tmp_path: Path) -> None:
    with closing(sqlite3.connect(used.path)) as connection:
        connection.execute("DROP TRIGGER entries_without_update")
        connection.execute("UPDATE entries SET hash = ? WHERE seq = 1", ("00" * 32,))
        connection.commit()

    with pytest.raises(LedgerCorrupted):
        back_up(used.path, tmp_path / "copy.sqlite")

    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_the_backup_command_prints_the_head_and_refuses_in_one_line(used: SqliteLedger, tmp_path: Path) -> None:
    copy, head = tmp_path / "copy.sqlite", used.head()

    done = CliRunner().invoke(main, ["ledger", "backup", str(used.path), "--out", str(copy), "--json"])
    again = CliRunner().invoke(main, ["ledger", "backup", str(used.path), "--out", str(copy)])
    nowhere = CliRunner().invoke(main, ["ledger", "backup", str(used.path), "--out", str(tmp_path / "no" / "copy")])
    text = CliRunner().invoke(main, ["ledger", "backup", str(used.path), "--out", str(tmp_path / "other")])

    assert json.loads(done.output)["head"] == {"seq": head.seq, "hash": head.hash}
    assert f"head {head.seq}:{head.hash}" in text.output
    for refused in (again, nowhere):
        assert refused.exit_code == 2
        assert "Traceback" not in refused.output
        assert len(refused.output.strip().splitlines()) <= 3
