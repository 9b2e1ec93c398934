"""A run as a process of its own: ``RUNTIME FEDERATION-FOLDER``, over the job in that folder."""

from __future__ import annotations

import sys
from pathlib import Path

from aegis.jobs import load_job
from aegis.runs.execution import execute
from aegis.runs.runtimes import RuntimeName
from tests.conformance.runtimes import execution


def main() -> None:
    runtime, folder = RuntimeName(sys.argv[1]), Path(sys.argv[2])
    execute(load_job(folder / "job.yaml"), execution(runtime, folder))


if __name__ == "__main__":
    main()
