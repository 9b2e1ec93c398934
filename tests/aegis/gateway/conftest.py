from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.federation.registry import FederationConfig
from tests.aegis.gateway.gateways import (
    FakeSuperLink,
    Federation,
    RunningGateway,
    founded,
    running_gateway,
    running_superlink,
)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return founded(tmp_path)


@pytest.fixture
def superlink() -> FakeSuperLink:
    return FakeSuperLink()


@pytest.fixture
def superlink_port(federation: Federation, superlink: FakeSuperLink) -> Iterator[int]:
    with running_superlink(superlink, federation.folder.coordinator / "pki") as port:
        yield port


@pytest.fixture(scope="module")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    federation, superlink = founded(tmp_path_factory.mktemp("federation")), FakeSuperLink()
    with (
        running_superlink(superlink, federation.folder.coordinator / "pki") as port,
        running_gateway(federation, superlink, port) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def first_registry(shared_gateway: RunningGateway) -> FederationConfig:
    return shared_gateway.federation.folder.config()


@pytest.fixture
def gateway(shared_gateway: RunningGateway, first_registry: FederationConfig) -> RunningGateway:
    """A gateway with two participants: one a module, as if it were new for each test."""
    shared_gateway.reset(first_registry)
    return shared_gateway
