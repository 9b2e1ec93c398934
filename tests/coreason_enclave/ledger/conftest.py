"""One lineage, one job, and the numbers that follow from them by hand.

With noise multiplier 1 at rate 0.05, a target of epsilon 3 at delta 1e-5 affords 68 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.ledger import (
    LineageCaps,
    LineageRegistration,
    NoiseSource,
    NonPrivatePlan,
    RoundPlan,
    SqliteLedger,
)
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit

LINEAGE = "clinic/visits"


def registration(**changes: Any) -> LineageRegistration:
    fields: dict[str, Any] = {
        "lineage": LINEAGE,
        "unit": PrivacyUnit.PERSON,
        "neighboring_relation": NeighboringRelation.ADD_OR_REMOVE_ONE,
        "nominal_units": 5_000,
        "public": False,
        "caps": LineageCaps(epsilon=8.0, delta=1e-5, job_epsilon=3.0, job_delta=1e-5),
        "filter_order": 4,
    }
    return LineageRegistration(**{**fields, **changes})


def plan(**changes: Any) -> RoundPlan:
    fields: dict[str, Any] = {
        "job_id": "study-1",
        "job_digest": "ab" * 32,
        "round_number": 0,
        "unit": PrivacyUnit.PERSON,
        "noise_multiplier": 1.0,
        "sample_rate": 0.05,
        "steps": 10,
        "total_steps": 100,
        "target_epsilon": 3.0,
        "delta": 1e-5,
        "noise_source": NoiseSource.SITE_KEYSTREAM,
    }
    return RoundPlan(**{**fields, **changes})


def non_private(**changes: Any) -> NonPrivatePlan:
    fields: dict[str, Any] = {
        "job_id": "twin",
        "job_digest": "ba" * 32,
        "round_number": 0,
        "unit": PrivacyUnit.PERSON,
        "steps": 10,
    }
    return NonPrivatePlan(**{**fields, **changes})


@pytest.fixture
def make_registration() -> Callable[..., LineageRegistration]:
    return registration


@pytest.fixture
def make_plan() -> Callable[..., RoundPlan]:
    return plan


@pytest.fixture
def make_non_private() -> Callable[..., NonPrivatePlan]:
    return non_private


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site" / "ledger.db"


@pytest.fixture
def used(path: Path) -> SqliteLedger:
    """A durable ledger with a lineage, a committed round and an open one."""
    ledger = SqliteLedger(path, clock=lambda: 1_700_000_000)
    ledger.register(registration())
    done = ledger.reserve(LINEAGE, plan(), "01" * 32, require_all=True)
    ledger.commit(done.reservation_id, done.event, "ee" * 32)
    ledger.reserve(LINEAGE, plan(round_number=1), "02" * 32, require_all=True)
    return ledger
