"""Values that enter and leave the privacy ledger: frozen records, validated on construction.

No field has a default: a default cap, unit or delta would state a guarantee that no one chose.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, TypeAdapter

from coreason_enclave.accounting import (
    ClientGuarantee,
    Event,
    Guarantee,
    NonPrivate,
    PoissonSampledGaussian,
    choose_order,
)
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit, SafeId, SafePath, explained

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_HEX64 = re.compile(r"[0-9a-f]{64}")
_SAFE_ID: TypeAdapter[str] = TypeAdapter(SafeId)
_SAFE_PATH: TypeAdapter[str] = TypeAdapter(SafePath)


class NoiseSource(StrEnum):
    """The source of sampling and noise. The ledger records an injected seed, and all claims over it report the seed."""

    SITE_KEYSTREAM = "site_keystream"
    COORDINATOR_KEYSTREAM = "coordinator_keystream"
    UNSAFE_SEEDED = "unsafe_seeded"


@dataclass(frozen=True, kw_only=True)
class LineageCaps:
    """Privacy limits of one lineage: for all jobs together, and for any single job.

    Attributes:
        epsilon, delta: the lineage's cap over all jobs, proved by the Rényi filter.
        job_epsilon, job_delta: the largest ``target_epsilon`` and ``delta`` that one job may carry; neither may exceed
            the lineage's own cap.
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
    """A data lineage as its owner registers it once. The budget belongs to this name, however the content changes.

    At a site, the lineage names data, kept per record or person. At a coordinator that promises client-level privacy,
    the lineage names the federation's sites, kept per client.

    Attributes:
        lineage: 1 to 8 safe names joined by ``/``.
        unit, neighboring_relation: the unit whose presence the guarantee hides, and the definition of neighbouring
            datasets.
        nominal_units: the declared, public number of units (records, persons or sites); never a private count.
        public: True if the owner may publish the whole content. Only public lineages allow non-private training.
        caps: see :class:`LineageCaps`; ``caps.delta`` must be below ``1 / nominal_units``.
        filter_order: the Rényi order (a whole number of at least 2) of the lineage's budget. The filter's proof needs
            an order fixed before the first job, so registration fixes it.
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
        if not self.caps.delta < 1 / self.nominal_units:  # else publishing one whole record would count as private
            raise ConfigurationError(
                f"caps.delta must be below 1 / nominal_units = {1 / self.nominal_units:.3g}, got {self.caps.delta:g}"
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
        """Create a registration with the order that affords the most of a Gaussian mechanism under ``caps``."""
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
class _PlannedRound:
    """One round of a job.

    Attributes:
        job_id, job_digest: the job and SHA-256 (hex) of its accepted document.
        round_number: 0 or more; a retry carries the same number.
        unit: must equal the lineage's own unit.
        steps: the most steps that this round would run.
    """

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


@dataclass(frozen=True, kw_only=True)
class RoundPlan(_PlannedRound):
    """The worst case of one round of a DP-SGD job.

    Attributes:
        noise_multiplier, sample_rate: fixed for the whole job by its first reservation.
        total_steps: the job's whole schedule; its rounds together never run more.
        target_epsilon, delta: the job's cap, fixed by its first reservation.
        noise_source: recorded; see :class:`NoiseSource`.
    """

    noise_multiplier: float
    sample_rate: float
    total_steps: int
    target_epsilon: float
    delta: float
    noise_source: NoiseSource

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_in("noise_multiplier", self.noise_multiplier, 0, 1e6)
        _require_in("sample_rate", self.sample_rate, 0, 1)
        _require_count("total_steps", self.total_steps, self.steps)
        _require_in("target_epsilon", self.target_epsilon, 0, 1000)
        _require_in("delta", self.delta, 0, 0.1)

    def event(self, steps: int) -> PoissonSampledGaussian:
        """Return the round's mechanism, run for ``steps``."""
        return PoissonSampledGaussian(self.noise_multiplier, self.sample_rate, steps)


@dataclass(frozen=True, kw_only=True)
class NonPrivatePlan(_PlannedRound):
    """A round without a privacy mechanism. Only public lineages accept one, and their claims report it for ever."""

    def event(self, steps: int) -> NonPrivate:
        """Return :class:`NonPrivate`, for any number of steps."""
        return NonPrivate()


