"""Joins the sites whose folders lie on this host to the federation, through the same commands that an operator types.

Each site runs in its own agent. The platform never opens a local site: the platform starts the site's processes and
reads the site's ledger, which holds no row and no key.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aegis.errors import RunFolderError
from aegis.federation import FederationFolder
from aegis.gateway import GatewayConfig
from aegis.security import certificate_fingerprint
from aegis.services import admit, prepare_network
from coreason_enclave.configuration import read_toml
from coreason_enclave.errors import ConfigurationError

_SITE = (sys.executable, "-m", "coreason_enclave.main")
_ATTACKER = (sys.executable, "-m", "aegis.attacks.hostile.simulated_agent")
_TIMEOUT_S = 120.0


def join_local_sites(federation: FederationFolder) -> None:
    """Request, admit and join every registered local site that has no valid connection yet.

    Raises:
        RunFolderError: a command of the site failed; the message quotes the command's last error line.
    """
    gateway, config = prepare_network(federation), federation.config()
    folders = [folder for folder in federation.site_folders() if folder.name in config.public_keys]
    waiting = [folder for folder in folders if not _has_joined(folder, federation, gateway)]
    with tempfile.TemporaryDirectory(prefix="aegis-joining-") as scratch, ThreadPoolExecutor(2) as threads:
        requests = [Path(scratch) / f"{folder.name}.request.json" for folder in waiting]
        list(threads.map(_request, waiting, requests))
        grants = [_admit(federation, request) for request in requests]
        list(threads.map(_join, waiting, grants, [federation.signer().public_hex] * len(waiting)))


def agent_command(folder: Path, *, unsafe_seed: int | None, hostile: bool) -> list[str]:
    """Return the command line of a local site's agent; ``hostile`` starts a simulated attacker, for demonstrations."""
    command = [*(_ATTACKER if hostile else (*_SITE, "agent")), "--config", str(folder / "site.toml")]
    return command if unsafe_seed is None else [*command, "--unsafe-seed", str(unsafe_seed)]


def _has_joined(folder: Path, federation: FederationFolder, gateway: GatewayConfig) -> bool:
    """Return True if the site holds the certificate pinned in the registry and knows the gateway's current address."""
    try:
        connection = read_toml(folder / "connection.toml")
        pinned = certificate_fingerprint((folder / "connection" / "client.crt").read_bytes())
    except (OSError, ConfigurationError):
        return False
    known = federation.config().certificates.get(folder.name)
    return pinned == known and connection.get("gateway") == gateway.public_address


def _request(folder: Path, request: Path) -> None:
    _run([*_SITE, "request", str(folder), "--out", str(request)], folder)


def _admit(federation: FederationFolder, request: Path) -> Path:
    _, grant = admit(federation, request.read_bytes())
    path = request.with_suffix(".grant")
    path.write_bytes(grant)
    return path


def _join(folder: Path, grant: Path, coordinator_key: str) -> None:
    _run([*_SITE, "join", str(folder), str(grant), "--coordinator-key", coordinator_key], folder)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)  # noqa: S603 - our own
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RunFolderError(f"site {folder.name} cannot join: {last_line}") from error
    except subprocess.TimeoutExpired as error:
        raise RunFolderError(f"site {folder.name} cannot join: no answer in {_TIMEOUT_S:g} s") from error
