"""Derives privacy claims from a verified ledger state."""

from __future__ import annotations

from collections.abc import Iterable

from coreason_enclave.accounting import (
    Accountant,
    ClientGuarantee,
    ComposedEpsilon,
    Guarantee,
    PoissonSampledGaussian,
    compose_epsilon,
)
from coreason_enclave.ledger.pricing import spent_epsilon
from coreason_enclave.ledger.records import JobClaim, LineageClaim, LineageRegistration, NoiseSource, RoundPlan
from coreason_enclave.ledger.state import JobRecord, LedgerRound, LedgerState, LineageRecord
from coreason_enclave.schemas import PrivacyUnit


def lineage_claim(state: LedgerState, name: str) -> LineageClaim:
    """See :meth:`coreason_enclave.ledger.interface.PrivacyLedger.lineage_claim`."""
    lineage = state.lineage(name)
    registration = lineage.registration
    records = [record for job in lineage.jobs.values() for record in job.rounds.values()]
    return LineageClaim(
        lineage=name,
        unit=registration.unit,
        neighboring_relation=registration.neighboring_relation,
        nominal_units=registration.nominal_units,
        public=registration.public,
        caps=registration.caps,
        filter_order=registration.filter_order,
        guarantee=None if lineage.non_private else _cap_as_guarantee(lineage),
        spent_epsilon=spent_epsilon(lineage.spent_pico, registration.caps.delta, registration.filter_order),
        budget_pico=lineage.budget_pico,
        spent_pico=lineage.spent_pico,
        remaining_pico=lineage.remaining_pico,
        exhausted=lineage.remaining_pico == 0,
        non_private=lineage.non_private,
        jobs=tuple(lineage.jobs),
        open_reservations=_open(records),
        noise_sources=_sources(records),
        contents=lineage.contents,
        durable=_durable(state),
        raised=lineage.raised,
    )


def job_claim(state: LedgerState, name: str, job_id: str) -> JobClaim:
    """See :meth:`coreason_enclave.ledger.interface.PrivacyLedger.job_claim`."""
    lineage, job = state.lineage(name), state.job(name, job_id)
    plan = job.first if isinstance(job.first, RoundPlan) else None
    records = job.rounds.values()
    reserved = sum(record.step_limit for record in records)
    spent = sum(record.steps for record in records)
    # Later rounds may reserve refunded steps again; the steps that ran never exceed the job's cap.
    counted = reserved if job.allowed_steps is None else min(reserved, job.allowed_steps)
    return JobClaim(
        lineage=name,
        job_id=job_id,
        job_digest=job.first.job_digest,
        spent=_by_pld(lineage, job, spent),
        guarantee=_by_pld(lineage, job, counted),
        at_schedule=_by_pld(lineage, job, job.allowed_steps or 0),
        target_epsilon=None if plan is None else plan.target_epsilon,
        noise_multiplier=None if plan is None else plan.noise_multiplier,
        sample_rate=None if plan is None else plan.sample_rate,
        steps_spent=spent,
        steps_counted=counted,
        steps_run=sum(record.steps for record in records if record.actual is not None),
        steps_allowed=job.allowed_steps,
        rounds=tuple(job.rounds),
        content_changed=_changed(job),
        open_reservations=_open(records),
        noise_sources=_sources(records),
        durable=_durable(state),
    )


def _changed(job: JobRecord) -> tuple[int, ...]:
    steps = zip(job.draws, job.draws[1:], strict=False)
    changed = (after.round_number for before, after in steps if before.content_mark != after.content_mark)
    return tuple(dict.fromkeys(changed))


def _by_pld(lineage: LineageRecord, job: JobRecord, steps: int) -> Guarantee | ClientGuarantee | None:
    if not isinstance(job.first, RoundPlan):
        return None
    event = PoissonSampledGaussian(job.first.noise_multiplier, job.first.sample_rate, steps)
    return _about(lineage.registration, compose_epsilon([event], job.first.delta))


def _cap_as_guarantee(lineage: LineageRecord) -> Guarantee | ClientGuarantee:
    caps = lineage.registration.caps
    cap = ComposedEpsilon(epsilon=caps.epsilon, delta=caps.delta, accountant=Accountant.RDP, rdp_epsilon=caps.epsilon)
    return _about(lineage.registration, cap)


def _about(registration: LineageRegistration, composed: ComposedEpsilon) -> Guarantee | ClientGuarantee:
    """Return the number as a site's claim about data or, for unit ``client``, as a coordinator's claim about sites."""
    relation = registration.neighboring_relation
    if registration.unit is PrivacyUnit.CLIENT:
        return composed.client_guarantee(neighboring_relation=relation)
    return composed.guarantee(unit=registration.unit, neighboring_relation=relation)


def _open(records: Iterable[LedgerRound]) -> int:
    return sum(record.actual is None for record in records)


def _sources(records: Iterable[LedgerRound]) -> tuple[NoiseSource, ...]:
    return tuple(sorted({record.plan.noise_source for record in records if isinstance(record.plan, RoundPlan)}))


def _durable(state: LedgerState) -> bool:
    return state.founded is not None and state.founded.durable