Plan = RoundPlan | NonPrivatePlan


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The record of a round that sampled rows: a mark of the content and a mark of the job's key.

    Marks hold 64 hex digits, SHA-256 or similar. Equal marks mean equal content and equal key, and reveal no more.
    """

    round_number: int
    content_mark: str
    key_mark: str


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """Permission to run at most ``step_limit`` steps. The ledger has already recorded the steps as spent.

    Attributes:
        reservation_id: 64 hex digits, the same for the same (lineage, job, round, binding).
        event: the charged worst case.
        step_limit: at least 1; below the requested steps if the cap falls within the round.
        prior_events: this job's earlier rounds. A committed round counts as run, an open round counts at its worst.
        recomputed: True if an earlier call reserved this (job, round); the ledger charged no second time.
        actual, update_digest: the event that ran and the digest of the released update, for a committed round. A
            recomputation must commit the same values.
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
    """The last entry's number (the first entry has 0) and hash (64 hex digits), which covers all earlier entries."""

    seq: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """A person's decision to continue with a ledger that has lost entries up to ``head``; ``time`` in Unix seconds."""

    head: LedgerHead
    by: str
    why: str
    time: int


@dataclass(frozen=True, kw_only=True)
class CapsRaise:
    """A person's decision to raise a lineage's caps: the caps and budget before, and why; ``time`` in Unix seconds."""

    former: LineageCaps
    former_budget_pico: int
    why: str
    time: int


@dataclass(frozen=True, kw_only=True)
class LineageClaim:
    """The privacy claim for one lineage over all jobs that ever ran on it, including adaptively chosen jobs.

    ``guarantee`` states the promise: the cap, proved by the Rényi filter (Feldman and Zrnic, 2021; Lécuyer, 2021) with
    the order fixed at registration. ``spent_epsilon`` only gauges the spend so far, converted at that order.
    ``spent_epsilon`` gives no guarantee, because the choice of later jobs may depend on the results of earlier jobs.
    After a raise, ``guarantee`` states the raised cap over all jobs, the earlier ones included; the promise of a lower
    cap has ended.

    Attributes:
        guarantee: None once non-private training ran: no finite epsilon covers the union.
        budget_pico, spent_pico, remaining_pico: the filter's account in units of 1e-12 of Rényi divergence.
        exhausted: True if no budget remains.
        open_reservations: rounds reserved and not committed; counted in full.
        noise_sources: all recorded sources; ``guarantee`` does not cover an unsafe source.
        durable: False for a ledger in memory, which forgets.
        raised: every raise of the caps, in order.
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
    raised: tuple[CapsRaise, ...]

    @property
    def left_epsilon(self) -> float:
        """Return the cap minus ``spent_epsilon``: by how much the gauge may still rise."""
        return max(0.0, self.caps.epsilon - self.spent_epsilon)

    @property
    def left_share(self) -> float:
        """Return the share of the filter's budget that is left, from 0 to 1."""
        return self.remaining_pico / self.budget_pico


@dataclass(frozen=True, kw_only=True)
class JobClaim:
    """The privacy claim for one job on one lineage, by PLD over its fixed mechanism.

    Attributes:
        spent: over the steps that the lineage's filter counts: the steps that ran, and every reserved step of a round
            that is still open. None for a non-private job.
        guarantee: over all steps reserved so far, without a refund for steps that did not run. None for a non-private
            job.
        at_schedule: over all steps that the job may ever run, never above ``target_epsilon``. Quote this number if the
            decision to stop depended on released results. None for a non-private job.
        content_changed: the rounds whose content differs from the content of the preceding draw, in order.
        steps_spent, steps_counted, steps_run, steps_allowed: the steps behind ``spent`` and ``guarantee``, the
            committed steps, and the steps behind ``at_schedule``.
        open_reservations: rounds reserved and not committed (abandoned, or still running); counted in full.
    """

    lineage: str
    job_id: str
    job_digest: str
    spent: Guarantee | ClientGuarantee | None
    guarantee: Guarantee | ClientGuarantee | None
    at_schedule: Guarantee | ClientGuarantee | None
    target_epsilon: float | None
    noise_multiplier: float | None
    sample_rate: float | None
    steps_spent: int
    steps_counted: int
    steps_run: int
    steps_allowed: int | None
    rounds: tuple[int, ...]
    content_changed: tuple[int, ...]
    open_reservations: int
    noise_sources: tuple[NoiseSource, ...]
    durable: bool


def require_hex_digest(name: str, value: object) -> None:
    """Raise :class:`ConfigurationError` unless ``value`` holds a SHA-256 in lower-case hex."""
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
    with explained(lambda why: ConfigurationError(f"{name} {why}")):
        adapter.validate_python(value, strict=True)
