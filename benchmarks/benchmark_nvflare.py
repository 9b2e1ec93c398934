"""The demonstration's job over six sites: in one process, and in NVIDIA FLARE's simulator, beside an empty FLARE job.

    python -m benchmarks.benchmark_nvflare [--quick] [--check] [--out benchmarks/results]

The RAND Health Insurance Experiment, ten private rounds; each command as a person gives it, in a process of its own,
over sites that are created anew. The empty job has the same simulator, sites and rounds, tasks without content and an
executor without a site: what it takes is FLARE's own start-up (its zero-round variant) and polling (the rest).

Writes ``nvflare.csv`` and ``nvflare.md``; ``--check`` turns a missed target into a non-zero exit. The target: FLARE's
simulator takes at most three times what one process does, and FLARE's own start-up and polling on top.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from aegis.demo.recipe import DELTA, DemoOptions, private_job
from aegis.demo.setup import create_demo_federation
from aegis.federation.job_files import dump_job, resolve
from aegis.runtimes.nvflare.job_folder import FlareJob
from aegis.runtimes.nvflare.settings import ServerSettings, SiteSettings
from aegis.runtimes.nvflare.simulator import Simulation, simulating
from coreason_enclave.schemas import FederationJob

ROOT = Path(__file__).resolve().parents[1]
TARGET = 3.0
HEADER = ["what", "seconds"]


def the_command(path: Path, options: DemoOptions, job: FederationJob, runtime: str) -> float:
    """Seconds that ``aegis run`` takes, from its start to its end."""
    federation = create_demo_federation(path / "federation", options)
    (path / "job.yaml").write_text(dump_job(job))
    command = [sys.executable, "-m", "aegis.cli", "run", str(path / "job.yaml"), "--federation", str(federation.path)]
    began = time.monotonic()
    subprocess.run([*command, "--out", str(path / "run"), "--runtime", runtime], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def an_empty_job(path: Path, job: FederationJob, sites: list[str], rounds: int) -> float:
    """Seconds that the simulator takes for so many rounds of tasks without content."""
    path.mkdir()
    simulation = Simulation(
        folder=path / "nvflare",
        log=path / "nvflare.log",
        job=FlareJob(
            job,
            run=f"empty-{rounds}",
            sites=sites,
            executor="benchmarks.empty_flare.EmptyExecutor",
            workflow="benchmarks.empty_flare.EmptyWorkflow",
        ),
        server=ServerSettings(version=1, federation=str(path), runs=str(path)),
        sites=SiteSettings(version=1, runs="session", sites={site: str(path) for site in sites}),
        threads=len(sites),
        import_from=ROOT,
    )
    began = time.monotonic()
    with simulating(simulation) as running:
        running.process.wait(timeout=300)
    if running.process.returncode:
        raise RuntimeError(f"the empty job failed: {running.log_tail()}")
    return time.monotonic() - began


def measure(scratch: Path, options: DemoOptions) -> dict[str, float]:
    """Seconds by what was measured."""
    job = resolve(private_job(options), delta=DELTA)
    within = the_command(scratch / "within", options, job, "in-process")
    flare = the_command(scratch / "flare", options, job, "nvflare")
    sites = sorted(path.name for path in (scratch / "flare" / "federation" / "sites").iterdir())
    start = an_empty_job(scratch / "start", job, sites, 0)
    empty = an_empty_job(scratch / "empty", job, sites, job.rounds)
    return {
        "in one process": within,
        "FLARE's simulator": flare,
        "FLARE's own start-up and end": start,
        f"FLARE's own polling, {job.rounds} rounds": max(empty - start, 0.0),
    }


def verdict(seconds: dict[str, float]) -> tuple[bool, str]:
    """Whether the target is met, and the sentence that says so."""
    within, flare, start, poll = seconds.values()
    ratio, met = (flare - start - poll) / within, flare <= TARGET * within + start + poll
    outcome = "met" if met else "MISSED"
    return met, (
        f"{flare:.1f} s in FLARE's simulator, {within:.1f} s in one process: {ratio:.2f} times as long "
        f"beside FLARE's own {start + poll:.1f} s (target {TARGET:g}): {outcome}"
    )


def write(seconds: dict[str, float], sentence: str, options: DemoOptions, folder: Path) -> None:
    """The results as CSV and Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[what, f"{value:.1f}"] for what, value in seconds.items()]
    with (folder / "nvflare.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    machine += f", nvflare {version('nvflare')}"
    text = [
        "# The demonstration's job over NVIDIA FLARE",
        "",
        f"{machine}. RAND HIE, {options.sites} sites, {options.rounds} rounds; whole commands, from start to end.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        f"- {sentence}",
        "",
    ]
    (folder / "nvflare.md").write_text("\n".join(text), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure a job over FLARE's simulator beside one process.")
    parser.add_argument("--quick", action="store_true", help="four sites, three rounds; rougher")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the target is missed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results")
    chosen = parser.parse_args(arguments)
    options = DemoOptions(sites=4, rounds=3) if chosen.quick else DemoOptions()
    with tempfile.TemporaryDirectory(prefix="aegis-") as scratch:
        seconds = measure(Path(scratch), options)
    met, sentence = verdict(seconds)
    write(seconds, sentence, options, chosen.out)
    for what, value in seconds.items():
        print(f"{what.ljust(40)}{value:6.1f} s")
    print(sentence)
    print(f"Written to {chosen.out}/nvflare.{{csv,md}}")
    return 1 if chosen.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
