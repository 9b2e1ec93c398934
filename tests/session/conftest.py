"""Sites for one session: a public one in development, and a private one whose attester is not the simulated kind."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from coreason_enclave import site as site_rooms
from coreason_enclave.attestation.evidence import Evidence


class OtherAttester:
    """Evidence of a kind that production accepts to be produced; nothing here verifies it."""

    kind = "other-hardware"

    def produce(self, report_data: bytes) -> Evidence:
        return Evidence(kind=self.kind, report=base64.b64encode(report_data).decode())


@pytest.fixture
def other_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(site_rooms._ATTESTERS, OtherAttester.kind, OtherAttester)


@pytest.fixture
def found_private(federation: Any, other_hardware: None) -> Callable[..., Any]:
    """Found a production site whose lineage is private."""

    def found(**changes: Any) -> Any:
        lineage = {"public": False, **changes.pop("lineage", {})}
        return federation.found(profile="production", attester=OtherAttester.kind, lineage=lineage, **changes)

    return found
