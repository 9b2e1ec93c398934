from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from aegis.coordination.admission import Admission
from aegis.coordination.orders import RoundRequest
from coreason_enclave.accounting import PoissonSampledGaussian, event_to_dict
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import Binding, Role
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.crypto.encoding import canonical_json, sha256_hex
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.ledger import LedgerHead
from coreason_enclave.ledger.signed_heads import seal_head
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import AggregationStrategy, FederationJob, Mechanism, PrivacyConfig, PrivacyUnit
from coreason_enclave.wire.documents import UPDATE_TYPE
from coreason_enclave.wire.updates import SealedMessage, encode_arrays, layout_of

NOW = 1_800_000_000
SITE = "hospital-a"
KEM_KEY = "e7" * 32


def a_job(**changes: Any) -> FederationJob:
    """A small DP job in which every value is explicit."""
    privacy = PrivacyConfig(
        mechanism=Mechanism.DP_SGD,
        target_epsilon=3.0,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        sample_rate=0.1,
        delta=1e-5,
        unit=PrivacyUnit.PERSON,
    )
    fields: dict[str, Any] = {
        "job_id": "study-1",
        "min_clients": 2,
        "rounds": 5,
        "strategy": AggregationStrategy.FED_AVG,
        "privacy": privacy,
        "dataset_id": "clinic/visits",
        "model_arch": "LogisticRegression",
        "local_steps": 4,
        "max_update_norm": 10.0,
    }
    return FederationJob(**{**fields, **changes})


@dataclass(frozen=True)
class Exchange:
    """One order and the honest site's answer, sealed with real components; ``changes`` falsify single fields."""

    job: FederationJob = field(default_factory=a_job)
    signer: Signer = field(default_factory=Signer.generate)
    nonce: str = "5e" * 32
    base: Mapping[str, np.ndarray] = field(
        default_factory=lambda: {"weight": np.zeros((1, 3), np.float32), "bias": np.zeros(1, np.float32)}
    )

    @property
    def question(self) -> RoundRequest:
        return RoundRequest(
            job=self.job,
            round_number=2,
            site_id=SITE,
            nonce=self.nonce,
            base_model_digest=sha256_hex(encode_arrays(self.base)),
        )

    def admission(self, profile: Profile = Profile.DEVELOPMENT) -> Admission:
        """The checks; arrays travel in the open."""
        appraiser = Appraiser(AttestationPolicy.simulated_only(), profile, NoEndorsements())
        layout = layout_of(self.base)
        return Admission(self.question, self.signer.public_hex, layout, appraiser, lambda message: message.arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weight": np.full((1, 3), 0.5, np.float32), "bias": np.ones(1, np.float32)}

    def evidence(self, **changes: str) -> dict[str, Any]:
        """What a simulated attester produces over the right context, or over one with ``changes``."""
        binding = Binding(
            role=Role.SITE,
            nonce=self.nonce,
            public_key=self.signer.public_hex,
            kem_key=KEM_KEY,
            subject=SITE,
            job_digest=self.job.digest(),
        )
        return SimulatedAttester().produce(replace(binding, **changes).context()).model_dump(mode="json")

    def head(self, seq: int = 3, site_id: str = SITE, signer: Signer | None = None) -> str:
        """A ledger head as the site signs it."""
        return seal_head(LedgerHead(seq=seq, hash="ab" * 32), site_id, signer or self.signer)

    def statement(self, **changes: Any) -> dict[str, Any]:
        honest: dict[str, Any] = {
            "version": 1,
            "site_id": SITE,
            "job_id": self.job.job_id,
            "job_digest": self.job.digest(),
            "round_number": 2,
            "nonce": self.nonce,
            "base_model_digest": self.question.base_model_digest,
            "update_digest": sha256_hex(encode_arrays(self.arrays())),
            "event": event_to_dict(PoissonSampledGaussian(1.0, 0.1, 4)),
            "noise_source": "site_keystream",
            "unit": "person",
            "delta": 1e-5,
            "epsilon": 1.0,
            "nominal_units": 5_000,
            "content_changed": False,
            "metrics": {},
            "kem_key": KEM_KEY,
            "evidence": self.evidence(),
            "ledger_head": {"seq": 3, "hash": "ab" * 32},
            "signed_head": self.head(),
            "log_seen": {"size": 4, "root": "0f" * 32},
        }
        return {**honest, **changes}

    def sealed(self, arrays: bytes | None = None, **changes: Any) -> SealedMessage:
        """The answer; an update that was exchanged for ``arrays`` is signed over as such."""
        payload = encode_arrays(self.arrays()) if arrays is None else arrays
        statement = self.statement(**{"update_digest": sha256_hex(payload), **changes})
        return SealedMessage(seal(UPDATE_TYPE, canonical_json(statement), self.signer), payload)


@pytest.fixture(scope="session")
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture(scope="session")
def job_with() -> Callable[..., FederationJob]:
    return a_job


@pytest.fixture(scope="session")
def exchange_of() -> Callable[..., Exchange]:
    return Exchange
