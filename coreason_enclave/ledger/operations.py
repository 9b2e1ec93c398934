"""Implements the ledger's interface over an abstract append-only store, so that all ledgers obey one set of rules.

Each writing operation has four steps:

1. read a verified state;
2. decide on one entry;
3. apply the entry by the rules;
4. append the entry.

A store runs the four steps as one transaction: a refusal changes nothing, and a crash leaves the whole operation or no
part of it.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from coreason_enclave.accounting import Event
from coreason_enclave.errors import ConfigurationError, LedgerConflict, LedgerError
from coreason_enclave.ledger import claims, rules
from coreason_enclave.ledger.chain import Link, make_link
from coreason_enclave.ledger.entries import (
    Acknowledged,
    CapsRaised,
    Committed,
    ContentNoted,
    Entry,
    Founded,
    Registered,
    Reserved,
    ReservedNonPrivate,
    Unattested,
)
from coreason_enclave.ledger.export import write_export
from coreason_enclave.ledger.pricing import Price, budget_pico, price
from coreason_enclave.ledger.records import (
    Draw,
    JobClaim,
    LedgerHead,
    LineageCaps,
    LineageClaim,
    LineageRegistration,
    NonPrivatePlan,
    Plan,
    Reservation,
    RoundPlan,
    require_hex_digest,
)
from coreason_enclave.ledger.state import JobRecord, LedgerState, LineageRecord, apply, follow
from coreason_enclave.schemas import Profile, explained

Clock = Callable[[], int]
Decision = Callable[[LedgerState], Entry | None]


def system_clock() -> int:
    """Return whole seconds since 1970 UTC."""
    return int(time.time())


class EventSourcedLedger(ABC):
    """The operations of :class:`~coreason_enclave.ledger.interface.PrivacyLedger`.

    A store adds ``durable``, ``hold``, ``close`` and the four methods ``_verified``, ``_append``, ``_links`` and
    ``_hash_at``.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @property
    @abstractmethod
    def durable(self) -> bool:
        """Return True if the account survives this process."""

    @abstractmethod
    def hold(self, lineage: str) -> AbstractContextManager[None]:
        """Hold the lineage while spending on it."""

    @abstractmethod
    def close(self) -> None:
        """Release the ledger's resources."""

    @abstractmethod
    def _verified(self) -> LedgerState:
        """Return the state from a consistent, verified read."""

    @abstractmethod
    def _append(self, decide: Decision) -> tuple[LedgerState, bool]:
        """Decide and append in one exclusive transaction; return the state after, and True if a row was added."""

    @abstractmethod
    def _links(self) -> Sequence[Link]:
        """Return all rows from a consistent, verified read."""

    @abstractmethod
    def _hash_at(self, seq: int) -> str | None:
        """Return the hash of one verified entry, or None without such an entry."""

    def keep_profile(self, profile: Profile) -> None:
        """See :meth:`.PrivacyLedger.keep_profile`."""

        def decide(state: LedgerState) -> Entry | None:
            if profile is Profile.UNATTESTED:
                return None if state.unattested else Unattested(time=self._now())
            rules.check_attested(state.unattested, profile)
            return None

        self._append(decide)

    def register(self, registration: LineageRegistration) -> None:
        """See :meth:`.PrivacyLedger.register`."""
        budget = budget_pico(registration)

        def decide(state: LedgerState) -> Entry | None:
            known = (state.lineages or {}).get(registration.lineage)
            if known is not None and _is_registered_as(known, registration):
                return None
            return Registered(time=self._now(), registration=registration, budget_pico=budget)

        self._append(decide)

    def raise_caps(self, lineage: str, caps: LineageCaps, why: str) -> None:
        """See :meth:`.PrivacyLedger.raise_caps`."""

        def decide(state: LedgerState) -> Entry | None:
            known = state.lineage(lineage).registration
            if known.caps == caps:
                return None
            rules.check_raise(known, caps)
            budget = budget_pico(replace(known, caps=caps))
            with explained(lambda problem: ConfigurationError(f"not a raise of caps: {problem}")):
                return CapsRaised(time=self._now(), lineage=lineage, caps=caps, budget_pico=budget, why=why)

        self._append(decide)

    def registration(self, lineage: str) -> LineageRegistration:
        """See :meth:`.PrivacyLedger.registration`."""
        return self._verified().lineage(lineage).registration

    def note_draw(self, lineage: str, job_id: str, draw: Draw) -> None:
        """See :meth:`.PrivacyLedger.note_draw`."""
        for name in ("content_mark", "key_mark"):
            require_hex_digest(name, getattr(draw, name))

        def decide(state: LedgerState) -> Entry | None:
            if _is_noted(state.job(lineage, job_id), draw):
                return None
            return ContentNoted(time=self._now(), lineage=lineage, job_id=job_id, **vars(draw))

        self._append(decide)

    def draws(self, lineage: str, job_id: str) -> tuple[Draw, ...]:
        """See :meth:`.PrivacyLedger.draws`."""
        job = self._verified().lineage(lineage).jobs.get(job_id)
        return () if job is None else job.draws

    def affordable_steps(self, lineage: str, plan: Plan) -> int:
        """See :meth:`.PrivacyLedger.affordable_steps`."""
        record = self._verified().lineage(lineage)
        quoted = _quote(record, plan)
        if isinstance(plan, NonPrivatePlan) or quoted is None:
            return plan.steps
        return max(0, min(plan.steps, *_left(record, plan, quoted)))

    def reserve(self, lineage: str, plan: Plan, binding: str, require_all: bool) -> Reservation:
        """See :meth:`.PrivacyLedger.reserve`."""
        require_hex_digest("binding", binding)
        # The price may take a second and rests on facts that never change: compute it before locking the store.
        quoted = _quote(self._verified().lineage(lineage), plan)

        def decide(state: LedgerState) -> Entry | None:
            return self._decide_reservation(state.lineage(lineage), plan, binding, require_all, quoted)

        state, appended = self._append(decide)
        return _reservation(state.lineage(lineage), plan, recomputed=not appended)

    def recall(self, lineage: str, plan: Plan, binding: str) -> Reservation | None:
        """See :meth:`.PrivacyLedger.recall`."""
        record = self._verified().lineage(lineage)
        job = record.jobs.get(plan.job_id)
        reserved = None if job is None else job.rounds.get(plan.round_number)
        if reserved is None:
            return None
        rules.check_same_computation((reserved.binding, reserved.plan), (binding, plan))
        return _reservation(record, plan, recomputed=True)

    def _decide_reservation(
        self, record: LineageRecord, plan: Plan, binding: str, require_all: bool, quoted: Price | None
    ) -> Entry | None:
        """Return the entry that reserves a round, or None for a retry.

        1. The plan must obey the lineage's rules.
        2. The plan must keep the job's terms.
        3. A retry reuses the existing reservation.
        4. Both caps must afford the round.
        """
        lineage = record.registration.lineage
        rules.check_plan(record.registration, plan)
        job = record.jobs.get(plan.job_id)
        if job is not None:
            rules.check_terms(job.first, plan)
            reserved = job.rounds.get(plan.round_number)
            if reserved is not None:
                rules.check_same_computation((reserved.binding, reserved.plan), (binding, plan))
                if require_all and isinstance(reserved.plan, RoundPlan):
                    rules.grant(lineage, reserved.plan, reserved.step_limit, reserved.step_limit, require_all=True)
                return None
        name = rules.reservation_id(lineage, plan, binding)
        if isinstance(plan, NonPrivatePlan) or quoted is None:
            return _non_private_entry(self._now(), lineage, name, binding, plan)
        limit = rules.grant(lineage, plan, *_left(record, plan, quoted), require_all=require_all)
        return Reserved(
            time=self._now(),
            lineage=lineage,
            reservation_id=name,
            binding=binding,
            plan=plan,
            step_limit=limit,
            allowed_steps=quoted.allowed_steps,
            step_cost_pico=quoted.step_cost_pico,
        )

    def commit(self, reservation_id: str, actual: Event, update_digest: str | None) -> None:
        """See :meth:`.PrivacyLedger.commit`."""
        if update_digest is not None:
            require_hex_digest("update_digest", update_digest)

        def decide(state: LedgerState) -> Entry | None:
            lineage, record = state.find(reservation_id)
            if record.actual is not None:
                rules.check_uncommitted((record.actual, record.update_digest) == (actual, update_digest), record.plan)
                return None
            return Committed(
                time=self._now(),
                lineage=lineage,
                job_id=record.plan.job_id,
                round_number=record.plan.round_number,
                reservation_id=reservation_id,
                event=actual,
                update_digest=update_digest,
            )

        self._append(decide)

    def lineage_claim(self, lineage: str) -> LineageClaim:
        """See :meth:`.PrivacyLedger.lineage_claim`."""
        return claims.lineage_claim(self._verified(), lineage)

    def job_claim(self, lineage: str, job_id: str) -> JobClaim:
        """See :meth:`.PrivacyLedger.job_claim`."""
        return claims.job_claim(self._verified(), lineage, job_id)

    def head(self) -> LedgerHead:
        """See :meth:`.PrivacyLedger.head`."""
        head = self._verified().head
        if head is None:
            raise LedgerError("the ledger has no entries")
        return head

    def knows(self, head: LedgerHead) -> bool:
        """See :meth:`.PrivacyLedger.knows`."""
        return self._hash_at(head.seq) == head.hash or _is_acknowledged(self._verified(), head)

    def acknowledge(self, head: LedgerHead, by: str, why: str) -> None:
        """See :meth:`.PrivacyLedger.acknowledge`."""
        if self.knows(head):
            return
        with explained(lambda problem: ConfigurationError(f"not an acknowledgement: {problem}")):
            entry = Acknowledged(time=self._now(), head_seq=head.seq, head_hash=head.hash, by=by, why=why)
        self._append(lambda state: None if _is_acknowledged(state, head) else entry)

    def export(self) -> bytes:
        """See :meth:`.PrivacyLedger.export`."""
        return write_export(self._links())

    def _now(self) -> int:
        return int(self._clock())

    def _founding(self) -> Founded:
        return Founded(time=self._now(), ledger_id=secrets.token_hex(32), durable=self.durable)


