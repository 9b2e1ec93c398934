"""A run as a process of its own: ``RUNTIME FEDERATION-FOLDER``, over the job in that folder."""

from __future__ import annotations

import sys
from pathlib import Path

from aegis.federation.job_files import load_job
from aegis.runs.connect import RuntimeName
from aegis.runs.runner import execute
from tests.conformance.runtimes import plan


def main() -> None:
    runtime, folder = RuntimeName(sys.argv[1]), Path(sys.argv[2])
    execute(load_job(folder / "job.yaml"), plan(runtime, folder))


if __name__ == "__main__":
    main()
