"""A site's ``flower-supernode``: its command line, its environment, and its signed sign-off before a restart.

The SuperNode

- listens on loopback and connects to loopback (the agent's tunnel);
- executes no task itself (process isolation);
- shows the tunnel only its signature.

SuperLink treats a dead node as online for up to a minute and accepts no second activation meanwhile. After a sign-off,
SuperLink accepts the node again within seconds.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from coreason_enclave.site import NODE_KEY, load_node_key
from coreason_enclave.system import spawn, trim_log

_NODE_ID = re.compile(rb"SuperNode ID: (\d{1,20})")
_LEAVE_TIMEOUT_S = 5.0
_LEAVE_PATIENCE_S = 15.0
_LEAVE_EVERY_S = 0.5
_LOG_BYTES = 4 << 20
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


def quiet_environment(flower_home: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a Flower process's environment: own home, no telemetry, no update check, no proxy between loopbacks."""
    kept = {name: value for name, value in base.items() if name.lower() not in _PROXIES}
    return {
        **kept,
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }


@dataclass
class SuperNode:
    """Starts a SuperNode. The caller keeps it running (:class:`coreason_enclave.system.processes.SupervisedProcess`).

    Attributes:
        home: a folder of its own, mode 0700. keys: the folder that holds the node key.
        superlink: ``host:port`` of the tunnel. root_certificate: verifies the tunnel's certificate.
        secret_file: holds the secret required to execute the SuperNode's tasks.
        log: the SuperNode's log, from which the node id is read.
    """

    home: Path
    keys: Path
    superlink: str
    root_certificate: Path
    secret_file: Path
    log: Path
    _port: int | None = field(default=None, init=False)
    _unheard: bool = field(default=False, init=False)

    @property
    def runtime_address(self) -> str | None:
        """Address from which to fetch tasks; None before the first start."""
        return None if self._port is None else f"127.0.0.1:{self._port}"

    def start(self) -> subprocess.Popen[bytes]:
        """Sign off from SuperLink if the node was online before, and start the SuperNode.

        If the gateway cannot be reached, retry the sign-off for some seconds: while SuperLink believes the node online,
        SuperLink rejects the node, for up to a minute.

        Raises:
            ConfigurationError: the SuperNode cannot be started.
        """
        end = time.monotonic() + _LEAVE_PATIENCE_S
        while self._may_be_online() and time.monotonic() < end:
            time.sleep(_LEAVE_EVERY_S)
        self.trim_log()
        self._port = _free_port()
        return spawn(self.command(self._port), log=self.log, env=quiet_environment(self.home))

    def trim_log(self) -> None:
        """Rotate an overgrown log. The new log repeats the node id for the next start."""
        node_id = last_node_id(self.log) if self._is_large() else None
        if self._is_large() and trim_log(self.log, _LOG_BYTES) and node_id is not None:
            with self.log.open("a") as log:
                log.write(f"SuperNode ID: {node_id} (from the log before this one)\n")

    def _is_large(self) -> bool:
        return self.log.exists() and self.log.stat().st_size > _LOG_BYTES

    def command(self, port: int) -> list[str]:
        """Return the command line, with files instead of secrets."""
        return [
            str(Path(sysconfig.get_path("scripts")) / "flower-supernode"),
            *("--superlink", self.superlink),
            *("--root-certificates", str(self.root_certificate)),
            *("--auth-supernode-private-key", str(self.keys / NODE_KEY)),
            *("--isolation", "process"),
            *("--superexec-auth-secret-file", str(self.secret_file)),
            *("--host", "127.0.0.1"),
            *("--port", str(port)),
        ]

    def leave(self) -> bool:
        """Sign the node off from SuperLink. Return False if the node was never online, or if the sign-off fails now."""
        node_id = last_node_id(self.log)
        if node_id is None:
            return False
        key = load_node_key(self.keys)
        signed = NodeAuthHttpInterceptor(key, key.public_key())
        version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
        trusted = ssl.create_default_context(cafile=str(self.root_certificate))
        client = FleetHttpClient(
            f"https://{self.superlink}", interceptors=[version, signed], verify=trusted, timeout=_LEAVE_TIMEOUT_S
        )
        try:
            client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
        except httpx.HTTPStatusError as error:
            self._unheard = error.response.is_server_error
            return False
        except (httpx.HTTPError, RuntimeError):
            self._unheard = True
            return False
        finally:
            client.close()
        self._unheard = False
        return True

    def _may_be_online(self) -> bool:
        """Return True if an unreachable SuperLink may still believe this node online."""
        return last_node_id(self.log) is not None and not self.leave() and self._unheard


def last_node_id(log: Path) -> int | None:
    """Return the node id that a SuperNode logged last; None if the SuperNode never connected."""
    try:
        ids = _NODE_ID.findall(log.read_bytes())
    except FileNotFoundError:
        return None
    return int(ids[-1]) if ids else None


def _free_port() -> int:
    """Return a port that was free just now.

    A process that takes the port first receives only sealed requests and no secret.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
