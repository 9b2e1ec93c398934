"""The ledger's rules, without IO and without state: each function reads values, and returns or raises."""

from __future__ import annotations

from dataclasses import fields

from coreason_enclave.accounting import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.crypto import digest
from coreason_enclave.errors import (
    JobRejected,
    LedgerConflict,
    LedgerCorrupted,
    LedgerError,
    PrivacyBudgetExceededError,
    Reason,
)
from coreason_enclave.ledger.entries import CapsRaised, ContentNoted, Entry, Founded, Reserved
from coreason_enclave.ledger.records import (
    LedgerHead,
    LineageCaps,
    LineageRegistration,
    NonPrivatePlan,
    Plan,
    RoundPlan,
)

_PER_ROUND = {"round_number", "steps", "noise_source"}


def check_order(founded: Founded | None, entry: Entry) -> None:
    """Raise :class:`LedgerCorrupted` unless the ledger's first entry, and no later entry, creates the ledger."""
    if (founded is None) != isinstance(entry, Founded):
        raise LedgerCorrupted("a ledger must begin with exactly one founding entry")


def check_no_history(is_new: bool) -> None:
    """Raise unless the ledger is empty: a ledger that began under another profile keeps that profile."""
    if not is_new:
        raise LedgerConflict(
            "this ledger began under another profile than unattested, and a site keeps its profile: make a new site "
            "(another folder, other lineages) for profile unattested"
        )


def check_attested(unattested: bool, profile: str) -> None:
    """Raise if a ledger of profile ``unattested`` is to be used under another profile."""
    if unattested:
        raise LedgerConflict(
            f"this ledger began under profile unattested, and a site keeps its profile: make a new site (another "
            f"folder, other lineages) for profile {profile}"
        )


def check_not_registered(known: LineageRegistration | None, registration: LineageRegistration) -> None:
    """Raise if the lineage already has a registration: a second registration would open a second budget."""
    if known is None:
        return
    changed = [f.name for f in fields(known) if getattr(known, f.name) != getattr(registration, f.name)]
    raise LedgerConflict(
        f"lineage {known.lineage!r} is already registered with another {', '.join(changed) or 'entry'}: budget and "
        "caps of a lineage are fixed; register data of other persons as another lineage, or raise the caps with "
        "`coreason-enclave policy raise-cap`, which records the reason"
    )


def check_raise(registration: LineageRegistration, caps: LineageCaps) -> None:
    """Raise :class:`LedgerConflict` unless no cap falls, some cap rises, and delta stays below 1 / nominal_units."""
    pairs = [(f.name, getattr(registration.caps, f.name), getattr(caps, f.name)) for f in fields(caps)]
    for name, old, new in pairs:
        if new < old:
            raise LedgerConflict(f"{name} of lineage {registration.lineage!r} is {old:g}: a cap never falls to {new:g}")
    if all(new == old for _, old, new in pairs):
        raise LedgerConflict(f"lineage {registration.lineage!r} has these caps already")
    if not caps.delta < 1 / registration.nominal_units:
        raise LedgerConflict(f"delta of lineage {registration.lineage!r} must stay below 1 / nominal_units")


def check_budget_grows(known_pico: int, entry: CapsRaised) -> None:
    """Raise :class:`LedgerConflict` if higher caps would leave a smaller budget."""
    if entry.budget_pico < known_pico:
        raise LedgerConflict(f"the raised caps of lineage {entry.lineage!r} leave a smaller budget than before")


def check_plan(registration: LineageRegistration, plan: Plan) -> None:
    """Raise :class:`JobRejected` unless the plan fits the site's registration.

    Checks, in this order: mechanism, unit, delta, epsilon of the job.
    """
    if isinstance(plan, NonPrivatePlan) and not registration.public:
        raise JobRejected(f"lineage {registration.lineage!r} is not public: use mechanism DP_SGD, not NON_PRIVATE")
    # A guarantee for one unit implies none for another: a person's records can change without being added or
    # removed.
    if plan.unit is not registration.unit:
        raise JobRejected(f"lineage {registration.lineage!r} needs unit {registration.unit}; the job's is {plan.unit}")
    if isinstance(plan, RoundPlan):
        _check_caps(registration, plan)


def _check_caps(registration: LineageRegistration, plan: RoundPlan) -> None:
    caps = registration.caps
    if plan.delta > caps.job_delta:
        raise JobRejected(
            f"lineage {registration.lineage!r} has caps.job_delta = {caps.job_delta:g}: lower the delta {plan.delta:g}"
        )
    if plan.target_epsilon > caps.job_epsilon:
        raise JobRejected(
            f"lineage {registration.lineage!r} has caps.job_epsilon = {caps.job_epsilon:g}: lower the target_epsilon "
            f"{plan.target_epsilon:g}"
        )


def check_terms(first: Plan, plan: Plan) -> None:
    """Raise if a job's terms differ from its first reservation: PLD holds only for a schedule fixed in advance."""
    if type(first) is not type(plan):
        raise LedgerConflict(f"job {plan.job_id!r} began with another mechanism: start another job")
    names = [f.name for f in fields(first) if f.name not in _PER_ROUND]
    changed = [name for name in names if getattr(first, name) != getattr(plan, name)]
    if changed:
        raise LedgerConflict(f"job {plan.job_id!r} began with another {', '.join(changed)}: start another job")


def check_unreserved(free: bool, plan: Plan) -> None:
    """Raise if the ledger has already reserved this (job, round)."""
    if not free:
        raise LedgerConflict(f"round {plan.round_number} of job {plan.job_id!r} is already reserved")


