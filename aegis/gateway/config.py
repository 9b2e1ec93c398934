"""``coordinator/gateway.toml``: the gateway's addresses, its upstream and its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import AfterValidator, Field

from aegis.errors import RunFolderError
from aegis.http import GatewayLimits
from coreason_enclave.configuration import missing, read_toml_as
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import FormatVersion, StrictModel, in_range
from coreason_enclave.wire import parse_address


def _an_address(text: str) -> str:
    parse_address(text)
    return text


Address = Annotated[str, Field(max_length=300), AfterValidator(_an_address)]
Port = Annotated[int, *in_range(1, 65535)]


class GatewayConfig(StrictModel):
    """The operator's settings for the gateway.

    Attributes:
        host: listening address; loopback unless sites on other hosts connect.
        public_address: ``host:port`` as published to sites; the gateway's certificate names its host.
        superlink_port: SuperLink's port on loopback.
        max_object_bytes: maximum size of an object that a site may send, in practice an update's arrays.
        body_idle_s: seconds without a byte before the gateway abandons a request's body.
        min_bytes_per_s: minimum average rate of a request's body.
        limits: the share of the gateway that each party may use.
    """

    version: FormatVersion = 1
    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    port: Port
    public_address: Address
    superlink_port: Port
    max_object_bytes: Annotated[int, *in_range(1 << 16, 1 << 34)] = 1 << 28
    body_idle_s: Annotated[float, *in_range(0.1, 600)] = 15.0
    min_bytes_per_s: Annotated[int, *in_range(1, 1 << 30)] = 1 << 14
    limits: GatewayLimits = GatewayLimits()


class GatewayFiles:
    """Paths of the gateway's files below a federation folder's ``coordinator/``."""

    def __init__(self, coordinator: Path) -> None:
        self.config_file = coordinator / "gateway.toml"
        self.audit = coordinator / "gateway.audit.jsonl"
        self.nodes = coordinator / "gateway.nodes.json"
        self.control_socket = coordinator / "flower" / "gateway.sock"
        self.authority = coordinator / "pki" / "ca.crt"
        self.certificate = coordinator / "pki" / "gateway.crt"
        self.key = coordinator / "pki" / "gateway.key"

    def config(self) -> GatewayConfig:
        """Read ``gateway.toml``; raises :class:`RunFolderError`."""
        path = self.config_file
        try:
            return read_toml_as(path, GatewayConfig)
        except ConfigurationError as error:
            advice = ": the federation has no gateway yet" if missing(error) else ""
            raise RunFolderError(f"{error}{advice}") from error

    def save(self, config: GatewayConfig) -> None:
        """Write ``gateway.toml``."""
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(tomli_w.dumps(config.model_dump(mode="json")), encoding="utf-8")