def next_link(state: LedgerState, entry: Entry) -> tuple[Link, LedgerState]:
    """Return the row for ``entry`` and the state after it, using the same rules that will read the row back."""
    apply(state, entry)
    link = make_link(state.head, entry.canonical())
    return link, follow(state, link)


def _is_acknowledged(state: LedgerState, head: LedgerHead) -> bool:
    return any(known.head == head for known in state.acknowledged)


def _is_registered_as(known: LineageRecord, registration: LineageRegistration) -> bool:
    """Return True for the known registration; raised caps keep the order that was best for the first caps."""
    order = known.registration.filter_order if known.raised else registration.filter_order
    return known.registration == replace(registration, filter_order=order)


def _quote(record: LineageRecord, plan: Plan) -> Price | None:
    """Return the job's price: recorded for a job that has begun, else computed; None for a non-private plan."""
    rules.check_plan(record.registration, plan)
    job = record.jobs.get(plan.job_id)
    if job is not None:
        rules.check_terms(job.first, plan)
    if isinstance(plan, NonPrivatePlan):
        return None
    if job is None:
        return price(plan, record.registration.filter_order)
    if job.allowed_steps is None or job.step_cost_pico is None:
        raise LedgerConflict(f"job {plan.job_id!r} began as a non-private job: start another job")
    return Price(job.allowed_steps, job.step_cost_pico)


