"""The layout of a run folder, and its documents.

::

    job.yaml                 the job as ordered
    config.json              how it is run: what it is pinned to (:mod:`aegis.runs.pins`), seeds, versions
    evaluation.safetensors   the federation's declared PUBLIC evaluation set, where there is one
    audit.jsonl              the coordinator's hash-chained log; audit.checkpoint.json signs its head
    state/                   durable state; running the same command again continues from it
    flower-run.json          while a coordinator drives a Flower run: which
    nvflare.log, nvflare/    what FLARE prints and makes; nvflare-end.json says how the coordinator in it ended
    nvflare-run.json         while a job goes on in a FLARE deployment: which
    metrics.csv              one line a round
    model.safetensors        the released model
    witness/<site>.json      what each site that answered states of the log, which it was shown as it ended
    ledger/<site>.json       each local site's privacy ledger, exported; <site>.dsse: that site's signature over it
    ledger/coordinator.json  the coordinator's own, of a job with client-level privacy
    manifest.json            signed by the coordinator: the digest of every file (:mod:`aegis.runs.manifest`)
    outcome.json             written last: a run folder without it is unfinished
"""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from aegis.coordination.quarantine import is_quarantined
from aegis.errors import RunFolderError
from aegis.federation.job_files import dump_job, load_job
from aegis.stores.run_state import RoundRecord, RunState
from aegis.stores.run_store import FileRunStore
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system.files import replace_file

__all__ = ["EVALUATION_SET", "RunFolder", "installed_versions", "metrics_csv"]

EVALUATION_SET = "evaluation.safetensors"

_RECORDED_PACKAGES = (
    "aegis-fl",
    "torch",
    "opacus",
    "flwr",
    "nvflare",
    "dp-accounting",
    "numpy",
    "cryptography",
    "safetensors",
)


@dataclass(frozen=True)
class RunFolder:
    """One run's folder."""

    path: Path

    @property
    def is_finished(self) -> bool:
        """Whether the run ended with a released model."""
        return (self.path / "outcome.json").exists()

    @property
    def is_started(self) -> bool:
        """Whether a job was begun here."""
        return (self.path / "config.json").exists()

    def begin(self, job: FederationJob, config: Mapping[str, Any], evaluation: bytes | None) -> None:
        """Record how the run begins: its job, the evaluation set, and last its configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "job.yaml", dump_job(job).encode())
        if evaluation is not None:
            replace_file(self.path / EVALUATION_SET, evaluation)
        self.write_json("config.json", config)

    def job(self) -> FederationJob:
        """The job as ordered."""
        return load_job(self.path / "job.yaml")

    def store(self) -> FileRunStore:
        """The run's durable state."""
        return FileRunStore(self.path / "state")

    def quarantined_now(self) -> dict[str, str]:
        """Who is in quarantine in the next turn, and why; empty before the first."""
        if not self.has_state:
            return {}
        state = self.state()
        return {
            site: f"{quarantine.reason}, for {quarantine.quarantined_until - state.turn} more turns"
            for site, quarantine in state.quarantine.items()
            if is_quarantined(quarantine, state.turn)
        }

    @property
    def has_state(self) -> bool:
        """Whether the coordinator saved anything here."""
        return (self.path / "state" / "state.json").exists()

    def state(self) -> RunState:
        """The stored state; raises :class:`RunFolderError` where nothing was begun."""
        if not self.has_state or (state := self.store().load()) is None:
            raise RunFolderError(f"{self.path} is not a run folder: it has no state")
        return state

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a document whole or not at all, readable by a person."""
        text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
        replace_file(self.path / name, f"{text}\n".encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a document; raises :class:`RunFolderError`."""
        try:
            document = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name} cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise RunFolderError(f"{self.path / name} must hold a JSON object")
        return document


def metrics_csv(history: tuple[RoundRecord, ...]) -> str:
    """One line a round: utility on the public set, who was admitted and refused, steps and epsilon of each site."""
    sites = sorted({site for record in history for site in record.steps})
    utilities = sorted({name for record in history for name in record.metrics})
    columns = [
        "round",
        "provenance",
        *utilities,
        "admitted",
        "refused",
        *(f"steps:{s}" for s in sites),
        *(f"epsilon:{s}" for s in sites),
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "seconds"])
    for record in history:
        writer.writerow(
            [
                record.round_number,
                " ".join(sorted({provenance.value for provenance in record.provenance.values()})),
                *(record.metrics.get(name, "") for name in utilities),
                len(record.admitted),
                " ".join(f"{site}={reason}" for site, reason in sorted(record.refused.items())),
                *(record.steps.get(site, 0) for site in sites),
                *(_blank_if_none(record.epsilon.get(site)) for site in sites),
                record.seconds,
            ]
        )
    return out.getvalue()


def installed_versions() -> dict[str, str]:
    """Versions of what determines the numbers: Python and the packages behind accounting, training and transport."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _RECORDED_PACKAGES}}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def _blank_if_none(value: float | None) -> float | str:
    return "" if value is None else value
