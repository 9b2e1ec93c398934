from __future__ import annotations

from collections.abc import Callable

import pytest

from coreason_enclave.attestation.verify.dcap import DcapEndorsements, DcapPlatformPolicy
from coreason_enclave.attestation.verify.verdict import Authentic, VerificationRefused
from tests.coreason_enclave.attestation.dcap.hierarchy import NOW, Intel

ACCEPTS = DcapPlatformPolicy()


def judge(
    world: Intel,
    *,
    quote: bytes | None = None,
    endorsements: DcapEndorsements | None = None,
    policy: DcapPlatformPolicy = ACCEPTS,
    now: int = NOW,
    report_data: bytes | None = None,
    kind: str | None = None,
) -> Authentic:
    """Verify under the world's own root."""
    return world.verifier.verify(
        kind or world.kind,
        world.quote() if quote is None else quote,
        world.endorsements() if endorsements is None else endorsements,
        policy,
        now,
        report_data=report_data,
    )


@pytest.fixture(scope="session")
def verdict() -> Callable[..., str]:
    """``authentic``, or the stable code of the refusal; anything else that is raised fails the test."""

    def of(world: Intel, **options: object) -> str:
        try:
            judge(world, **options)  # type: ignore[arg-type]
        except VerificationRefused as refused:
            return refused.refusal.value
        return "authentic"

    return of


@pytest.fixture(scope="session")
def sgx() -> Intel:
    return Intel(kind="sgx")


@pytest.fixture(scope="session")
def tdx() -> Intel:
    return Intel(kind="tdx")
