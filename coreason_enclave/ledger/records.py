"""What goes into the privacy ledger and what comes out of it: frozen values, checked when they are made.

Nothing here has a default: a cap, a unit or a delta that nobody chose is a guarantee that nobody gave.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from coreason_enclave.accounting.events import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.accounting.guarantee import ClientGuarantee, Guarantee
from coreason_enclave.accounting.renyi import choose_order
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit, SafeId, SafePath, explain

__all__ = [
    "Draw",
    "JobClaim",
    "LedgerHead",
    "LineageCaps",
    "LineageClaim",
    "LineageRegistration",
    "NoiseSource",
    "NonPrivatePlan",
    "Plan",
    "Reservation",
    "RoundPlan",
    "require_hex_digest",
]

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_HEX64 = re.compile(r"[0-9a-f]{64}")
_SAFE_ID: TypeAdapter[str] = TypeAdapter(SafeId)
_SAFE_PATH: TypeAdapter[str] = TypeAdapter(SafePath)


class NoiseSource(StrEnum):
    """Where sampling and noise come from. An injected seed is recorded, and every claim over it says so."""

    SITE_KEYSTREAM = "site_keystream"
    COORDINATOR_KEYSTREAM = "coordinator_keystream"
    UNSAFE_SEEDED = "unsafe_seeded"


@dataclass(frozen=True, kw_only=True)
class LineageCaps:
    """The most that a site will ever spend on one lineage, and the most that any single job may ask for.

    Attributes:
        epsilon, delta: the lineage's cap over all jobs, proved by the Rényi filter.
        job_epsilon, job_delta: the largest ``target_epsilon`` and ``delta`` that one job may carry; neither
            may exceed the lineage's own.
    """

    epsilon: float
    delta: float
    job_epsilon: float
    job_delta: float
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _require_in("caps.epsilon", self.epsilon, 0, 1000)
        _require_in("caps.delta", self.delta, 0, 0.1)
        _require_in("caps.job_epsilon", self.job_epsilon, 0, self.epsilon)
        _require_in("caps.job_delta", self.job_delta, 0, self.delta)


@dataclass(frozen=True, kw_only=True)
class LineageRegistration:
    """A data lineage as its owner names it once. The budget belongs to this name, whatever its content becomes.

    At a site it is data, kept per record or person. At a coordinator that promises client-level privacy it is the
    federation's sites, kept per client.

    Attributes:
        lineage: 1 to 8 safe names joined by ``/``.
        unit, neighboring_relation: whose presence is hidden, and what neighbouring datasets are.
        nominal_units: the declared, public number of units (records, persons or sites); never a private count.
        public: whether everything in it may be published; only then may training be non-private.
        caps: see :class:`LineageCaps`; ``caps.delta`` must be below ``1 / nominal_units``.
        filter_order: the Rényi order (a whole number of at least 2) at which the lineage's budget is kept; fixed
            here, before the first job, because the filter's proof needs it so.
    """

    lineage: str
    unit: PrivacyUnit
    neighboring_relation: NeighboringRelation
    nominal_units: int
    public: bool
    caps: LineageCaps
    filter_order: int
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _require_safe("lineage", _SAFE_PATH, self.lineage)
        _require_count("nominal_units", self.nominal_units, 1)
        _require_count("filter_order", self.filter_order, 2)
        if not self.caps.delta < 1 / self.nominal_units:
            raise ConfigurationError(
                f"caps.delta must be below 1 / nominal_units = {1 / self.nominal_units:.3g}, got "
                f"{self.caps.delta:g}: otherwise publishing one whole record would count as private"
            )

    @classmethod
    def with_best_order(
        cls,
        *,
        lineage: str,
        unit: PrivacyUnit,
        neighboring_relation: NeighboringRelation,
        nominal_units: int,
        public: bool,
        caps: LineageCaps,
    ) -> Self:
        """Register with the order that affords the most of a Gaussian mechanism under ``caps``."""
        order = choose_order(caps.epsilon, caps.delta)
        return cls(
            lineage=lineage,
            unit=unit,
            neighboring_relation=neighboring_relation,
            nominal_units=nominal_units,
            public=public,
            caps=caps,
            filter_order=order,
        )


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """One round of a DP-SGD job, at its worst.

    Attributes:
        job_id, job_digest: the job and SHA-256 (hex) of its accepted document.
        round_number: 0 or more; a retry carries the same number.
        unit: must be the lineage's own.
        noise_multiplier, sample_rate: fixed for the whole job by its first reservation.
        steps: the most that this round would run.
        total_steps: the job's whole schedule; its rounds together never run more.
        target_epsilon, delta: the job's cap, fixed by its first reservation.
        noise_source: recorded; see :class:`NoiseSource`.
    """

    job_id: str
    job_digest: str
    round_number: int
    unit: PrivacyUnit
    noise_multiplier: float
    sample_rate: float
    steps: int
    total_steps: int
    target_epsilon: float
    delta: float
    noise_source: NoiseSource
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _require_safe("job_id", _SAFE_ID, self.job_id)
        require_hex_digest("job_digest", self.job_digest)
        _require_count("round_number", self.round_number, 0)
        _require_in("noise_multiplier", self.noise_multiplier, 0, 1e6)
        _require_in("sample_rate", self.sample_rate, 0, 1)
        _require_count("steps", self.steps, 1)
        _require_count("total_steps", self.total_steps, self.steps)
        _require_in("target_epsilon", self.target_epsilon, 0, 1000)
        _require_in("delta", self.delta, 0, 0.1)

    def event(self, steps: int) -> PoissonSampledGaussian:
        """The round's mechanism, run for ``steps``."""
        return PoissonSampledGaussian(self.noise_multiplier, self.sample_rate, steps)


