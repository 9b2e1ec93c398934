"""A history that does not verify is refused by every operation; files are private to the site."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.accounting import PoissonSampledGaussian
from coreason_enclave.crypto.encoding import canonical_json, parse_json
from coreason_enclave.errors import ConfigurationError, LedgerCorrupted, LedgerError
from coreason_enclave.ledger import Draw, LineageRegistration, RoundPlan, SqliteLedger
from coreason_enclave.ledger.chain import make_link
from coreason_enclave.ledger.entries import parse_entry
from coreason_enclave.ledger.records import LedgerHead

LINEAGE = "clinic/visits"
BINDING = "03" * 32


def tamper(path: Path, *statements: str) -> None:
    """What somebody with write access to the file could do."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("DROP TRIGGER IF EXISTS entries_without_UPDATE")
    database.execute("DROP TRIGGER IF EXISTS entries_without_DELETE")
    for statement in statements:
        database.execute(statement)
    database.close()


TAMPERINGS = {
    "a limit lowered": (
        "UPDATE entries SET payload = CAST(replace(payload, '\"step_limit\":10', '\"step_limit\":1') AS BLOB)"
    ),
    "a hash changed": (
        "UPDATE entries SET hash = CASE substr(hash, 1, 1) WHEN 'f' THEN '0' ELSE 'f' END || substr(hash, 2)"
        " WHERE seq = 1"
    ),
    "a link changed": f"UPDATE entries SET prev = '{'0' * 64}' WHERE seq = 2",
    "an entry removed from the middle": "DELETE FROM entries WHERE seq = 2",
    "the founding entry removed": "DELETE FROM entries WHERE seq = 0",
    "everything removed": "DELETE FROM entries",
    "the last entries moved": "UPDATE entries SET seq = seq + 10 WHERE seq > 2",
    "a payload that is not JSON": "UPDATE entries SET payload = x'ff' WHERE seq = 1",
    "the table removed": "DROP TABLE entries",
}


@pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_a_tampered_history_is_refused_when_opened_and_while_open(
    used: SqliteLedger, make_registration: Callable[..., LineageRegistration], make_plan: Any, statement: str
) -> None:
    tamper(used.path, statement)
    event = PoissonSampledGaussian(1.0, 0.05, 1)
    operations: list[Callable[[], Any]] = [
        lambda: used.register(make_registration()),
        lambda: used.reserve(LINEAGE, make_plan(round_number=5), BINDING, require_all=True),
        lambda: used.commit(BINDING, event, None),
        lambda: used.note_draw(LINEAGE, "study-1", Draw(round_number=1, content_mark=BINDING, key_mark=BINDING)),
        lambda: used.draws(LINEAGE, "study-1"),
        lambda: used.acknowledge(LedgerHead(seq=9, hash=BINDING), "A. Ito", "the disk failed"),
        lambda: used.affordable_steps(LINEAGE, make_plan()),
        lambda: used.lineage_claim(LINEAGE),
        lambda: used.job_claim(LINEAGE, "study-1"),
        lambda: used.registration(LINEAGE),
        used.head,
        used.export,
        lambda: used.knows(LedgerHead(seq=0, hash=BINDING)),
    ]
    # SQLite itself reports a missing table, as something that cannot be used rather than as something false.
    expected = LedgerError if "DROP" in statement else LedgerCorrupted
    for operation in operations:
        with pytest.raises(expected):
            operation()
    with pytest.raises(LedgerCorrupted):
        SqliteLedger(used.path)


def entry(**changes: Any) -> dict[str, Any]:
    base = {
        "type": "reserved",
        "version": 1,
        "time": 1,
        "lineage": LINEAGE,
        "reservation_id": "00" * 32,
        "binding": BINDING,
        "step_limit": 10,
        "allowed_steps": 68,
        "step_cost_pico": 11_416_268_885,
        "plan": {
            "job_id": "study-1",
            "job_digest": "ab" * 32,
            "round_number": 2,
            "unit": "person",
            "noise_multiplier": 1.0,
            "sample_rate": 0.05,
            "steps": 10,
            "total_steps": 100,
            "target_epsilon": 3.0,
            "delta": 1e-5,
            "noise_source": "site_keystream",
        },
    }
    return {**base, **changes}