def _left(record: LineageRecord, plan: RoundPlan, quoted: Price) -> tuple[int, int]:
    """Return the steps that the job's own cap and the lineage's budget still afford."""
    job = record.jobs.get(plan.job_id)
    return (
        quoted.allowed_steps - (0 if job is None else job.steps),
        record.remaining_pico // quoted.step_cost_pico,
    )


def _is_noted(job: JobRecord, draw: Draw) -> bool:
    """Return True if the draw repeats the job's last draw, or, in a recomputation, a committed round's last draw."""
    committed = draw.round_number in job.rounds and job.rounds[draw.round_number].actual is not None
    of_round = [noted for noted in job.draws if noted.round_number == draw.round_number]
    return draw in job.draws[-1:] or (committed and draw in of_round[-1:])


def _non_private_entry(now: int, lineage: str, name: str, binding: str, plan: Plan) -> ReservedNonPrivate:
    if not isinstance(plan, NonPrivatePlan):
        raise LedgerError("a private round without a price cannot be reserved")
    return ReservedNonPrivate(time=now, lineage=lineage, reservation_id=name, binding=binding, plan=plan)


def _reservation(record: LineageRecord, plan: Plan, *, recomputed: bool) -> Reservation:
    rounds = record.jobs[plan.job_id].rounds
    mine = rounds[plan.round_number]
    earlier = list(rounds.values())[: list(rounds).index(plan.round_number)]
    private = plan if isinstance(plan, RoundPlan) else None
    return Reservation(
        reservation_id=mine.reservation_id,
        lineage=record.registration.lineage,
        job_id=plan.job_id,
        round_number=plan.round_number,
        event=plan.event(mine.step_limit),
        step_limit=mine.step_limit,
        prior_events=tuple(other.event for other in earlier),
        recomputed=recomputed,
        actual=mine.actual,
        update_digest=mine.update_digest,
        target_epsilon=None if private is None else private.target_epsilon,
        delta=None if private is None else private.delta,
        unit=plan.unit,
        neighboring_relation=record.registration.neighboring_relation,
        noise_source=None if private is None else private.noise_source,
    )
