"""Reservations without a ledger, and one private step taken apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from coreason_enclave.crypto.keystream import Keystream
from coreason_enclave.ledger import EphemeralLedger, LineageCaps, LineageRegistration
from coreason_enclave.privacy.kernel import GradientKernel
from coreason_enclave.privacy.kernel.blocks import Blocks, filled
from coreason_enclave.privacy.optimizer import PrivateOptimizer, UnitClippingOptimizer
from coreason_enclave.privacy.scope import TrainingScope
from coreason_enclave.privacy.step_gate import Batch, StepGate
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit
from tests.support.training_scopes import a_scope, keystream_of

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
        order = np.argsort(codes, kind="stable")
        batch = Batch(order, codes[order], len(set(codes.tolist())))
        gate = StepGate(1, None)
        gate.drawn(batch)
        kernel = GradientKernel(model, Blocks(64), one_row=batch.units == len(codes))
        plain = torch.optim.SGD(model.parameters(), lr=0.0)
        settings: dict[str, Any] = {
            "kernel": kernel,
            "rehearsal": None,
            "names": {parameter: name for name, parameter in model.named_parameters()},
            "gate": gate,
            "max_grad_norm": norm,
            "noise_multiplier": 1.0,
            "expected_units": 1.0,
            "drift": None,
        }
        optimizer = (
            UnitClippingOptimizer(plain, **settings)
            if self.without_mechanism
            else PrivateOptimizer(plain, keystream=keystream_of(), **settings)
        )
        try:
            size = kernel.serve(len(order))
            self.loss(model(filled(features[order], size)), filled(targets[order], size)).backward()
            optimizer.pre_step()
            return torch.cat([parameter.summed_grad.reshape(-1) for parameter in model.parameters()])
        finally:
            kernel.detach()


@pytest.fixture(scope="session")
def steps() -> Steps:
    return Steps()


@pytest.fixture
def make_scope() -> Callable[..., TrainingScope]:
    """See :func:`tests.support.training_scopes.a_scope`."""
    return a_scope


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
