"""Jobs with client-level privacy, and a coordinator's own ledger and key for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegis.client_privacy import ClientPrivacy
from coreason_enclave.accounting import PoissonSampledGaussian
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.job_keys import UnsafeSeededNoise
from coreason_enclave.ledger import LineageCaps, SqliteLedger
from coreason_enclave.schemas import FederationJob, Provenance
from coreason_enclave.wire.updates import AdmittedUpdate, encode_arrays

CAPS = LineageCaps(epsilon=50.0, delta=1e-3, job_epsilon=40.0, job_delta=1e-3)
CLIENT = {"target_epsilon": 30.0, "delta": 1e-3, "noise_multiplier": 1.0, "clip_norm": 0.5, "sample_rate": 0.5}


@dataclass(frozen=True)
class Promises:
    """A coordinator's folder, and the jobs that it keeps promises of there."""

    folder: Path
    make_job: Callable[..., FederationJob]

    def job(self, **changes: Any) -> FederationJob:
        """Two rounds over three sites; ``client`` holds the changes of the client-level part."""
        client = {**CLIENT, **changes.pop("client", {})}
        fields = {"min_clients": 3, "rounds": 2, "local_steps": 2, "client_privacy": client}
        return self.make_job(**{**fields, **changes})

    @contextmanager
    def kept(
        self, job: FederationJob, *, seed: int = 1, caps: LineageCaps = CAPS, folder: Path | None = None
    ) -> Iterator[ClientPrivacy]:
        """Keys from a seed, a ledger on disk."""
        ledger = SqliteLedger((self.folder if folder is None else folder) / "ledger.sqlite")
        assert job.client_privacy is not None
        try:
            yield ClientPrivacy(job, job.client_privacy, ledger, caps, UnsafeSeededNoise(bytes([seed]) * 32))
        finally:
            ledger.close()


Kept = Callable[..., AbstractContextManager[ClientPrivacy]]


@pytest.fixture
def promises(tmp_path: Path, federation: Any) -> Promises:
    return Promises(tmp_path / "coordinator", federation.job)


@pytest.fixture
def admitted() -> Callable[[Mapping[str, list[float]]], list[AdmittedUpdate]]:
    """Admitted updates of one tensor ``w`` by site."""

    def make(values: Mapping[str, list[float]]) -> list[AdmittedUpdate]:
        updates = []
        for site, numbers in values.items():
            arrays = {"w": np.array(numbers, np.float32)}
            event = PoissonSampledGaussian(2.0, 0.5, 2)
            digest = sha256_hex(encode_arrays(arrays))
            updates.append(AdmittedUpdate(site, arrays, digest, event, Provenance.SIMULATED))
        return updates

    return make
