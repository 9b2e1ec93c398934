"""The layout of a run folder, and its documents.

::

    job.yaml                 the job as submitted
    config.json              the run's configuration: pinned values (:mod:`aegis.runs.pins`), seeds, versions
    evaluation.safetensors   the federation's declared PUBLIC evaluation set, if any
    audit.jsonl              the coordinator's hash-chained log; audit.checkpoint.json signs its head
    state/                   durable state; running the same command again continues from here
    flower-run.json          identifies the Flower run, while a coordinator drives one
    nvflare.log, nvflare/    FLARE's output and files; nvflare-end.json records the end of the coordinator in FLARE
    nvflare-run.json         identifies the job, while one runs in a FLARE deployment
    metrics.csv              one line a round
    model.safetensors        the final global model
    witness/<site>.json      each answering site's statement about the log, as shown to the site at the end
    ledger/<site>.json       each local site's privacy ledger, exported; <site>.dsse holds the site's signature
    ledger/coordinator.json  the coordinator's own ledger, for a job with client-level privacy
    manifest.json            signed by the coordinator: the digest of every file (:mod:`aegis.runs.manifest`)
    outcome.json             written last: a run folder without an outcome is unfinished
    refused.json             why the sites refuse the run, until the same command goes on; absent otherwise
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

from aegis.coordination import is_quarantined
from aegis.errors import RunFolderError
from aegis.federation import dump_job, load_job
from aegis.stores import FileRunStore, RoundRecord, RunState
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system import replace_file

EVALUATION_SET = "evaluation.safetensors"
_REFUSED = "refused.json"

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
    """The folder of one run."""

    path: Path

    @property
    def is_finished(self) -> bool:
        """Return True if the run ended with a final global model."""
        return (self.path / "outcome.json").exists()

    @property
    def is_started(self) -> bool:
        """Return True if a job started here."""
        return (self.path / "config.json").exists()

    @property
    def is_refused(self) -> bool:
        """Return True if the sites refuse the run: waiting does not help, and a person has to act first."""
        return not self.is_finished and (self.path / _REFUSED).exists()

    def refusal(self) -> str | None:
        """Return why the sites refuse the run, or None."""
        return str(self.read_json(_REFUSED).get("why", "")) if self.is_refused else None

    def mark_refused(self, why: str) -> None:
        """Record why the sites refuse the run."""
        self.write_json(_REFUSED, {"why": why})

    def forget_refusal(self) -> None:
        """Drop an earlier refusal, before the sites are asked again."""
        (self.path / _REFUSED).unlink(missing_ok=True)

    def begin(self, job: FederationJob, config: Mapping[str, Any], evaluation: bytes | None) -> None:
        """Record the start of the run: its job, the evaluation set and, last, its configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "job.yaml", dump_job(job).encode())
        if evaluation is not None:
            replace_file(self.path / EVALUATION_SET, evaluation)
        self.write_json("config.json", config)

    def job(self) -> FederationJob:
        """Return the job as submitted."""
        return load_job(self.path / "job.yaml")

    def store(self) -> FileRunStore:
        """Return the store of the run's durable state."""
        return FileRunStore(self.path / "state")

    def quarantined_now(self) -> dict[str, str]:
        """Return the sites in quarantine next round, with reason and remaining rounds; empty before the first round."""
        if not self.has_state:
            return {}
        state = self.state()
        return {
            site: f"{quarantine.reason}, suspended for {quarantine.quarantined_until - state.rounds_ended} more rounds"
            for site, quarantine in state.quarantine.items()
            if is_quarantined(quarantine, state.rounds_ended)
        }

    @property
    def has_state(self) -> bool:
        """Return True if the coordinator saved a state here."""
        return (self.path / "state" / "state.json").exists()

    def state(self) -> RunState:
        """Return the stored state; raise :class:`RunFolderError` if the folder has none."""
        if not self.has_state or (state := self.store().load()) is None:
            raise RunFolderError(f"{self.path} is not a run folder: state/state.json is missing")
        return state

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a document atomically, with indentation and sorted keys."""
        text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
        replace_file(self.path / name, f"{text}\n".encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a document.

        Raises:
            RunFolderError: the file cannot be read, or holds no JSON object.
        """
        try:
            document = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name} cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise RunFolderError(f"{self.path / name} must hold a JSON object")
        return document


def metrics_csv(history: tuple[RoundRecord, ...]) -> str:
    """Return one line a round: utility on the public set, accepted and refused sites, each site's steps and epsilon."""
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
                *("" if record.epsilon.get(site) is None else record.epsilon[site] for site in sites),
                record.seconds,
            ]
        )
    return out.getvalue()


def installed_versions() -> dict[str, str]:
    """Return the versions behind the numbers: Python, and the packages for accounting, training and transport."""
    return {"python": platform.python_version(), **{name: installed_version(name) for name in _RECORDED_PACKAGES}}


def installed_version(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
