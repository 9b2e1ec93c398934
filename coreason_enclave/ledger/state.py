"""The ledger's state: a pure fold over its entries that checks all rules at each entry.

``apply(state, entry)`` serves two callers:

* before a write, a refusal means that the request breaks a rule;
* during a read, the same refusal means that the ledger is corrupt.

So every written ledger can be read, and no ledger can be read that could not have been written.

Invariants, each checked by :mod:`coreason_enclave.ledger.rules`:

1. The first entry, and no later entry, creates the ledger.
2. A lineage has one registration. Its caps may rise at its unchanged order, and never fall.
3. A reservation obeys its lineage's registration, and carries the terms of its job's first reservation.
4. A (job, round) has one reservation.
5. The steps of a job never exceed the number that its own cap affords.
6. A lineage's spend never exceeds its budget.
7. A reservation has at most one commit, with the reserved mechanism and no more steps than reserved.
8. A lost head has one acknowledgement, which returns no budget.
9. A draw belongs to a reserved, still open round, and uses the key of the job's first draw.
10. Only a ledger without lineages becomes a ledger of profile ``unattested``, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from coreason_enclave.accounting import Event, PoissonSampledGaussian
from coreason_enclave.errors import EnclaveError, LedgerCorrupted, LedgerError, Reason
from coreason_enclave.ledger import rules
from coreason_enclave.ledger.chain import Link, check_link
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
    parse_entry,
)
from coreason_enclave.ledger.records import (
    Acknowledgement,
    CapsRaise,
    Draw,
    LedgerHead,
    LineageRegistration,
    Plan,
)


@dataclass(frozen=True)
class LedgerRound:
    """One reserved round. ``actual`` holds the event that ran, None while the round is open."""

    reservation_id: str
    binding: str
    plan: Plan
    step_limit: int
    actual: Event | None = None
    update_digest: str | None = None

    @property
    def steps(self) -> int:
        """Return the steps that count: the reserved steps while open, the steps that ran once committed."""
        return self.actual.steps if isinstance(self.actual, PoissonSampledGaussian) else self.step_limit

    @property
    def event(self) -> Event:
        """Return the worst case while open, the event that ran once committed."""
        return self.plan.event(self.step_limit) if self.actual is None else self.actual


@dataclass(frozen=True)
class JobRecord:
    """One job on one lineage. ``allowed_steps`` and ``step_cost_pico`` are None for a non-private job."""

    first: Plan
    allowed_steps: int | None
    step_cost_pico: int | None
    rounds: Mapping[int, LedgerRound]
    draws: tuple[Draw, ...] = ()

    @property
    def steps(self) -> int:
        """Return the steps that count against the job's own cap."""
        return sum(record.steps for record in self.rounds.values())


@dataclass(frozen=True)
class LineageRecord:
    """One lineage: its registration, its budget, and all jobs that ran on it."""

    registration: LineageRegistration
    budget_pico: int
    spent_pico: int
    non_private: bool
    contents: tuple[str, ...]
    jobs: Mapping[str, JobRecord]
    raised: tuple[CapsRaise, ...] = ()

    @property
    def remaining_pico(self) -> int:
        """Return the rest of the budget; never negative."""
        return self.budget_pico - self.spent_pico


@dataclass(frozen=True)
class LedgerState:
    """The content of a verified history. The empty state precedes the first entry.

    ``unattested``: True for the ledger of a site under profile ``unattested``.
    """

    founded: Founded | None = None
    head: LedgerHead | None = None
    lineages: Mapping[str, LineageRecord] | None = None
    acknowledged: tuple[Acknowledgement, ...] = ()
    unattested: bool = False

    def lineage(self, name: str) -> LineageRecord:
        """Return the lineage's record; raise :class:`LedgerError` for an unknown lineage."""
        record = (self.lineages or {}).get(name)
        if record is None:
            raise LedgerError(
                f"lineage {name!r:.140} is unknown: register it with unit and caps", reason=Reason.LINEAGE_UNKNOWN
            )
        return record

    def job(self, lineage: str, job_id: str) -> JobRecord:
        """Return the job's record; raise :class:`LedgerError` for a job without a reservation."""
        job = self.lineage(lineage).jobs.get(job_id)
        if job is None:
            raise LedgerError(f"job {job_id!r:.140} has reserved nothing on lineage {lineage!r:.140}")
        return job

    def find(self, reservation_id: str) -> tuple[str, LedgerRound]:
        """Return (lineage, round) of a reservation, searching each lineage from its newest round.

        Raises:
            LedgerError: no such reservation.
        """
        for lineage, record in self._rounds():
            if record.reservation_id == reservation_id:
                return lineage, record
        raise LedgerError(f"no reservation {reservation_id!r:.80}: reserve the round before committing it")

    def _rounds(self) -> Iterator[tuple[str, LedgerRound]]:
        for name, lineage in (self.lineages or {}).items():
            for job in reversed(tuple(lineage.jobs.values())):
                yield from ((name, record) for record in reversed(tuple(job.rounds.values())))


def follow(state: LedgerState, link: Link) -> LedgerState:
    """Return the state after a stored row.

    Checks the chain, then the form, then the rules.

    Raises:
        LedgerCorrupted: a check fails.
    """
    check_link(state.head, link)
    entry = parse_entry(link.payload)
    try:
        after = apply(state, entry)
    except LedgerCorrupted:
        raise
    except EnclaveError as error:
        raise LedgerCorrupted(f"entry {link.seq} of the ledger breaks its rules: {error}") from error
    return replace(after, head=link.head)


