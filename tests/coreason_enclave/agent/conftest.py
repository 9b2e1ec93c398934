from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.site.connection import Connection, load_connection
from tests.support.gatekeeping import Coordinator, SmallGateway


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path / "pki")


@pytest.fixture
def gateway(coordinator: Coordinator) -> Iterator[SmallGateway]:
    gateway = SmallGateway(coordinator.authority)
    with gateway.serving():
        yield gateway


@pytest.fixture
def site(federation: Any, coordinator: Coordinator, gateway: SmallGateway) -> Any:
    """A founded site that joined the gateway's federation."""
    site = federation.create()
    coordinator.join(site.folder, gateway.port)
    return site


@pytest.fixture
def connection(site: Any) -> Connection:
    return load_connection(site.folder)
