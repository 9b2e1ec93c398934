"""Reservations without a ledger, and one private step taken apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleHooks

from coreason_enclave.accounting.events import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.ledger import EphemeralLedger, LineageCaps, LineageRegistration, NoiseSource, Reservation
from coreason_enclave.privacy.gate import Batch, StepGate
from coreason_enclave.privacy.keystream import Keystream
from coreason_enclave.privacy.optimizer import PrivateOptimizer, UnitClippingOptimizer
from coreason_enclave.privacy.scope import TrainingScope
from coreason_enclave.schemas import Mechanism, NeighboringRelation, PrivacyConfig, PrivacyUnit

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def keystream_of(key: int = 0, **changes: Any) -> Keystream:
    names = {"job_digest": "00", "round_number": 1, "base_model_digest": "01", "dataset_digest": "02", **changes}
    return Keystream(bytes([key]) * 32, **names)


@dataclass
class Steps:
    """Takes the private step apart: the clipped sum over a batch that is given, before the noise."""

    loss: Loss = torch.nn.functional.mse_loss
    without_mechanism: bool = False

    def clipped_sum(
        self, model: torch.nn.Module, features: torch.Tensor, targets: torch.Tensor, units: Any, norm: float
    ) -> torch.Tensor:
        """The sum of the clipped unit gradients, all parameters in one float64 vector."""
        codes = np.unique(np.asarray(units), return_inverse=True)[1].astype(np.int64)
        gate = StepGate(1, None)
        gate.drawn(Batch(np.arange(len(codes)), codes, len(set(codes.tolist()))))
        hooks = GradSampleHooks(model, loss_reduction="mean")
        plain = torch.optim.SGD(model.parameters(), lr=0.0)
        settings: dict[str, Any] = {
            "names": {parameter: name for name, parameter in model.named_parameters()},
            "gate": gate,
            "max_grad_norm": norm,
            "noise_multiplier": 1.0,
            "expected_units": 1.0,
        }
        optimizer = (
            UnitClippingOptimizer(plain, **settings)
            if self.without_mechanism
            else PrivateOptimizer(plain, keystream=keystream_of(), **settings)
        )
        try:
            self.loss(model(features), targets).backward()
            optimizer.pre_step()
            return torch.cat([parameter.summed_grad.reshape(-1) for parameter in model.parameters()])
        finally:
            hooks.cleanup()


@pytest.fixture(scope="session")
def steps() -> Steps:
    return Steps()


@pytest.fixture
def make_scope() -> Callable[..., TrainingScope]:
    """A scope as a session opens it; every value can be replaced."""

    def make(
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
    ) -> TrainingScope:
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
        return TrainingScope(config, config, reservation, gate, keystream, nominal_units, unit_of_row)

    return make


@pytest.fixture
def ledger() -> EphemeralLedger:
    """A ledger with the lineage ``clinic``: records, 1000 nominal units."""
    made = EphemeralLedger()
    made.register(
        LineageRegistration.with_best_order(
            lineage="clinic",
            unit=PrivacyUnit.RECORD,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            nominal_units=1000,
            public=False,
            caps=LineageCaps(epsilon=10.0, delta=1e-5, job_epsilon=5.0, job_delta=1e-5),
        )
    )
    return made


@pytest.fixture
def keystreams() -> Callable[..., Keystream]:
    return keystream_of
