"""The one way in which these tests ask for a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coreason_enclave.attestation.verify.snp import SnpPlatformPolicy
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from tests.coreason_enclave.attestation.snp.hierarchy import DATA, NOW, Vendor, verifier


def _verdict(report: bytes, endorsements: Any, **changes: Any) -> Authentic:
    policy = changes.pop("policy", SnpPlatformPolicy())
    now = changes.pop("now", NOW)
    return verifier().verify(report, endorsements, policy, now, report_data=changes.pop("report_data", DATA))


@pytest.fixture(scope="session")
def verdict() -> Callable[..., Authentic]:
    """Verify under our own vendor's roots."""
    return _verdict


@pytest.fixture(scope="session")
def refusal() -> Callable[..., Refusal]:
    """The code with which our own vendor's verifier refuses."""

    def refuse(report: bytes, endorsements: Any, **changes: Any) -> Refusal:
        with pytest.raises(VerificationRefused) as refused:
            _verdict(report, endorsements, **changes)
        return refused.value.refusal

    return refuse


@pytest.fixture(scope="session")
def milan() -> Vendor:
    return Vendor()
