"""Submits a job to a running FLARE deployment with an administrator's startup kit, and waits for the job's end."""

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
from coreason_enclave.system import terminate

_PROCESS = "aegis.runtimes.nvflare.submission_process"


@dataclass(frozen=True)
class Submission:
    """One job for one deployment.

    Attributes:
        folder: parent of FLARE's job folder. note: file with the job's submit token until the job has ended.
        log: collects FLARE's output (appended).
        clients: names of clients to await before submission: all for a while, then only as many as the job needs.
    """

    kit: AdminKit
    job: FlareJob
    folder: Path
    note: Path
    log: Path
    clients: Collection[str] = ()


@contextmanager
def submitted(submission: Submission, *, linger_s: float = 0.0) -> Iterator[FlareProcess]:
    """Submit the job, or find its earlier submission, and await its end during the body. The job outlives the body."""
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
