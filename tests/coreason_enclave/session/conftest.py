"""Sites for one session: a public one in development, and a private one whose attester is not the simulated kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coreason_enclave.attestation.binding import report_data
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence, to_base64
from coreason_enclave.site import opening as site_rooms


class OtherAttester:
    """Evidence of a kind that production accepts to be produced; nothing here verifies it."""

    kind = CpuKind.TDX

    def produce(self, context: bytes) -> Evidence:
        return Evidence(cpu=CpuReport(kind=self.kind, report=to_base64(report_data(context, ()))))


@pytest.fixture
def other_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_rooms, "attester_named", lambda name: OtherAttester())


@pytest.fixture
def found_private(federation: Any, other_hardware: None) -> Callable[..., Any]:
    """Found a production site whose lineage is private."""

    def create(**changes: Any) -> Any:
        lineage = {"public": False, **changes.pop("lineage", {})}
        policy = {"unsafe_unattested_coordinator": True, **changes.pop("policy", {})}
        return federation.create(profile="production", attester="tdx", lineage=lineage, policy=policy, **changes)

    return create
