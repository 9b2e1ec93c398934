"""The process that FLARE's simulator runs in: its server is this process, its clients are children of it.

    python -m aegis.runtimes.nvflare.simulator_process WORKSPACE JOB_FOLDER THREADS CLIENT...

Started by :mod:`aegis.runtimes.nvflare.simulator`. FLARE's own entry puts a process in between that outlives whoever
started it; its clients end within a second or two of this process, however it ended.
"""

from __future__ import annotations

import sys

from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

from aegis.runtimes.nvflare.cell_gate import do_without

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run one job in the simulator; FLARE's exit status."""
    workspace, job_folder, threads, *clients = arguments
    do_without()
    runner = SimulatorRunner(
        job_folder=job_folder,
        workspace=workspace,
        clients=",".join(clients),
        threads=int(threads),
        max_clients=len(clients),
        end_run_for_all=True,
    )
    status: dict[str, int] = {}
    runner.run_process(status)
    return status.get("run_status") or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
