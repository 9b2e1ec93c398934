"""Backs up a ledger in use: verifies the copy before naming it, and never overwrites another file.

SQLite's own backup gives a copy of one moment, even while other processes write.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from coreason_enclave.errors import ConfigurationError, LedgerError
from coreason_enclave.ledger.export import ExportFindings, verify_export
from coreason_enclave.ledger.sqlite import SqliteLedger
from coreason_enclave.system import PRIVATE, create_file


def back_up(ledger: Path, copy: Path) -> ExportFindings:
    """Copy ``ledger`` to ``copy`` (mode 0600, durable on return), and return the verified content of the copy.

    Raises:
        ConfigurationError: no ledger exists, ``copy`` exists, or its folder cannot be written to.
        LedgerCorrupted: the ledger or the copy does not verify.
        LedgerError: the ledger cannot be read now, or the copy lacks entries that the ledger had before.
    """
    if copy.exists() or copy.is_symlink():
        raise ConfigurationError(f"{copy} exists: a backup never overwrites a file; choose another name")
    with closing(SqliteLedger(ledger, must_exist=True)) as source:
        before = source.head()
    try:
        with TemporaryDirectory(dir=copy.parent, prefix=f".{copy.name}.") as folder:
            draft = Path(folder) / "ledger.sqlite"
            _copy(ledger, draft)
            with closing(SqliteLedger(draft, must_exist=True)) as copied:
                findings = verify_export(copied.export(), expected_head=before)
            create_file(copy, draft.read_bytes(), mode=PRIVATE)
    except FileExistsError as error:
        raise ConfigurationError(f"{copy} exists: a backup never overwrites a file; choose another name") from error
    except OSError as error:
        raise ConfigurationError(f"cannot write {copy}: {error.strerror}") from error
    return findings


def _copy(ledger: Path, draft: Path) -> None:
    try:
        with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(draft)) as target:
            source.backup(target)
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger {ledger} cannot be copied now: {error}") from error
