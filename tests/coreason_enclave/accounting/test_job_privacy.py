"""One resolution of a job's privacy: coordinator, site and guard arrive at the same noise, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aegis.errors import InvalidJob
from aegis.federation.job_files import resolve
from coreason_enclave.accounting import NonPrivate, PoissonSampledGaussian, calibrate_noise
from coreason_enclave.accounting.job_privacy import privacy_event, resolve_privacy
from coreason_enclave.errors import AccountingError
from coreason_enclave.schemas import FederationJob, Mechanism, PrivacyConfig, PrivacyUnit


def asked(**changes: Any) -> PrivacyConfig:
    fields = {"mechanism": Mechanism.DP_SGD, "target_epsilon": 3.0, "max_grad_norm": 1.0, "sample_rate": 0.1, **changes}
    return PrivacyConfig(**fields)


def test_open_values_are_filled_and_stated_values_stay() -> None:
    filled = resolve_privacy(asked(), delta=1e-5, total_steps=20, unit=PrivacyUnit.PERSON)
    noise = calibrate_noise(3.0, 1e-5, 0.1, 20)
    assert (filled.delta, filled.noise_multiplier, filled.unit) == (1e-5, noise, PrivacyUnit.PERSON)
    stated = asked(delta=1e-6, noise_multiplier=2.0, unit=PrivacyUnit.RECORD)
    assert resolve_privacy(stated, delta=1e-5, total_steps=20) == stated


def test_a_stated_delta_is_the_one_that_the_noise_is_calibrated_for() -> None:
    filled = resolve_privacy(asked(delta=1e-6), delta=1e-5, total_steps=20)
    assert filled.noise_multiplier == calibrate_noise(3.0, 1e-6, 0.1, 20)


def test_a_site_finds_nothing_left_to_fill_in_a_job_that_the_coordinator_resolved() -> None:
    fields = {"job_id": "study", "min_clients": 1, "rounds": 4, "local_steps": 5, "strategy": "FED_AVG"}
    job = FederationJob(**fields, dataset_id="clinic/visits", model_arch="LogisticRegression", privacy=asked())
    ordered = resolve(job, delta=1e-5)
    assert ordered.privacy.unit is None
    at_site = resolve_privacy(ordered.privacy, delta=1e-7, total_steps=job.total_steps, unit=PrivacyUnit.RECORD)
    assert at_site == ordered.privacy.model_copy(update={"unit": PrivacyUnit.RECORD})
    alone = resolve_privacy(job.privacy, delta=1e-5, total_steps=job.total_steps)
    assert alone == ordered.privacy


def test_a_target_out_of_reach_is_refused_by_both_sides() -> None:
    strict = asked(target_epsilon=1e-6, sample_rate=1.0)
    with pytest.raises(AccountingError, match="fewer steps"):
        resolve_privacy(strict, delta=1e-12, total_steps=1000)
    fields = {"job_id": "study", "min_clients": 1, "rounds": 100, "local_steps": 10, "strategy": "FED_AVG"}
    job = FederationJob(**fields, dataset_id="clinic/visits", model_arch="LogisticRegression", privacy=strict)
    with pytest.raises(InvalidJob, match=r"privacy\.target_epsilon: .*fewer steps"):
        resolve(job, delta=1e-12)


def test_training_without_privacy_gets_no_noise_and_no_mechanism() -> None:
    filled = resolve_privacy(PrivacyConfig(mechanism=Mechanism.NON_PRIVATE), delta=1e-5, total_steps=20)
    assert filled.noise_multiplier is None
    assert privacy_event(filled, 5) == NonPrivate()
    private = resolve_privacy(asked(noise_multiplier=2.0), delta=1e-5, total_steps=20)
    assert privacy_event(private, 5) == PoissonSampledGaussian(2.0, 0.1, 5)


def test_noise_is_calibrated_from_a_target_in_one_place_for_jobs() -> None:
    root = Path(__file__).resolve().parents[3]
    users = {
        path.relative_to(root).as_posix()
        for package in ("aegis", "coreason_enclave")
        for path in (root / package).rglob("*.py")
        if "calibrate_noise(" in path.read_text(encoding="utf-8")
    }
    # About no job that runs: a command, the engine, and what a plan would have to change.
    questions = {"aegis/commands/privacy.py", "aegis/tuning/account.py", "coreason_enclave/accounting/fitting.py"}
    room = {f"coreason_enclave/accounting/{name}.py" for name in ("__init__", "calibration", "job_privacy")}
    assert users - questions == room
