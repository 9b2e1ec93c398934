"""A job on a FLARE deployment that runs already: submitted with an administrator's startup kit, and waited for."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aegis.runtimes.nvflare.flare_process import FlareProcess, started
from aegis.runtimes.nvflare.job_folder import FlareJob, write_job_folder
from aegis.runtimes.nvflare.startup_kits import AdminKit
from coreason_enclave.system.processes import terminate

__all__ = ["Submission", "submitted"]

_PROCESS = "aegis.runtimes.nvflare.submission_process"


@dataclass(frozen=True)
class Submission:
    """One job for one deployment.

    Attributes:
        folder: of this run, for FLARE's job folder. note: names the submitted job until it has ended.
        log: what FLARE prints here is appended.
        clients: are waited for before the job is submitted: all of them for a while, then as many as the job needs.
    """

    kit: AdminKit
    job: FlareJob
    folder: Path
    note: Path
    log: Path
    clients: Collection[str] = ()


@contextmanager
def submitted(submission: Submission, *, linger_s: float = 0.0) -> Iterator[FlareProcess]:
    """Have the job submitted, or found, and waited for, during the body. It is not ended with the body."""
    job_folder = submission.folder / submission.job.job.job_id
    shutil.rmtree(job_folder, ignore_errors=True)
    write_job_folder(job_folder, submission.job)
    command = [sys.executable, "-m", _PROCESS, str(submission.kit.folder), str(job_folder), str(submission.note)]
    command += [str(submission.job.job.min_clients), *sorted(submission.clients)]
    running = started(command, submission.log, _environment(), linger_s=linger_s)
    try:
        yield running
    finally:
        terminate(running.process)


def _environment() -> Mapping[str, str]:
    return {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
