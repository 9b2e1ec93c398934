"""The interface through which all other code sees a privacy ledger.

Each method either completes durably, or raises and changes no state.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from coreason_enclave.accounting import Event
from coreason_enclave.ledger.records import (
    Draw,
    JobClaim,
    LedgerHead,
    LineageCaps,
    LineageClaim,
    LineageRegistration,
    Plan,
    Reservation,
)
from coreason_enclave.schemas import Profile


class PrivacyLedger(Protocol):
    """A site's account of privacy spent, per data lineage.

    All methods may raise :class:`~coreason_enclave.errors.LedgerCorrupted` (the history does not verify; all later
    calls raise the same error) and :class:`~coreason_enclave.errors.LedgerError` (the store cannot be used now).
    """

    @property
    def durable(self) -> bool:
        """Return True if the account survives this process."""
        ...

    def keep_profile(self, profile: Profile) -> None:
        """Make an empty ledger a ledger of ``profile``, or check that it is one. Repeating changes nothing.

        Only profile ``unattested`` leaves an entry; ``development`` and ``production`` keep a ledger free of it.

        Raises:
            LedgerConflict: the ledger began under another profile.
        """
        ...

    def register(self, registration: LineageRegistration) -> None:
        """Register a lineage and fix its caps. Repeating an identical registration changes nothing.

        Raises:
            LedgerConflict: the lineage has a different registration. Caps stay fixed; no registration opens new budget.
        """
        ...

    def raise_caps(self, lineage: str, caps: LineageCaps, why: str) -> None:
        """Raise the caps of a registered lineage, for all jobs from now on. The caps in force change nothing.

        The lineage keeps its order. Steps that were spent stay spent, and the guarantee from now on is the raised cap
        over all jobs, since a promise that was raised later was never kept by its first number.

        Args:
            why: the reason, one line; part of the ledger for good.

        Raises:
            LedgerConflict: a cap would fall, or ``delta`` would reach 1 / nominal_units.
            ConfigurationError: ``why`` is empty, too long or not one line.
            LedgerError: the lineage is unknown.
        """
        ...

    def registration(self, lineage: str) -> LineageRegistration:
        """Return the registration of ``lineage``.

        Raises:
            LedgerError: no lineage has that name (reason ``lineage_unknown``).
        """
        ...

    def note_draw(self, lineage: str, job_id: str, draw: Draw) -> None:
        """Record the content and key of a reserved round before the round samples rows.

        New content never opens new budget. The ledger records a repetition of the job's last draw only once.

        Raises:
            LedgerConflict: the job used another key before (reason ``job_key_changed``), or the round was committed
                with another draw.
            LedgerError: the round has no reservation.
        """
        ...

    def draws(self, lineage: str, job_id: str) -> tuple[Draw, ...]:
        """Return the job's draws so far, in order; empty for an unknown job."""
        ...

    def affordable_steps(self, lineage: str, plan: Plan) -> int:
        """Return the step limit that :meth:`reserve` would grant to a new round now; 0 at a reached cap.

        Reserves no step. Raises as :meth:`reserve` does for an unknown lineage, a plan against the lineage's rules or
        changed job terms.
        """
        ...

    def reserve(self, lineage: str, plan: Plan, binding: str, require_all: bool) -> Reservation:
        """Charge the worst case of one round before the round reads any row.

        The same (job, round) with the same ``binding`` means the same computation: the ledger returns the reservation
        again with ``recomputed=True`` and counts it once. An uncommitted round stays spent.

        Args:
            lineage: a registered lineage.
            plan: the round at its worst.
            binding: SHA-256 (hex) of all inputs that determine the bytes of the round's release.
            require_all: refuse instead of granting fewer than ``plan.steps``.

        Raises:
            PrivacyBudgetExceededError: a cap does not afford a single step (with ``require_all``: all steps).
            LedgerConflict: the round was reserved for another computation, or the job's terms have changed.
            JobRejected: the plan breaks a rule of the lineage: unit, delta, epsilon of a job, or non-private.
            LedgerError: the lineage is unknown (reason ``lineage_unknown``).
        """
        ...

    def recall(self, lineage: str, plan: Plan, binding: str) -> Reservation | None:
        """Return the reservation that :meth:`reserve` would repeat for exactly this computation, or None without one.

        Changes no state.

        Raises:
            LedgerError: the lineage is unknown.
            LedgerConflict: the round was reserved for another computation.
        """
        ...

    def commit(self, reservation_id: str, actual: Event, update_digest: str | None) -> None:
        """Record the event that the round ran. Committing the same values again changes nothing.

        The lineage's filter gets back the cost of steps that did not run. ``update_digest``: SHA-256 (hex) of the
        released update, or None without a release.

        Raises:
            LedgerConflict: another mechanism, more steps than reserved, or values that differ from the committed
                values.
            LedgerError: the reservation does not exist.
        """
        ...

    def lineage_claim(self, lineage: str) -> LineageClaim:
        """Return the claim for the lineage over all of its jobs."""
        ...

    def job_claim(self, lineage: str, job_id: str) -> JobClaim:
        """Return the claim for one job.

        Raises:
            LedgerError: the job never reserved a round.
        """
        ...

    def hold(self, lineage: str) -> AbstractContextManager[None]:
        """Hold the lineage while spending on it; the operating system frees the hold if the process dies.

        Raises:
            LedgerError: another session holds the lineage.
        """
        ...

    def head(self) -> LedgerHead:
        """Return the last entry's number and hash."""
        ...

    def knows(self, head: LedgerHead) -> bool:
        """Return True if this history contains or acknowledges ``head``.

        A head that this site once published and this history does not know reveals a rollback.
        """
        ...

    def acknowledge(self, head: LedgerHead, by: str, why: str) -> None:
        """Record that a person continues with a history that lacks ``head``. A known head changes nothing.

        The acknowledgement returns no budget: the lost spend stays spent on the data, and no claim of this ledger
        covers it.

        Args:
            head: the last lost entry.
            by: the person, one line.
            why: the reason, one line.

        Raises:
            ConfigurationError: ``by`` or ``why`` is empty, too long or not one line, or ``head`` is malformed.
        """
        ...

    def export(self) -> bytes:
        """Return all entries verbatim, and the head, as canonical JSON; see ``verify_export``."""
        ...

    def close(self) -> None:
        """Release the ledger's resources; later calls raise ``LedgerError``."""
        ...