def check_same_computation(reserved: tuple[str, Plan], requested: tuple[str, Plan]) -> None:
    """Raise unless a retry repeats exactly the paid computation: two different computations would mean two releases."""
    if reserved != requested:
        plan = requested[1]
        raise LedgerConflict(
            f"round {plan.round_number} of job {plan.job_id!r} was reserved for another computation (base model, "
            "data, keys or plan differ): a round is released only once; use the next round number"
        )


def check_draw(*, is_reserved: bool, is_open: bool, key_marks: set[str], entry: ContentNoted) -> None:
    """Raise unless the round may sample rows now.

    * The round must have a reservation.
    * The round must not be committed: sampling other content would make a second release.
    * The job must use one key for all draws: new noise for a round would make a new release.
    """
    if not is_reserved:
        raise LedgerError(f"round {entry.round_number} of job {entry.job_id!r} sampled a batch, but is not reserved")
    if not is_open:
        raise LedgerConflict(
            f"round {entry.round_number} of job {entry.job_id!r} is committed: other content would release it twice"
        )
    if key_marks - {entry.key_mark}:
        raise LedgerConflict(
            f"job {entry.job_id!r} used another key: restore it, or start another job", reason=Reason.JOB_KEY_CHANGED
        )


def check_reservation_id(stated: str, lineage: str, plan: Plan, binding: str) -> None:
    """Raise :class:`LedgerCorrupted` unless a stored reservation's id matches its content."""
    if stated != reservation_id(lineage, plan, binding):
        raise LedgerCorrupted(f"reservation {stated} is not named by the digest of its content")


def reservation_id(lineage: str, plan: Plan, binding: str) -> str:
    """Return 64 hex digits, the same for the same (lineage, job, round, binding)."""
    parts = (
        lineage.encode(),
        plan.job_id.encode(),
        plan.round_number.to_bytes(8, "big"),
        bytes.fromhex(binding),
    )
    return digest("coreason.ledger.reservation/1", *parts).hex()


def check_price(allowed: int | None, cost: int | None, entry: Reserved) -> None:
    """Raise :class:`LedgerCorrupted` if a job's step allowance or step cost changes, or the allowance exceeds the
    schedule.
    """
    if (allowed, cost) != (
        entry.allowed_steps,
        entry.step_cost_pico,
    ) or entry.allowed_steps > entry.plan.total_steps:
        raise LedgerCorrupted(f"job {entry.plan.job_id!r} changes its price")


def check_limit(entry: Reserved, job_steps: int, remaining_pico: int) -> None:
    """Raise unless the step limit stays within the requested steps, the job's cap and the lineage's budget."""
    granted = affordable(entry.plan, entry.allowed_steps - job_steps, remaining_pico, entry.step_cost_pico)
    if entry.step_limit > granted:
        raise PrivacyBudgetExceededError(f"{entry.step_limit} steps are reserved, but only {granted} were affordable")


def affordable(plan: RoundPlan, job_left: int, remaining_pico: int, step_cost_pico: int) -> int:
    """Return how many steps of ``plan`` both caps afford, by comparing whole numbers."""
    return max(0, min(plan.steps, job_left, remaining_pico // step_cost_pico))


def grant(lineage: str, plan: RoundPlan, job_left: int, lineage_left: int, require_all: bool) -> int:
    """Return the step limit of a round.

    Raises:
        PrivacyBudgetExceededError: no step, or with ``require_all`` not every step, is affordable; the message names
            the limiting cap.
    """
    granted = max(0, min(plan.steps, job_left, lineage_left))
    if granted == 0 or (require_all and granted < plan.steps):
        raise PrivacyBudgetExceededError(
            f"round {plan.round_number} of job {plan.job_id!r} needs {plan.steps} steps, but only {granted} are "
            f"affordable under {_binding_cap(lineage, plan, job_left <= lineage_left)}"
        )
    return granted


def _binding_cap(lineage: str, plan: RoundPlan, job_binds: bool) -> str:
    if job_binds:
        terms = f"epsilon {plan.target_epsilon:g} at delta {plan.delta:g} and {plan.total_steps} steps in all"
        return f"the job's own cap ({terms}): use more noise, a smaller sample rate or fewer steps"
    return f"the budget of lineage {lineage!r}; spent budget cannot be recovered"


def check_uncommitted(is_open: bool, plan: Plan) -> None:
    """Raise if the ledger has already committed the reservation."""
    if not is_open:
        raise LedgerConflict(f"round {plan.round_number} of job {plan.job_id!r} has another committed event or update")


def check_unacknowledged(is_new: bool, head: LedgerHead) -> None:
    """Raise if the ledger has already acknowledged the lost head."""
    if not is_new:
        raise LedgerConflict(f"entry {head.seq} with hash {head.hash[:16]}… is already acknowledged")


def check_actual(reserved: Event, actual: Event) -> None:
    """Raise unless the event that ran has the reserved mechanism and at most the reserved steps."""
    if isinstance(reserved, NonPrivate) or isinstance(actual, NonPrivate):
        if type(reserved) is not type(actual):
            raise LedgerConflict("private training cannot commit a non-private reservation, nor the reverse")
        return
    if reserved != actual.with_steps(reserved.steps):
        raise LedgerConflict(f"reserved {_describe(reserved)}, but {_describe(actual)} ran, which is another mechanism")
    if actual.steps > reserved.steps:
        raise LedgerConflict(f"{actual.steps} steps ran, but only {reserved.steps} were reserved")


def _describe(event: PoissonSampledGaussian) -> str:
    return f"noise multiplier {event.noise_multiplier:g} at rate {event.sample_rate:g}"
