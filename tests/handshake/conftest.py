"""A pair of hosts, and the job that they attest for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.schemas import FederationJob
from tests.conftest import job as small_job
from tests.handshake.parties import Pair


@pytest.fixture
def job() -> FederationJob:
    return small_job()


@pytest.fixture
def pair_of(tmp_path: Path, job: FederationJob) -> Callable[..., Pair]:
    """A pair under a folder of its own; options are :class:`Pair`'s."""
    numbers = iter(range(100))
    return lambda **options: Pair(tmp_path / f"pair-{next(numbers)}", **{"job": job, **options})


@pytest.fixture
def pair(pair_of: Callable[..., Any]) -> Pair:
    made: Pair = pair_of()
    return made
