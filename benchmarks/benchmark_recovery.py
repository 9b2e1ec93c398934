"""How soon a killed process takes part in rounds again, over real processes on this machine.

    python -m benchmarks.benchmark_recovery [--quick] [--check] [--out benchmarks/results]

Three sites, a small model. One process is killed (SIGKILL) in the middle of a run, and the time until an update of the
site that it served is admitted again is read off the coordinator's log; for the processes that serve all sites, until
each of them is admitted. Beside it stands what an undisturbed round takes in the same run.

Writes ``recovery.csv`` and ``recovery.md``; ``--check`` turns a recovery above the limit into a non-zero exit.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from aegis.federation.registry import FederationFolder
from aegis.runs.connect import RuntimeName
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RunPlan
from aegis.runs.runner import execute
from benchmarks.benchmark_round_overhead import SITES, create, the_job

LIMIT_S = 10.0
ROUNDS = 200
"""More than a measurement needs: the run is ended when it is over."""
VICTIM = "site-1"
KINDS = ("agent", "supernode", "gateway", "superlink")
HEADER = ["killed", "seconds until admitted again", "undisturbed round (median seconds)"]


@dataclass(frozen=True)
class Recovery:
    kind: str
    seconds: float
    round_s: float


def admitted(run: Path) -> list[tuple[float, str]]:
    """Time (Unix seconds) and site of each admitted update so far."""
    log = run / "audit.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []
    return [(e["time"], e["details"]["site"]) for e in lines if (e["action"], e["outcome"]) == ("admit", "accepted")]


def wait_for(condition: Callable[[], object], what: str, within_s: float = 120.0) -> object:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise SystemExit(f"not within {within_s:g} s: {what}")


def victim(federation: Path, kind: str) -> int:
    """The process id of a child of the supervisor, or of its agent's SuperNode."""
    state = json.loads((federation / "coordinator" / "flower" / "supervisor.json").read_text())["processes"]
    if kind in ("gateway", "superlink"):
        return int(state[kind]["pid"])
    agent = int(state[f"agent-{VICTIM}"]["pid"])
    if kind == "agent":
        return agent
    children = subprocess.run(["pgrep", "-P", str(agent)], capture_output=True, text=True, check=True).stdout.split()
    return next(int(pid) for pid in children if "flower-supernode" in Path(f"/proc/{pid}/cmdline").read_text())


def recover(kind: str, federation: Path) -> Recovery:
    """Kill a process of ``kind`` once the run is in its stride, and wait for what it served."""
    run = federation / "run"
    sites = {VICTIM} if kind in ("agent", "supernode") else {f"site-{number}" for number in range(1, SITES + 1)}
    before = len(admitted(run))
    wait_for(lambda: len(admitted(run)) >= before + 2 * SITES, "two rounds before the kill")
    times = [seen for seen, site in admitted(run) if site == VICTIM][-5:]
    os.kill(victim(federation, kind), signal.SIGKILL)
    killed = time.time()

    def back() -> float | None:
        since = [(seen, site) for seen, site in admitted(run) if seen > killed + 0.2]
        first = [min((seen for seen, each in since if each == site), default=0.0) for site in sites]
        return max(first) - killed if all(first) else None

    seconds = float(wait_for(back, f"{kind} is back"))  # type: ignore[arg-type]
    rounds = [later - earlier for earlier, later in itertools.pairwise(times)]
    return Recovery(kind, seconds, statistics.median(rounds))


def measure(path: Path, repeats: int) -> list[Recovery]:
    create(path)
    command = [sys.executable, "-m", "benchmarks.benchmark_recovery", "--run", str(path)]
    with (path / "run.log").open("wb") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        return [recover(kind, path) for _ in range(repeats) for kind in KINDS]
    finally:
        run.terminate()
        run.wait(60)


def run_until_ended(path: Path) -> None:
    job = the_job(ROUNDS)
    privacy = job.privacy.model_copy(update={"noise_multiplier": 20.0})
    job = job.model_copy(update={"min_clients": 2, "privacy": privacy})
    execute(job, RunPlan(FederationFolder(path), RunFolder(path / "run"), runtime=RuntimeName.FLOWER))


def write(results: list[Recovery], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[r.kind, f"{r.seconds:.1f}", f"{r.round_s:.2f}"] for r in results]
    with (folder / "recovery.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    lines = ["# Recovery after kill -9", "", "| " + " | ".join(HEADER) + " |", "|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    (folder / "recovery.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="each process once")
    parser.add_argument("--check", action="store_true", help=f"exit 1 where a recovery takes over {LIMIT_S:g} s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        run_until_ended(options.run)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), 1 if options.quick else 3)
    write(results, options.out)
    for result in results:
        print(f"{result.kind}: {result.seconds:.1f} s (an undisturbed round {result.round_s:.2f} s)")
    slow = [result for result in results if result.seconds > LIMIT_S]
    return 1 if options.check and slow else 0


if __name__ == "__main__":
    sys.exit(main())
