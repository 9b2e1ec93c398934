"""Training scopes as a session opens them, without a ledger behind them."""

from __future__ import annotations

from typing import Any

from coreason_enclave.accounting.events import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.crypto.keystream import Keystream
from coreason_enclave.ledger import NoiseSource, Reservation
from coreason_enclave.privacy.drift_correction import DriftCorrection
from coreason_enclave.privacy.scope import TrainingScope
from coreason_enclave.privacy.step_gate import StepGate
from coreason_enclave.schemas import Mechanism, NeighboringRelation, PrivacyConfig, PrivacyUnit


def keystream_of(key: int = 0, **changes: Any) -> Keystream:
    names = {"job_digest": "00", "round_number": 1, "base_model_digest": "01", "dataset_digest": "02", **changes}
    return Keystream(bytes([key]) * 32, **names)


def a_scope(
    *,
    steps: int = 10,
    nominal_units: int = 1000,
    unit_of_row: Any = None,
    prior_events: tuple[Event, ...] = (),
    round_number: int = 1,
    mechanism: str = "DP_SGD",
    noise_multiplier: float = 1.0,
    max_grad_norm: float | None = 1.0,
    sample_rate: float = 0.05,
    drift: DriftCorrection | None = None,
) -> TrainingScope:
    """A scope as a session opens it; every value can be replaced."""
    private = mechanism == Mechanism.DP_SGD
    unit = PrivacyUnit.RECORD if unit_of_row is None else PrivacyUnit.PERSON
    config = PrivacyConfig(
        mechanism=mechanism,
        target_epsilon=100.0 if private else None,
        noise_multiplier=noise_multiplier if private else None,
        max_grad_norm=max_grad_norm,
        sample_rate=sample_rate,
        delta=1e-5,
        unit=unit,
    )
    event = PoissonSampledGaussian(noise_multiplier, sample_rate, steps) if private else NonPrivate()
    reservation = Reservation(
        reservation_id="ab" * 32,
        lineage="clinic",
        job_id="job",
        round_number=round_number,
        event=event,
        step_limit=steps,
        prior_events=prior_events,
        recomputed=False,
        actual=None,
        update_digest=None,
        target_epsilon=config.target_epsilon,
        delta=1e-5,
        unit=unit,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        noise_source=NoiseSource.UNSAFE_SEEDED if private else None,
    )
    gate = StepGate(steps, config.target_epsilon)
    keystream = keystream_of(round_number=round_number)
    return TrainingScope(config, config, reservation, gate, keystream, nominal_units, unit_of_row, drift)