@dataclass(frozen=True, kw_only=True)
class NonPrivatePlan:
    """One round without any mechanism. Only public lineages accept it, and they say so for ever."""

    job_id: str
    job_digest: str
    round_number: int
    unit: PrivacyUnit
    steps: int
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _require_safe("job_id", _SAFE_ID, self.job_id)
        require_hex_digest("job_digest", self.job_digest)
        _require_count("round_number", self.round_number, 0)
        _require_count("steps", self.steps, 1)

    def event(self, steps: int) -> NonPrivate:
        """Non-private whatever the number of steps."""
        return NonPrivate()


Plan = RoundPlan | NonPrivatePlan


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A round that drew from rows: a mark of the content and one of the job's key, SHA-256 or the like in hex.

    Equal marks mean the same content and the same key; nothing else can be read from them.
    """

    round_number: int
    content_mark: str
    key_mark: str


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """Leave to run at most ``step_limit`` steps, already recorded as spent.

    Attributes:
        reservation_id: 64 hex digits, the same for the same (lineage, job, round, binding).
        event: the worst case that was charged.
        step_limit: at least 1; may be below what was asked for if the cap falls within the round.
        prior_events: this job's earlier rounds, committed ones as run, open ones at their worst.
        recomputed: this (job, round) had been reserved before; nothing was charged again.
        actual, update_digest: what ran and what was released, where the round was committed; a recomputation must
            commit the same values.
        target_epsilon, delta, noise_source: None for a non-private plan.
    """

    reservation_id: str
    lineage: str
    job_id: str
    round_number: int
    event: Event
    step_limit: int
    prior_events: tuple[Event, ...]
    recomputed: bool
    actual: Event | None
    update_digest: str | None
    target_epsilon: float | None
    delta: float | None
    unit: PrivacyUnit
    neighboring_relation: NeighboringRelation
    noise_source: NoiseSource | None


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """The last entry: its number (the first is 0) and hash (64 hex digits), covering all entries before."""

    seq: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """A person at the site goes on with a ledger that forgot everything up to ``head``; ``time`` is Unix seconds."""

    head: LedgerHead
    by: str
    why: str
    time: int


@dataclass(frozen=True, kw_only=True)
class LineageClaim:
    """What holds for one lineage over every job that ever ran on it, however adaptively they were chosen.

    ``guarantee`` is the promise: the cap, proved by the Rényi filter (Feldman and Zrnic, 2021; Lécuyer, 2021)
    with the order fixed at registration. ``spent_epsilon`` is a gauge, what the spend so far converts to at
    that order; it is not itself a guarantee, because which jobs came next may have depended on what earlier
    ones released.

    Attributes:
        guarantee: None once non-private training ran: nothing finite covers the union.
        budget_pico, spent_pico, remaining_pico: the filter's account in units of 1e-12 of Rényi divergence.
        exhausted: nothing is left.
        open_reservations: reserved and not committed; counted in full.
        noise_sources: every source that was recorded; an unsafe one is not covered by ``guarantee``.
        durable: False for a ledger in memory, which forgets.
    """

    lineage: str
    unit: PrivacyUnit
    neighboring_relation: NeighboringRelation
    nominal_units: int
    public: bool
    caps: LineageCaps
    filter_order: int
    guarantee: Guarantee | ClientGuarantee | None
    spent_epsilon: float
    budget_pico: int
    spent_pico: int
    remaining_pico: int
    exhausted: bool
    non_private: bool
    jobs: tuple[str, ...]
    open_reservations: int
    noise_sources: tuple[NoiseSource, ...]
    contents: tuple[str, ...]
    durable: bool


@dataclass(frozen=True, kw_only=True)
class JobClaim:
    """What holds for one job on one lineage, by PLD over its fixed mechanism.

    Attributes:
        guarantee: over the steps reserved so far, in full: nothing is refunded for steps that did not run. None
            for a non-private job.
        at_schedule: over all steps that the job may ever run; the number to quote where the decision to stop
            depended on what was released. Never above ``target_epsilon``. None for a non-private job.
        content_changed: the rounds that drew from another content than the draw before them, in order.
        steps_counted, steps_run, steps_allowed: behind ``guarantee``, committed, and behind ``at_schedule``.
        open_reservations: reserved and not committed (abandoned, or still running); counted in full.
    """

    lineage: str
    job_id: str
    job_digest: str
    guarantee: Guarantee | ClientGuarantee | None
    at_schedule: Guarantee | ClientGuarantee | None
    target_epsilon: float | None
    noise_multiplier: float | None
    sample_rate: float | None
    steps_counted: int
    steps_run: int
    steps_allowed: int | None
    rounds: tuple[int, ...]
    content_changed: tuple[int, ...]
    open_reservations: int
    noise_sources: tuple[NoiseSource, ...]
    durable: bool


def require_hex_digest(name: str, value: object) -> None:
    """Refuse anything but a SHA-256 in lower-case hex."""
    if not isinstance(value, str) or not _HEX64.fullmatch(value):
        raise ConfigurationError(f"{name} must be 64 lower-case hex digits (a SHA-256), got {value!r:.80}")


def _require_in(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ConfigurationError(f"{name} must be a finite number, got {value!r:.80}")
    if not low < value <= high:
        raise ConfigurationError(f"{name} must be in ({low:g}, {high:g}], got {value:g}")


def _require_count(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigurationError(f"{name} must be a whole number of at least {low}, got {value!r:.80}")


def _require_safe(name: str, adapter: TypeAdapter[str], value: str) -> None:
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise ConfigurationError(f"{name} {explain(error)}") from error