def with_plan(**changes: Any) -> dict[str, Any]:
    document = entry()
    return {**document, "plan": {**document["plan"], **changes}}


UNREADABLE: dict[str, Any] = {
    "an unknown type": entry(type="refund"),
    "an unknown version": entry(version=2),
    "no type": {key: value for key, value in entry().items() if key != "type"},
    "an unknown field": entry(discount=1),
    "an unknown field within the plan": with_plan(discount=1),
    "a negative limit": entry(step_limit=-10),
    "a negative cost": entry(step_cost_pico=-1),
    "no cost": entry(step_cost_pico=0),
    "a cost beyond what JSON readers keep": entry(step_cost_pico=2**53),
    "a cost as a float": entry(step_cost_pico=1.5),
    "a cost as text": entry(step_cost_pico="1"),
    "a negative noise multiplier": with_plan(noise_multiplier=-1.0),
    "negative time": entry(time=-1),
    "an unknown unit": with_plan(unit="household"),
    "an unknown noise source": with_plan(noise_source="dice"),
    "a lineage that climbs": entry(lineage="../other"),
    "a list": [entry()],
}


@pytest.mark.parametrize("document", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_entry_that_is_not_understood_corrupts_the_ledger(document: Any) -> None:
    with pytest.raises(LedgerCorrupted):
        parse_entry(canonical_json(document))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    payload = canonical_json(with_plan(noise_multiplier=7.25)).replace(b"7.25", text.encode())
    with pytest.raises(LedgerCorrupted):
        parse_entry(payload)


def test_a_field_named_twice_is_refused() -> None:
    payload = canonical_json(entry()).replace(b'"step_limit":10', b'"step_limit":10,"step_limit":1')
    with pytest.raises(LedgerCorrupted, match="twice"):
        parse_entry(payload)


def committed(**changes: Any) -> dict[str, Any]:
    event = {"type": "poisson_sampled_gaussian", "noise_multiplier": 1.0, "sample_rate": 0.05, "steps": 10}
    fields = {
        "type": "committed",
        "version": 1,
        "time": 1,
        "lineage": LINEAGE,
        "job_id": "study-1",
        "round_number": 1,
        "reservation_id": "00" * 32,
        "event": event,
        "update_digest": None,
    }
    return {**fields, **changes}


# Each is a well-formed entry with a correct hash: only the rules can see that it is false.
FORGERIES: dict[str, dict[str, Any]] = {
    "a second founding": {"type": "founded", "version": 1, "time": 1, "ledger_id": "aa" * 32, "durable": True},
    "a reservation under a false name": entry(),
    "a commit of what was not reserved": committed(round_number=9),
    "a commit under a false name": committed(),
    "content of an unknown lineage": {
        "type": "content_noted",
        "version": 1,
        "time": 1,
        "lineage": "elsewhere",
        "job_id": "study-1",
        "round_number": 1,
        "content_mark": "aa" * 32,
        "key_mark": "bb" * 32,
    },
    "content of a round that was never reserved": {
        "type": "content_noted",
        "version": 1,
        "time": 1,
        "lineage": LINEAGE,
        "job_id": "study-1",
        "round_number": 77,
        "content_mark": "aa" * 32,
        "key_mark": "bb" * 32,
    },
}


def forge(path: Path, document: dict[str, Any]) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    seq, digest = database.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    link = make_link(LedgerHead(seq=seq, hash=digest), canonical_json(document))
    database.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (link.seq, link.prev, link.payload, link.hash))
    database.close()


