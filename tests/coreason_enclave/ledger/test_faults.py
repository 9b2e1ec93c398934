"""A killed process, a torn log, two processes at once: spend is never lost, never counted less, never twice."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from coreason_enclave.accounting import PoissonSampledGaussian
from coreason_enclave.errors import LedgerError, PrivacyBudgetExceededError
from coreason_enclave.ledger import LedgerHead, LineageRegistration, RoundPlan, SqliteLedger, verify_export

LINEAGE = "clinic/visits"
BINDING = "03" * 32
DIGEST = "ee" * 32
Plan = Callable[..., RoundPlan]
Registration = Callable[..., LineageRegistration]


class DyingConnection(sqlite3.Connection):
    """Kills its process, as power loss would, just before or just after the n-th statement."""

    fuse: ClassVar[int] = 0
    after: ClassVar[bool] = False

    def execute(self, *args: Any) -> sqlite3.Cursor:
        type(self).fuse -= 1
        if self.fuse == 0 and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        cursor = super().execute(*args)
        if self.fuse == 0 and self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        return cursor


def in_child(act: Callable[[], Any]) -> int:
    """Run ``act`` in a forked process; 0 if it returned, 3 if the budget was exceeded, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            act()
            code = 0
        except PrivacyBudgetExceededError:
            code = 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass
class Story:
    """What the child does, from a fresh copy of a ledger, until the fuse burns down."""

    folder: Path
    registration: LineageRegistration
    plan: RoundPlan

    @property
    def path(self) -> Path:
        return self.folder / "site" / "ledger.db"

    @property
    def trained(self) -> Path:
        return self.folder / "a-row-was-read"

    def live(self, factory: type[sqlite3.Connection] = sqlite3.Connection) -> SqliteLedger:
        ledger = SqliteLedger(self.path, clock=lambda: 1_700_000_000, connection_factory=factory)
        ledger.register(self.registration)
        reservation = ledger.reserve(LINEAGE, self.plan, BINDING, require_all=True)
        self.trained.touch()
        ledger.commit(reservation.reservation_id, reservation.event.with_steps(7), DIGEST)
        return ledger


@pytest.fixture
def baseline(tmp_path: Path, make_registration: Registration, make_plan: Plan) -> tuple[int, int]:
    """Spend of the uninterrupted story, open and committed. Also warms the accountant for the children."""
    ledger = SqliteLedger(tmp_path / "whole" / "ledger.db")
    ledger.register(make_registration())
    reservation = ledger.reserve(LINEAGE, make_plan(), BINDING, require_all=True)
    worst = ledger.lineage_claim(LINEAGE).spent_pico
    ledger.commit(reservation.reservation_id, reservation.event.with_steps(7), DIGEST)
    return worst, ledger.lineage_claim(LINEAGE).spent_pico


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_around_any_statement_the_account_is_whole_and_a_retry_pays_once(
    tmp_path: Path, make_registration: Registration, make_plan: Plan, baseline: tuple[int, int], after: bool
) -> None:
    worst, committed = baseline
    outcomes = []
    for fuse in range(1, 500):
        story = Story(tmp_path / str(fuse), make_registration(), make_plan())
        outcomes.append(in_child(lambda story=story, fuse=fuse: _burn(story, fuse, after)))

        survivor = SqliteLedger(story.path)
        verify_export(survivor.export())
        if story.trained.exists():
            assert survivor.lineage_claim(LINEAGE).spent_pico in (worst, committed)
        survivor.close()

        retried = story.live()
        assert retried.lineage_claim(LINEAGE).spent_pico == committed
        assert retried.head().seq == 3
        assert retried.job_claim(LINEAGE, "study-1").rounds == (0,)
        retried.close()
        shutil.rmtree(story.folder)
        if outcomes[-1] == 0:
            break
    assert outcomes[-1] == 0
    assert set(outcomes[:-1]) == {-signal.SIGKILL}
    assert len(outcomes) > 30


def _burn(story: Story, fuse: int, after: bool) -> None:
    DyingConnection.fuse, DyingConnection.after = fuse, after
    story.live(DyingConnection)


