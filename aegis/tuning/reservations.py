"""Charges a training to a ledger before the training starts."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from aegis.errors import InvalidEngine
from aegis.tuning.config import EngineConfig
from coreason_enclave.accounting import epsilon_bound
from coreason_enclave.crypto import sha256_hex
from coreason_enclave.ledger import (
    EphemeralLedger,
    LineageCaps,
    LineageRegistration,
    NoiseSource,
    PrivacyLedger,
    Reservation,
    RoundPlan,
)
from coreason_enclave.schemas import Mechanism, PrivacyConfig

_MAX_EPSILON = 1000.0


@dataclass(frozen=True)
class Account:
    """The account of a training: a lineage of a ledger."""

    ledger: PrivacyLedger
    lineage: str

    @property
    def registration(self) -> LineageRegistration:
        """The site's registration of the lineage."""
        return self.ledger.registration(self.lineage)

    def within_caps(self, epsilon_range: tuple[float, float]) -> tuple[float, float]:
        """Return the part of the range that the site allows one job to request."""
        lowest, highest = epsilon_range
        cap = self.registration.caps.job_epsilon
        return (min(lowest, cap), cap) if cap < highest else epsilon_range


def experiment(config: EngineConfig, *, nominal_units: int, public: bool) -> Account:
    """Return an account on a ledger in memory, with caps for any one training: for experiments, as its claims say."""
    ledger = EphemeralLedger()
    caps = LineageCaps(epsilon=_MAX_EPSILON, delta=config.delta, job_epsilon=_MAX_EPSILON, job_delta=config.delta)
    ledger.register(
        LineageRegistration.with_best_order(
            lineage="experiment",
            unit=config.unit,
            neighboring_relation=config.neighboring_relation,
            nominal_units=nominal_units,
            public=public,
            caps=caps,
        )
    )
    return Account(ledger, "experiment")


def account_for(
    config: EngineConfig, ledger: PrivacyLedger | None, lineage: str | None, *, nominal_units: int, public: bool
) -> Account:
    """Return the caller's account for a training, or an :func:`experiment` if the caller gave neither argument.

    Raises:
        InvalidEngine: the caller gave only one of ledger and lineage, or the lineage is registered with another size.
    """
    if ledger is None and lineage is None:
        return experiment(config, nominal_units=nominal_units, public=public)
    if ledger is None or lineage is None:
        raise InvalidEngine("a ledger needs a lineage registered in it, a lineage its ledger: give both or neither")
    account = Account(ledger, lineage)
    registered = account.registration.nominal_units
    if registered != nominal_units:
        raise InvalidEngine(f"lineage {lineage!r} has {registered} nominal units, but the task states {nominal_units}")
    return account


def reserve(config: EngineConfig, account: Account, noise_source: NoiseSource) -> Reservation:
    """Charge the whole schedule of ``config`` as one new job of one round.

    Raises:
        PrivacyBudgetExceededError: the lineage cannot pay for every step.
        JobRejected: the lineage has another unit, or lower caps on a job's epsilon or delta.
        InvalidEngine: the lineage uses another neighbouring relation; or the schedule's epsilon exceeds 1000, and
            would promise no privacy.
    """
    if account.registration.neighboring_relation is not config.neighboring_relation:
        raise InvalidEngine(f"lineage {account.lineage!r} has the relation {account.registration.neighboring_relation}")
    event = config.event(config.steps)
    # The ledger computes the same bound for the same steps: the schedule ends exactly at this cap.
    cap = epsilon_bound(event, config.delta)
    if not cap <= _MAX_EPSILON:
        raise InvalidEngine(f"the steps cost epsilon {cap:.4g}, above {_MAX_EPSILON:g}: use more noise or fewer steps")
    digest = sha256_hex(config.canonical() + secrets.token_bytes(32))
    plan = RoundPlan(
        job_id=f"engine-{digest[:16]}",
        job_digest=digest,
        round_number=1,
        unit=config.unit,
        noise_multiplier=event.noise_multiplier,
        sample_rate=event.sample_rate,
        steps=event.steps,
        total_steps=event.steps,
        target_epsilon=cap,
        delta=config.delta,
        noise_source=noise_source,
    )
    return account.ledger.reserve(account.lineage, plan, sha256_hex(digest.encode()), require_all=True)


def name_of_draws(config: EngineConfig) -> str:
    """Return 64 hex digits that identify a schedule, ignoring the last digits of a calibrated noise multiplier.

    A noise multiplier's last digits may differ between machines, and the same seed should give the same training on
    every machine.
    """
    noise = config.event(config.steps).noise_multiplier
    return config.changed(noise_multiplier=float(f"{noise:.6g}")).digest()


def privacy_config(config: EngineConfig, reservation: Reservation) -> PrivacyConfig:
    """Return the configuration in the terms of a site's job, every value present."""
    return PrivacyConfig(
        mechanism=Mechanism.DP_SGD,
        target_epsilon=reservation.target_epsilon,
        noise_multiplier=config.noise_multiplier,
        max_grad_norm=config.max_grad_norm,
        sample_rate=config.sample_rate,
        delta=config.delta,
        unit=config.unit,
    )
