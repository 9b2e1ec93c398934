"""A site's ``flower-supernode``: its command line, its environment, and its signed leave before it starts again.

It listens on loopback, connects to loopback (the agent's tunnel), executes nothing itself (process isolation), and
shows the tunnel nothing but its signature. A SuperLink keeps a node that died for online for up to a minute and takes
no second activation meanwhile; told that the node left, it takes it back in seconds.
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

from coreason_enclave.site.tls_keys import NODE_KEY, load_node_key
from coreason_enclave.system.log_files import trim_log
from coreason_enclave.system.processes import spawn

__all__ = ["SuperNode", "last_node_id", "quiet_environment"]

_NODE_ID = re.compile(rb"SuperNode ID: (\d{1,20})")
_LEAVE_TIMEOUT_S = 5.0
_LEAVE_PATIENCE_S = 15.0
_LEAVE_EVERY_S = 0.5
_LOG_BYTES = 4 << 20
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


def quiet_environment(home: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a Flower process: its own home, no telemetry, no update checks, no proxy between loopbacks."""
    kept = {name: value for name, value in base.items() if name.lower() not in _PROXIES}
    return {
        **kept,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }


@dataclass
class SuperNode:
    """How to start it; tending is the caller's (:class:`coreason_enclave.system.processes.Child`).

    Attributes:
        home: a folder of its own, mode 0700. keys: the folder that holds the node key.
        superlink: ``host:port`` of the tunnel. root_certificate: what the tunnel's certificate is checked against.
        secret_file: holds the secret that whoever executes its tasks must know.
        log: where it writes, and where its node id is read from.
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
        """Where its tasks are to be had, or None before the first start."""
        return None if self._port is None else f"127.0.0.1:{self._port}"

    def start(self) -> subprocess.Popen[bytes]:
        """Take leave of the SuperLink where it was there before, then start. Raises :class:`ConfigurationError`.

        Where the gateway cannot be reached now, it is worth some seconds: a node that the SuperLink takes for online is
        not let in for a minute.
        """
        end = time.monotonic() + _LEAVE_PATIENCE_S
        while self._left_behind() and time.monotonic() < end:
            time.sleep(_LEAVE_EVERY_S)
        self.trim_log()
        self._port = _free_port()
        return spawn(self.command(self._port), log=self.log, env=quiet_environment(self.home))

    def trim_log(self) -> None:
        """Rotate its log where it has grown too large; the node id stays in it, to be found by the next start."""
        node_id = last_node_id(self.log) if self._is_large() else None
        if self._is_large() and trim_log(self.log, _LOG_BYTES) and node_id is not None:
            with self.log.open("a") as log:
                log.write(f"SuperNode ID: {node_id} (from the log before this one)\n")

    def _is_large(self) -> bool:
        return self.log.exists() and self.log.stat().st_size > _LOG_BYTES

    def command(self, port: int) -> list[str]:
        """The command line, with files instead of secrets."""
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
        """Tell the SuperLink that this node is gone. False where it never was there, or cannot be told now."""
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

    def _left_behind(self) -> bool:
        """Whether a SuperLink that could not be told just now may still take this node for online."""
        return last_node_id(self.log) is not None and not self.leave() and self._unheard


def last_node_id(log: Path) -> int | None:
    """The node id that a SuperNode wrote last; None where it never connected."""
    try:
        found = _NODE_ID.findall(log.read_bytes())
    except FileNotFoundError:
        return None
    return int(found[-1]) if found else None


def _free_port() -> int:
    """A port that was free just now. Whoever takes it first gets requests that are sealed and sign no secret away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