@pytest.fixture
def before_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves in the log what a process leaves there that dies between a commit and its checkpoint."""
    move, founding = SqliteLedger._move_log_into_file, None
    monkeypatch.setattr(
        SqliteLedger, "_move_log_into_file", lambda ledger: move(ledger) if ledger._state is founding else None
    )


@pytest.mark.usefixtures("before_its_checkpoint")
def test_a_torn_log_gives_a_prefix_of_the_history(tmp_path: Path, used: SqliteLedger, make_plan: Plan) -> None:
    for number in range(2, 6):
        used.reserve(LINEAGE, make_plan(round_number=number, steps=1), BINDING, require_all=True)
    rows = sqlite3.connect(used.path).execute("SELECT hash FROM entries ORDER BY seq").fetchall()
    history = [LedgerHead(seq=seq, hash=row[0]) for seq, row in enumerate(rows)]
    database, log = used.path.read_bytes(), used.path.with_name("ledger.db-wal").read_bytes()
    assert len(log) > 20_000

    seen = set()
    for cut in [*range(0, len(log), 1_031), len(log) - 1, len(log)]:
        folder = tmp_path / f"torn-{cut}"
        folder.mkdir(mode=0o700)
        (folder / "ledger.db").write_bytes(database)
        (folder / "ledger.db-wal").write_bytes(log[:cut])
        torn = SqliteLedger(folder / "ledger.db", must_exist=True)
        assert torn.head() in history
        seen.add(torn.head().seq)
        torn.close()
    # The founding entry is never in the log, so that a lost log cannot pass for a new ledger.
    assert seen == set(range(len(history)))


@pytest.mark.usefixtures("before_its_checkpoint")
def test_a_flipped_byte_in_the_log_never_shows_as_history(tmp_path: Path, used: SqliteLedger) -> None:
    head = used.head()
    database, log = used.path.read_bytes(), used.path.with_name("ledger.db-wal").read_bytes()
    for position in range(40, len(log), 2_053):
        folder = tmp_path / f"flipped-{position}"
        folder.mkdir(mode=0o700)
        (folder / "ledger.db").write_bytes(database)
        (folder / "ledger.db-wal").write_bytes(log[:position] + bytes([log[position] ^ 0x40]) + log[position + 1 :])
        flipped = SqliteLedger(folder / "ledger.db", must_exist=True)
        assert used.knows(flipped.head())
        assert flipped.head().seq <= head.seq
        flipped.close()


def _last_of_the_budget(path: Path, registration: LineageRegistration, plan: RoundPlan) -> int:
    """Spend until one round of ``plan`` is affordable and two are not; returns its steps."""
    ledger = SqliteLedger(path)
    ledger.register(registration)
    number = 0
    while ledger.affordable_steps(LINEAGE, plan) == plan.steps:
        job = {"job_id": f"before-{number}", "job_digest": f"{number:064x}"}
        ledger.reserve(LINEAGE, _with(plan, **job), BINDING, require_all=True)
        number += 1
    left = ledger.affordable_steps(LINEAGE, plan)
    ledger.close()
    return left


def _with(plan: RoundPlan, **changes: Any) -> RoundPlan:
    return RoundPlan(**{**vars(plan), **changes})


@pytest.mark.parametrize("attempt", range(4))
def test_of_two_processes_after_the_last_of_a_budget_exactly_one_wins(
    path: Path, make_registration: Registration, make_plan: Plan, attempt: int
) -> None:
    left = _last_of_the_budget(path, make_registration(), make_plan(steps=60))
    assert left > 1
    gate_read, gate_write = os.pipe()

    def race(name: str) -> None:
        ledger = SqliteLedger(path)
        os.read(gate_read, 1)
        ledger.reserve(LINEAGE, make_plan(job_id=name, steps=left), BINDING, require_all=True)

    children = []
    for name in ("left", "right"):
        children.append(os.fork())
        if children[-1] == 0:
            code = 99
            try:
                race(name)
                code = 0
            except PrivacyBudgetExceededError:
                code = 3
            finally:
                os._exit(code)
    os.write(gate_write, b"go")
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    assert sorted(codes) == [0, 3]
    claim = SqliteLedger(path).lineage_claim(LINEAGE)
    assert claim.remaining_pico >= 0
    assert len([job for job in claim.jobs if job in ("left", "right")]) == 1


def test_threads_of_one_process_pay_for_each_round_once(
    path: Path, make_registration: Registration, make_plan: Plan
) -> None:
    ledger = SqliteLedger(path)
    ledger.register(make_registration())
    granted, barrier = [], threading.Barrier(6)

    def spend(number: int) -> None:
        barrier.wait()
        plan = make_plan(round_number=number // 2, steps=5)
        granted.append(ledger.reserve(LINEAGE, plan, BINDING, require_all=True).recomputed)

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(granted) == [False] * 3 + [True] * 3
    assert ledger.job_claim(LINEAGE, "study-1").steps_counted == 15


def test_two_processes_see_each_others_entries(path: Path, make_registration: Registration, make_plan: Plan) -> None:
    here = SqliteLedger(path)
    here.register(make_registration())
    here.reserve(LINEAGE, make_plan(), BINDING, require_all=True)

    def there() -> None:
        SqliteLedger(path).reserve(LINEAGE, make_plan(round_number=1), BINDING, require_all=True)

    assert in_child(there) == 0
    assert here.job_claim(LINEAGE, "study-1").rounds == (0, 1)
    assert here.reserve(LINEAGE, make_plan(round_number=1), BINDING, require_all=True).recomputed


def test_a_killed_holder_frees_its_lineage(used: SqliteLedger) -> None:
    def hold_and_die() -> None:
        held = SqliteLedger(used.path).hold(LINEAGE)
        held.__enter__()
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(hold_and_die) == -signal.SIGKILL
    with used.hold(LINEAGE):
        pass


def test_a_holder_in_another_process_is_respected(used: SqliteLedger) -> None:
    def hold() -> None:
        with pytest.raises(LedgerError, match="in use by another session"), SqliteLedger(used.path).hold(LINEAGE):
            pass

    with used.hold(LINEAGE):
        assert in_child(hold) == 0


def test_a_ledger_that_crossed_a_fork_refuses(used: SqliteLedger) -> None:
    def touch() -> None:
        with pytest.raises(LedgerError, match="fork"):
            used.head()

    assert in_child(touch) == 0


def test_a_store_that_cannot_write_refuses_and_changes_nothing(used: SqliteLedger, make_plan: Plan) -> None:
    head = used.head()
    other = sqlite3.connect(used.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    used._connection.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(LedgerError, match="locked"):
        used.reserve(LINEAGE, make_plan(round_number=2), BINDING, require_all=True)
    other.execute("ROLLBACK")
    assert used.head() == head
    event = PoissonSampledGaussian(1.0, 0.05, 10)
    reservation = used.reserve(LINEAGE, make_plan(round_number=2), BINDING, require_all=True)
    assert reservation.event == event
