"""SuperLink as a child process: its files, command line, environment and health check.

SuperLink listens on loopback, with TLS, in process isolation:

- SuperLink starts no app of its own;
- only a client with the shared secret can acquire a task;
- every local user who can connect may use the control and runtime paths.

For the last reason only the gateway may stand in front of SuperLink.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from coreason_enclave.crypto import load_or_create_secret

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class SuperLinkEndpoint:
    """Address and credentials of a SuperLink, for clients on the same host.

    Attributes:
        address: ``127.0.0.1:port``.
        ca_certificate: file (PEM) that verifies SuperLink's certificate.
        secret: file with the secret required to acquire a task.
    """

    address: str
    ca_certificate: Path
    secret: Path

    def serves(self, *, timeout_s: float = 1.0) -> bool:
        """Return True if SuperLink answers over TLS now."""
        context = ssl.create_default_context(cafile=str(self.ca_certificate))
        try:
            with httpx.Client(verify=context, timeout=timeout_s, trust_env=False) as client:
                return client.get(f"https://{self.address}/health").is_success
        except httpx.HTTPError:
            return False


@dataclass(frozen=True)
class SuperLinkFiles:
    """SuperLink's files in ``coordinator/flower`` of a federation folder; mode 0700, because the files hold tokens.

    Attributes:
        folder: ``coordinator/flower``. pki: ``coordinator/pki``.
    """

    folder: Path
    pki: Path

    @property
    def database(self) -> Path:
        """SuperLink's durable state: nodes, runs, messages."""
        return self.folder / "superlink.sqlite"

    @property
    def secret(self) -> Path:
        """The secret shared with the coordinator."""
        return self.folder / "superexec.secret"

    @property
    def home(self) -> Path:
        """``FLWR_HOME``."""
        return self.folder / "home"

    def prepare(self) -> None:
        """Create the folders, and create the secret once."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.home.mkdir(mode=0o700, exist_ok=True)
        load_or_create_secret(self.secret)

    def endpoint(self, port: int) -> SuperLinkEndpoint:
        """Return the endpoint of a SuperLink on ``port``."""
        return SuperLinkEndpoint(f"{LOOPBACK}:{port}", self.pki / "ca.crt", self.secret)


def superlink_command(files: SuperLinkFiles, *, port: int, health_port: int) -> list[str]:
    """Return the command line of ``flower-superlink``. The command line names secret files, never their content."""
    return [
        str(Path(sys.executable).with_name("flower-superlink")),
        *("--host", LOOPBACK),
        *("--port", str(port)),
        *("--ssl-ca-certfile", str(files.pki / "ca.crt")),
        *("--ssl-certfile", str(files.pki / "superlink.crt")),
        *("--ssl-keyfile", str(files.pki / "superlink.key")),
        "--enable-supernode-auth",
        *("--database", str(files.database)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(files.secret)),
        "--disable-runtime-dependency-installation",
        *("--health-server-address", f"{LOOPBACK}:{health_port}"),
    ]


def flower_environment(flower_home: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a Flower process: no telemetry, no update check, no proxy before loopback."""
    excluded = ",".join(filter(None, [environment.get("NO_PROXY"), LOOPBACK, "localhost"]))
    return {
        **environment,
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": excluded,
        "no_proxy": excluded,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")]),
    }