@pytest.mark.parametrize("document", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_well_hashed_entry_that_breaks_a_rule_is_refused(used: SqliteLedger, document: dict[str, Any]) -> None:
    forge(used.path, document)
    with pytest.raises(LedgerCorrupted):
        used.head()
    with pytest.raises(LedgerCorrupted):
        SqliteLedger(used.path)


def last_payload(path: Path) -> dict[str, Any]:
    row = sqlite3.connect(path).execute("SELECT payload FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return parse_json(row[0])


def test_a_forged_refund_of_a_real_reservation_is_refused(used: SqliteLedger) -> None:
    real = last_payload(used.path)
    event = {"type": "poisson_sampled_gaussian", "noise_multiplier": 1.0, "sample_rate": 0.05, "steps": 11}
    forge(used.path, committed(reservation_id=real["reservation_id"], event=event))
    with pytest.raises(LedgerCorrupted, match="11 steps ran"):
        used.head()


def test_the_table_itself_refuses_changes(used: SqliteLedger) -> None:
    database = sqlite3.connect(used.path)
    for statement in ("UPDATE entries SET seq = 99 WHERE seq = 1", "DELETE FROM entries"):
        with pytest.raises(sqlite3.DatabaseError, match="append-only"):
            database.execute(statement)


def test_a_cut_off_end_is_not_visible_locally_but_to_whoever_kept_a_head(used: SqliteLedger) -> None:
    shown = used.head()
    tamper(used.path, "DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)")
    restored = SqliteLedger(used.path)
    assert restored.head().seq == shown.seq - 1
    assert not restored.knows(shown)


def test_an_end_removed_through_the_ledgers_own_connection_is_noticed(used: SqliteLedger) -> None:
    kept = used.head().seq - 1
    used._connection.execute("DROP TRIGGER entries_without_DELETE")
    used._connection.execute(f"DELETE FROM entries WHERE seq > {kept}")
    assert used.head().seq == kept  # re-read from the table, not remembered
    assert used.lineage_claim(LINEAGE).open_reservations == 0


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"not a database at all, but long enough to be looked at " * 40)
    with pytest.raises(LedgerCorrupted, match="not a ledger"):
        SqliteLedger(path)


def test_a_foreign_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE patients (name TEXT)")
    foreign.commit()
    foreign.close()
    with pytest.raises(LedgerError):
        SqliteLedger(path)
    assert sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall() == [("patients",)]


def test_a_missing_ledger_is_refused_where_one_is_expected(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        SqliteLedger(path, must_exist=True)
    assert not path.exists()


def test_the_folder_and_every_file_are_private(used: SqliteLedger) -> None:
    assert stat.S_IMODE(used.path.parent.stat().st_mode) == 0o700
    for file in used.path.parent.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600)


def test_a_loose_file_is_made_private_and_a_folder_that_others_write_to_is_refused(used: SqliteLedger) -> None:
    used.close()
    used.path.chmod(0o644)
    SqliteLedger(used.path).close()
    assert stat.S_IMODE(used.path.stat().st_mode) == 0o600
    used.path.parent.chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        SqliteLedger(used.path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path, used: SqliteLedger) -> None:
    link = used.path.with_name("link.db")
    link.symlink_to(used.path)
    with pytest.raises(LedgerError, match="cannot be opened"):
        SqliteLedger(link)


BAD_VALUES: dict[str, Callable[[Any, Any], Any]] = {
    "caps without a number": lambda r, p: p(target_epsilon=float("nan")),
    "a delta no smaller than one over the units": lambda r, p: r(nominal_units=100_000),
    "a lineage that climbs": lambda r, p: r(lineage="../visits"),
    "an absolute lineage": lambda r, p: r(lineage="/visits"),
    "no units": lambda r, p: r(nominal_units=0),
    "order one": lambda r, p: r(filter_order=1),
    "a fractional order": lambda r, p: r(filter_order=4.5),
    "a job id with a slash": lambda r, p: p(job_id="a/b"),
    "a job digest that is none": lambda r, p: p(job_digest="abc"),
    "no steps": lambda r, p: p(steps=0),
    "more steps than the schedule": lambda r, p: p(steps=101),
    "steps as truth": lambda r, p: p(steps=True),
    "a negative round": lambda r, p: p(round_number=-1),
    "infinite noise": lambda r, p: p(noise_multiplier=float("inf")),
    "a rate above one": lambda r, p: p(sample_rate=1.1),
}


@pytest.mark.parametrize("make", BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_value_that_means_nothing_is_refused_when_it_is_made(
    make: Callable[[Any, Any], Any],
    make_registration: Callable[..., LineageRegistration],
    make_plan: Callable[..., RoundPlan],
) -> None:
    with pytest.raises(ConfigurationError):
        make(make_registration, make_plan)
