"""The process that submits a job to a running FLARE server over FLARE's own admin API, and waits for the job's end.

    python -m aegis.runtimes.nvflare.submission_process KIT JOB_FOLDER NOTE NEEDED CLIENT...

:mod:`aegis.runtimes.nvflare.deployment` starts this process.

- ``NOTE`` is a file with the submitted job's token. Until the job has ended, the same command waits for the job instead
  of submitting another.
- The process first waits for every ``CLIENT`` for a while, then for ``NEEDED`` of the clients.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from aegis.errors import AegisError, RunFolderError, TransportUnavailable
from aegis.runtimes.nvflare.flare_process import OWN
from aegis.runtimes.nvflare.startup_kits import AdminKit, read_admin_kit
from coreason_enclave.system import replace_file

_Answer = TypeVar("_Answer")

_LOGIN_S: Final = 10.0
_PATIENCE_S: Final = 60.0
"""Seconds for which a request to a silent server is retried."""
_POLL_S: Final = 0.5
_CLIENTS_S: Final = 60.0
_STRAGGLERS_S: Final = 15.0
"""Seconds to wait for clients beyond the needed number."""
_GOING_ON = ("SUBMITTED", "APPROVED", "DISPATCHED", "RUNNING")


class _Server:
    """A client of FLARE's server that opens a new session after a failure."""

    def __init__(self, kit: AdminKit) -> None:
        self._kit = kit
        self._session: Session | None = None

    def ask(self, question: Callable[[Session], _Answer], patience_s: float = _PATIENCE_S) -> _Answer:
        """Send a request, and retry for a while after errors. Raises :class:`TransportUnavailable`."""
        end = time.monotonic() + patience_s
        while True:
            try:
                return question(self._connected())
            except Exception as error:  # FLARE raises many kinds for a broken connection
                self._session = None
                if time.monotonic() > end:
                    _log(error)
                    raise TransportUnavailable(f"FLARE's server {self._kit.server} does not answer") from error
            time.sleep(_POLL_S)

    def once(self, question: Callable[[Session], _Answer]) -> _Answer:
        """Send a request once, and connect first if necessary. Passes on FLARE's exceptions."""
        return question(self._connected())

    def _connected(self) -> Session:
        if self._session is None:
            self._session = new_secure_session(self._kit.username, str(self._kit.folder), timeout=_LOGIN_S)
        return self._session


def main(arguments: list[str]) -> int:
    """Submit or find the job and wait for its end. Return 0 once the job has ended, however; 2 after an error."""
    kit, job_folder, note, needed, *clients = arguments
    try:
        server = _Server(read_admin_kit(Path(kit)))
        token = _unfinished(server, Path(note))
        if token is None:
            token = secrets.token_hex(16)
            replace_file(Path(note), json.dumps({"submit_token": token}).encode())
            _await(server, set(clients), int(needed))
            _submit(server, Path(job_folder), token)
        status = _ended(server, token)
    except AegisError as error:
        _print_line(str(error))
        return 2
    Path(note).unlink(missing_ok=True)
    _print_line(f"NVIDIA FLARE ended the job: {status}")
    return 0


def _unfinished(server: _Server, note: Path) -> str | None:
    """Return the token of an earlier process's job, or None if the job has ended or never began."""
    try:
        token = str(json.loads(note.read_bytes())["submit_token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return token if _is_running(_status(server, token)) else None


def _await(server: _Server, clients: set[str], needed: int) -> None:
    """Wait until the clients are connected or their time is up. FLARE starts the job on the connected clients."""
    began = time.monotonic()
    while missing := clients - _connected(server):
        waited_s = time.monotonic() - began
        if waited_s > _CLIENTS_S or (waited_s > _STRAGGLERS_S and len(clients) - len(missing) >= needed):
            break
        time.sleep(_POLL_S)
    if missing:
        _print_line(f"sites not connected: {', '.join(sorted(missing))}")


def _connected(server: _Server) -> set[str]:
    known = server.ask(lambda session: session.get_system_info(), patience_s=_LOGIN_S).client_info
    return {client.name for client in known}


def _submit(server: _Server, job_folder: Path, token: str) -> None:
    """Submit the job. FLARE creates one job per token, however often the token is submitted."""
    try:
        server.once(lambda session: session.submit_job(str(job_folder), submit_token=token))
    except AegisError:
        raise
    except Exception as error:  # FLARE raises many kinds for a rejected job
        _log(error)
        raise RunFolderError("NVIDIA FLARE does not accept the job") from error


def _ended(server: _Server, token: str) -> str:
    while _is_running(status := _status(server, token)):
        time.sleep(_POLL_S)
    return status or "unknown to the server"


def _is_running(status: str | None) -> bool:
    return status is not None and status.startswith(_GOING_ON)


def _status(server: _Server, token: str) -> str | None:
    """Return FLARE's status of the job; None if the server knows no such job."""
    jobs = server.ask(lambda session: session.list_jobs(submit_token=token))
    return str(jobs[0].get("status")) if jobs else None


def _log(error: Exception) -> None:
    """Write FLARE's own error to the log."""
    sys.stderr.write(f"{type(error).__name__}: {error}\n")


def _print_line(line: str) -> None:
    """Write a prefixed line to the log that also collects FLARE's own lines."""
    sys.stdout.write(f"\n{OWN}{' '.join(line.split())}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Not sys.exit: leftover threads of FLARE's session would keep this process and its waiting parent alive.
    os._exit(main(sys.argv[1:]))
