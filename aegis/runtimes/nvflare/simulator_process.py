"""The process that hosts FLARE's simulator: the process itself is the server, and its children are the clients.

    python -m aegis.runtimes.nvflare.simulator_process WORKSPACE JOB_FOLDER THREADS CLIENT...

:mod:`aegis.runtimes.nvflare.simulator` starts this process instead of FLARE's own entry point, which adds an
intermediate process that outlives its parent. Here the clients end within a second or two of this process, whether the
process ended by itself or was killed.
"""

from __future__ import annotations

import sys

from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

from aegis.runtimes.nvflare.cell_gate import do_without


def main(arguments: list[str]) -> int:
    """Run one job in the simulator; return FLARE's exit status."""
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