def apply(state: LedgerState, entry: Entry) -> LedgerState:
    """Return the state after ``entry``; the caller sets its head. Raises the error of the broken rule."""
    rules.check_order(state.founded, entry)
    match entry:
        case Founded():
            return replace(state, founded=entry, lineages={})
        case Unattested():
            rules.check_no_history(not state.lineages and not state.unattested)
            return replace(state, unattested=True)
        case Registered():
            return _register(state, entry)
        case CapsRaised():
            return _with_lineage(state, _raise(state.lineage(entry.lineage), entry))
        case ContentNoted():
            return _with_lineage(
                state, _draw(state.lineage(entry.lineage), state.job(entry.lineage, entry.job_id), entry)
            )
        case Reserved() | ReservedNonPrivate():
            return _with_lineage(state, _reserve(state.lineage(entry.lineage), entry))
        case Committed():
            return _with_lineage(state, _commit(state.lineage(entry.lineage), entry))
        case Acknowledged():
            return _acknowledge(state, entry)


def _with_lineage(state: LedgerState, lineage: LineageRecord) -> LedgerState:
    return replace(state, lineages={**(state.lineages or {}), lineage.registration.lineage: lineage})


def _acknowledge(state: LedgerState, entry: Acknowledged) -> LedgerState:
    head = LedgerHead(seq=entry.head_seq, hash=entry.head_hash)
    rules.check_unacknowledged(head not in {known.head for known in state.acknowledged}, head)
    acknowledgement = Acknowledgement(head=head, by=entry.by, why=entry.why, time=entry.time)
    return replace(state, acknowledged=(*state.acknowledged, acknowledgement))


def _register(state: LedgerState, entry: Registered) -> LedgerState:
    known = (state.lineages or {}).get(entry.registration.lineage)
    rules.check_not_registered(None if known is None else known.registration, entry.registration)
    return _with_lineage(state, LineageRecord(entry.registration, entry.budget_pico, 0, False, (), {}))


def _raise(lineage: LineageRecord, entry: CapsRaised) -> LineageRecord:
    known = lineage.registration
    rules.check_raise(known, entry.caps)
    rules.check_budget_grows(lineage.budget_pico, entry)
    raised = CapsRaise(former=known.caps, former_budget_pico=lineage.budget_pico, why=entry.why, time=entry.time)
    return replace(
        lineage,
        registration=replace(known, caps=entry.caps),
        budget_pico=entry.budget_pico,
        raised=(*lineage.raised, raised),
    )


def _reserve(lineage: LineageRecord, entry: Reserved | ReservedNonPrivate) -> LineageRecord:
    plan = entry.plan
    rules.check_plan(lineage.registration, plan)
    job = lineage.jobs.get(plan.job_id)
    if job is not None:
        rules.check_terms(job.first, plan)
        rules.check_unreserved(job.rounds.get(plan.round_number) is None, plan)
    rules.check_reservation_id(entry.reservation_id, entry.lineage, plan, entry.binding)
    if isinstance(entry, ReservedNonPrivate):
        job = job or JobRecord(plan, None, None, {})
        record = LedgerRound(entry.reservation_id, entry.binding, plan, entry.plan.steps)
        return replace(_with_round(lineage, job, record), non_private=True)
    job = job or JobRecord(plan, entry.allowed_steps, entry.step_cost_pico, {})
    rules.check_price(job.allowed_steps, job.step_cost_pico, entry)
    rules.check_limit(entry, job.steps, lineage.remaining_pico)
    record = LedgerRound(entry.reservation_id, entry.binding, plan, entry.step_limit)
    spent = lineage.spent_pico + entry.step_limit * entry.step_cost_pico
    return replace(_with_round(lineage, job, record), spent_pico=spent)


def _draw(lineage: LineageRecord, job: JobRecord, entry: ContentNoted) -> LineageRecord:
    record = job.rounds.get(entry.round_number)
    rules.check_draw(
        is_reserved=record is not None,
        is_open=record is not None and record.actual is None,
        key_marks={draw.key_mark for draw in job.draws},
        entry=entry,
    )
    draw = Draw(round_number=entry.round_number, content_mark=entry.content_mark, key_mark=entry.key_mark)
    known = lineage.contents
    contents = known if draw.content_mark in known else (*known, draw.content_mark)
    drawn = replace(job, draws=(*job.draws, draw))
    return replace(lineage, contents=contents, jobs={**lineage.jobs, entry.job_id: drawn})


def _commit(lineage: LineageRecord, entry: Committed) -> LineageRecord:
    job = lineage.jobs.get(entry.job_id)
    record = None if job is None else job.rounds.get(entry.round_number)
    if job is None or record is None or record.reservation_id != entry.reservation_id:
        raise LedgerError(f"nothing is reserved for job {entry.job_id!r:.140}, round {entry.round_number}")
    rules.check_uncommitted(record.actual is None, record.plan)
    rules.check_actual(record.plan.event(record.step_limit), entry.event)
    after = replace(record, actual=entry.event, update_digest=entry.update_digest)
    refund = (record.steps - after.steps) * (job.step_cost_pico or 0)
    return replace(_with_round(lineage, job, after), spent_pico=lineage.spent_pico - refund)


def _with_round(lineage: LineageRecord, job: JobRecord, record: LedgerRound) -> LineageRecord:
    job = replace(job, rounds={**job.rounds, record.plan.round_number: record})
    return replace(lineage, jobs={**lineage.jobs, record.plan.job_id: job})
