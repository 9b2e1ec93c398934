"""The port through which everything else sees a privacy ledger.

Every method either does what it says and has made it durable, or raises and has changed nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from coreason_enclave.accounting.events import Event
from coreason_enclave.ledger.records import (
    Draw,
    JobClaim,
    LedgerHead,
    LineageClaim,
    LineageRegistration,
    Plan,
    Reservation,
)

__all__ = ["PrivacyLedger"]


class PrivacyLedger(Protocol):
    """A site's account of privacy spent, per data lineage.

    Every method may raise :class:`~coreason_enclave.errors.LedgerCorrupted` (the history does not verify;
    every later call raises it too) and :class:`~coreason_enclave.errors.LedgerError` (the store cannot be
    used now).
    """

    @property
    def durable(self) -> bool:
        """Whether the account survives this process."""
        ...

    def register(self, registration: LineageRegistration) -> None:
        """Name a lineage and fix its caps. Registering the identical thing again does nothing.

        Raises:
            LedgerConflict: the lineage is registered otherwise. Caps are fixed; no registration opens new
            budget.
        """
        ...

    def registration(self, lineage: str) -> LineageRegistration:
        """The registration of ``lineage``.

        Raises:
            LedgerError: nothing is registered under that name (reason ``lineage_unknown``).
        """
        ...

    def note_draw(self, lineage: str, job_id: str, draw: Draw) -> None:
        """Record what a reserved round draws from, before it does. A new content never opens new budget.

        The same as the job's last draw is noted once.

        Raises:
            LedgerConflict: the job drew under another key before (reason ``job_key_changed``).
            LedgerError: the round is not reserved.
        """
        ...

    def draws(self, lineage: str, job_id: str) -> tuple[Draw, ...]:
        """What the job drew from so far, in order; nothing for a job that the ledger does not know."""
        ...

    def affordable_steps(self, lineage: str, plan: Plan) -> int:
        """The step limit that :meth:`reserve` would grant now: 0 where a cap is reached. Reserves nothing.

        Raises what :meth:`reserve` raises for a plan that it would refuse for another reason than the budget.
        """
        ...

    def reserve(self, lineage: str, plan: Plan, binding: str, require_all: bool) -> Reservation:
        """Charge the worst case of one round, before any row is read.

        The same (job, round) with the same ``binding`` is the same computation: it is returned again with
        ``recomputed=True`` and counted once. What is never committed stays spent.

        Args:
            lineage: a registered lineage.
            plan: the round at its worst.
            binding: SHA-256 (hex) of everything that determines the bytes that the round will release.
            require_all: refuse instead of granting fewer than ``plan.steps``.

        Raises:
            PrivacyBudgetExceededError: a cap does not afford a single step (with ``require_all``: every
            step).
            LedgerConflict: the round was reserved for another computation, or the job's terms have changed.
            JobRejected: the plan breaks a rule of the lineage: unit, delta, epsilon of a job, or non-private.
            LedgerError: the lineage is unknown (reason ``lineage_unknown``).
        """
        ...

    def recall(self, lineage: str, plan: Plan, binding: str) -> Reservation | None:
        """What :meth:`reserve` would return again for this very computation; None where it was never reserved.

        Changes nothing. Raises ``LedgerError`` where the lineage is unknown, ``LedgerConflict`` where the round was
        reserved for another computation.
        """
        ...

    def commit(self, reservation_id: str, actual: Event, update_digest: str | None) -> None:
        """Record what the round ran. Committing the same again does nothing.

        The lineage's filter gets back what did not run. ``update_digest`` is the SHA-256 (hex) of the
        released update, or None where nothing was released.

        Raises:
            LedgerConflict: another mechanism, more steps than reserved, or other values than those committed.
            LedgerError: no such reservation.
        """
        ...

    def lineage_claim(self, lineage: str) -> LineageClaim:
        """What holds for the lineage over all of its jobs."""
        ...

    def job_claim(self, lineage: str, job_id: str) -> JobClaim:
        """What holds for one job. Raises ``LedgerError`` if the job never reserved anything."""
        ...

    def hold(self, lineage: str) -> AbstractContextManager[None]:
        """Hold the lineage while spending on it; freed by the operating system if the process dies.

        Raises:
            LedgerError: another session holds it.
        """
        ...

    def head(self) -> LedgerHead:
        """The last entry's number and hash."""
        ...

    def knows(self, head: LedgerHead) -> bool:
        """Whether ``head`` is in this history, or acknowledged. One that was shown and is not reveals a rollback."""
        ...

    def acknowledge(self, head: LedgerHead, by: str, why: str) -> None:
        """Record that a person goes on with a history that lacks ``head``. A known head needs none: nothing happens.

        Gives nothing back: what was forgotten stays spent on the data, and no claim of this ledger covers it.

        Args:
            head: the last entry that was forgotten.
            by: the person, one line.
            why: the reason, one line.

        Raises:
            ConfigurationError: nobody is named, no reason is given, or the head is none.
        """
        ...

    def export(self) -> bytes:
        """All entries, verbatim, and the head, as canonical JSON; see ``verify_export``."""
        ...

    def close(self) -> None:
        """Release what the ledger holds; using it afterwards raises ``LedgerError``."""
        ...
