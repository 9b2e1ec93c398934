"""What a round costs beyond training: the deployed runtime beside the one in a single process, in the same run.

    python -m benchmarks.benchmark_round_overhead [--quick] [--check] [--out benchmarks/results]

Three sites, a model of 100 kB, one private step a round. A round's overhead is its duration at the coordinator less
the time that its slowest site took for its answer, by that site's own log: signing, checking, carrying, waiting. The
deployed runtime is all of it on this machine: SuperLink, gateway, three agents with their SuperNodes, TLS everywhere.

Writes ``round_overhead.csv`` and ``round_overhead.md``; ``--check`` turns a missed target into a non-zero exit.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from coreason_enclave.wire.handler import AnswersByMethod

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np

from aegis.federation.job_files import resolve
from aegis.federation.registry import FederationConfig, FederationFolder
from aegis.runs.connect import RuntimeName
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RunPlan
from aegis.runs.runner import execute
from aegis.runtimes.in_process import Site, client_app, create_site, initial_model, open_sites
from aegis.security.audit import HashLog
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.challenges import FileChallenges
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.crypto.signing import load_or_create_signer
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.policy import Profile, SiteConfig
from coreason_enclave.schemas import FederationJob
from coreason_enclave.wire.updates import SealedMessage, encode_arrays

SITES, FEATURES, HIDDEN, DATASET = 3, 3, 4166, "bench/rows"
HEADER = ["runtime", "rounds", "best_s", "median_s", "worst_s"]
TARGETS = {RuntimeName.IN_PROCESS: 0.005, RuntimeName.FLOWER: 1.5}
"""Seconds of the median round beyond training."""


@dataclass(frozen=True)
class Measured:
    runtime: RuntimeName
    overheads: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.overheads)


def the_job(rounds: int) -> FederationJob:
    return resolve(
        FederationJob.model_validate(
            {
                "job_id": "overhead",
                "min_clients": SITES,
                "rounds": rounds,
                "strategy": "FED_AVG",
                "dataset_id": DATASET,
                "model_arch": "SimpleMLP",
                "model_args": {"in_features": FEATURES, "hidden": HIDDEN},
                "local_steps": 1,
                "round_deadline_s": 60.0,
                "privacy": {
                    "mechanism": "DP_SGD",
                    "target_epsilon": 8.0,
                    "noise_multiplier": 2.0,
                    "max_grad_norm": 1.0,
                    "sample_rate": 0.1,
                    "delta": 1e-5,
                    "unit": "record",
                },
            }
        ),
        delta=1e-5,
    )


def create(path: Path) -> FederationFolder:
    """A federation of three development sites with 60 public rows each."""
    federation = FederationFolder(path)
    coordinator = federation.signer().public_hex
    names = [f"site-{number}" for number in range(1, SITES + 1)]
    keys = {name: load_or_create_signer(path / "sites" / name / "keys" / "signing.key").public_hex for name in names}
    for name in names:
        write_rows(path / "sites" / name)
        create_site(path / "sites" / name, site_config(name, coordinator, keys))
    federation.create(FederationConfig(profile=Profile.DEVELOPMENT, delta=1e-5, public_keys=keys))
    return federation


def write_rows(folder: Path) -> None:
    random = np.random.default_rng(5)
    rows = random.uniform(0, 1, (60, FEATURES))
    where = folder / "data" / DATASET
    where.mkdir(parents=True)
    names = [f"x{number}" for number in range(FEATURES)]
    lines = [",".join((*names, "y")), *(",".join((*map(str, row), str(int(row[0] > 0.5)))) for row in rows)]
    (where / "rows.csv").write_text("\n".join(lines) + "\n")
    features = "".join(f'[[features]]\nname = "{name}"\nlow = 0.0\nhigh = 1.0\n' for name in names)
    (where / "dataset.toml").write_text(
        f'version = 1\ndataset_id = "{DATASET}"\nformat = "csv"\nfile = "rows.csv"\npublic = true\n'
        f'[label]\ncolumn = "y"\nclasses = 2\n{features}'
    )


def site_config(name: str, coordinator: str, keys: dict[str, str]) -> SiteConfig:
    policy = {
        "coordinator_keys": [coordinator],
        "participants": keys,
        "model_archs": ["SimpleMLP"],
        "strategies": ["FED_AVG"],
        "aggregators": ["mean"],
        "min_clients": 1,
        "min_units": 1,
        "min_noise_multiplier": 0.5,
        "max_update_norm": 1e6,
        "max_order_lifetime_s": 3600,
    }
    lineage = {
        "lineage": f"{name}/rows",
        "dataset_id": DATASET,
        "unit": "record",
        "nominal_units": 60,
        "public": True,
        "epsilon": 20.0,
        "delta": 1e-5,
        "job_epsilon": 10.0,
        "job_delta": 1e-5,
    }
    return SiteConfig.model_validate(
        {
            "version": 1,
            "site_id": name,
            "profile": "development",
            "data_root": "data",
            "keys": "keys",
            "ledger": "ledger.sqlite",
            "audit": "audit.jsonl",
            "attester": "simulated",
            "policy": policy,
            "lineages": [lineage],
        }
    )


@dataclass
class Timed(AnswersByMethod):
    """A site's session, with the seconds of each answer to an order."""

    session: object
    seconds: list[float]

    def run(self, message: SealedMessage) -> SealedMessage:
        began = time.perf_counter()
        try:
            return self.session.run(message)
        finally:
            self.seconds.append(time.perf_counter() - began)

    def enrol(self, message: SealedMessage) -> SealedMessage:
        return self.session.enrol(message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        return self.session.attest(message)


def in_process(path: Path, job: FederationJob) -> Measured:
    from aegis.federated_coordinator import FederatedCoordinator
    from aegis.rounds.attestation_handshake import CoordinatorHandshake
    from aegis.rounds.context import ParticipantView
    from aegis.rounds.journal import RunRecords
    from aegis.rounds.round_runner import RoundHooks
    from aegis.stores.heads import FileHeadStore

    federation, answers = create(path), {}
    config, folder, rounds = federation.config(), RunFolder(path / "run"), []
    folder.path.mkdir()

    def adapt(site: Site) -> object:
        answers[site.config.site_id] = []
        return client_app(Timed(site.session, answers[site.config.site_id]))

    audit = HashLog(folder.path / "audit.jsonl")
    with open_sites(federation.site_folders(), config.public_keys, adapt=adapt) as sites:
        appraiser = Appraiser(AttestationPolicy.simulated_only(), config.profile, NoEndorsements())
        challenges = FileChallenges(federation.coordinator / "challenges")
        coordinator = FederatedCoordinator(
            job,
            ParticipantView(sites.participants),
            CoordinatorHandshake(federation.signer(), appraiser, SimulatedAttester(), challenges),
            RunRecords(folder.store(), audit, FileHeadStore(federation.coordinator / "heads")),
            hooks=RoundHooks(observe=rounds.append),
        )
        coordinator.run(sites.grid, initial_model(job))
    audit.close()
    return Measured(RuntimeName.IN_PROCESS, overheads([record.seconds for record in rounds], answers.values()))


def deployed(path: Path, job: FederationJob) -> Measured:
    federation = create(path)
    folder = RunFolder(path / "run")
    execute(job, RunPlan(federation, folder, runtime=RuntimeName.FLOWER))
    logs = sorted((federation.coordinator / "flower" / "logs").glob("agent-*.log"))
    answers = [[line["seconds"] for line in lines(log) if line["event"] == "order"] for log in logs]
    return Measured(RuntimeName.FLOWER, overheads([record.seconds for record in folder.state().history], answers))


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def overheads(rounds: list[float], answers: object) -> list[float]:
    """Each round's seconds less its slowest answer's; the first round, in which everything is loaded, is left out."""
    slowest = [max(each) for each in zip(*answers, strict=True)]
    return [whole - answer for whole, answer in zip(rounds, slowest, strict=True)][1:]


def table(results: list[Measured]) -> list[list[str]]:
    return [
        [r.runtime.value, str(len(r.overheads)), *(f"{s:.3f}" for s in (min(r.overheads), r.median, max(r.overheads)))]
        for r in results
    ]


def verdicts(results: list[Measured]) -> list[tuple[bool, str]]:
    said = []
    for result in results:
        target = TARGETS[result.runtime]
        met = result.median <= target
        outcome = "met" if met else "MISSED"
        said.append((met, f"{result.runtime.value}: {result.median:.3f} s (target {target:g} s): {outcome}"))
    return said


def write(results: list[Measured], said: list[tuple[bool, str]], size: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = table(results)
    with (folder / "round_overhead.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, flwr {version('flwr')}"
    )
    text = [
        "# A round's overhead",
        "",
        f"{machine}. Seconds a round beyond training; {SITES} sites, a model of {size / 1000:.0f} kB.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"- {sentence}" for _, sentence in said),
        "",
    ]
    (folder / "round_overhead.md").write_text("\n".join(text), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what a round costs beyond training.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; rougher")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results")
    options = parser.parse_args(arguments)
    job = the_job(6 if options.quick else 16)
    measures: list[Callable[[Path, FederationJob], Measured]] = [in_process, deployed]
    with tempfile.TemporaryDirectory(prefix="aegis-") as scratch:
        results = [measure(Path(scratch) / str(number), job) for number, measure in enumerate(measures)]
    said = verdicts(results)
    write(results, said, len(encode_arrays(initial_model(job))), options.out)
    for row in [HEADER, *table(results)]:
        print("  ".join(cell.rjust(10) for cell in row))
    for _, sentence in said:
        print(sentence)
    print(f"Written to {options.out}/round_overhead.{{csv,md}}")
    return 1 if options.check and not all(met for met, _ in said) else 0


if __name__ == "__main__":
    sys.exit(main())
