"""Writes the results of a finished run: the model, the sites' ledgers, the signed log and, last, the outcome."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aegis.client_privacy import ClientPrivacy
from aegis.coordination import across_sites
from aegis.federation import FederationFolder
from aegis.runs.connect import LocalLedger
from aegis.runs.folder import RunFolder, metrics_csv
from aegis.runs.manifest import sign_manifest
from aegis.runs.site_privacy import EXPORT, statement
from aegis.security import HashLog
from aegis.stores import RoundRecord, content_changes
from coreason_enclave.crypto import Signer, read_private, sha256_hex
from coreason_enclave.ledger import seal_export
from coreason_enclave.system import replace_file
from coreason_enclave.wire import Array, decode_arrays, encode_arrays, model_digest, origin_of_run, sign_log

_MAX_MODEL_BYTES = 1 << 30


@dataclass(frozen=True)
class RunOutcome:
    """A finished run: the final global model, its digest, and its last round's record."""

    model: Mapping[str, Array]
    digest: str
    last: RoundRecord
    metrics: Mapping[str, float]


def write_results(
    federation: FederationFolder,
    folder: RunFolder,
    audit: HashLog,
    sites: Mapping[str, LocalLedger],
    model: Mapping[str, Array],
    privacy: ClientPrivacy | None,
    announce: Callable[[], Mapping[str, bytes]] = dict,
) -> RunOutcome:
    """Write the results: each file atomically, ``outcome.json`` last. After a crash here, a resume repeats the step.

    Args:
        audit: the run's log, signed in its final state.
        sites: the sites on this host, by id.
        announce: shows the signed log to the sites, and returns each site's statement about the log, by site.
    """
    state, job, signer = folder.state(), folder.job(), federation.signer()
    digest, last = model_digest(model), state.history[-1]
    replace_file(folder.path / "model.safetensors", encode_arrays(model))
    replace_file(folder.path / "metrics.csv", metrics_csv(state.history).encode())
    heads = _export_ledgers(federation, folder, sites)
    if privacy is not None:
        replace_file(folder.path / EXPORT, privacy.ledger.export())
    config = folder.read_json("config.json")
    outcome = {
        "model": digest,
        "rounds": state.completed_rounds,
        "metrics": last.metrics,
        "evaluation_set": config["evaluation_set"],
        "epsilon": last.epsilon,
        "ledger_epsilon": _ledger_epsilon(sites, job.job_id, job.dataset_id),
        "content_changed": content_changes(state.history),
        "federation_epsilon": across_sites(job, last.steps, config["disjoint_units"]),
        "provenance": sorted({value.value for record in state.history for value in record.provenance.values()}),
        **({} if privacy is None else {"client_privacy": statement(privacy)}),
    }
    text = f"{json.dumps(outcome, indent=2, sort_keys=True, allow_nan=False)}\n".encode()
    released = {
        **federation.config().profile.label(),
        "model": digest,
        "averaged_rounds": job.average_last_rounds,
        "metrics": last.metrics,
        "evaluation_set": config["evaluation_set"],
        "state": sha256_hex((folder.path / "state" / "state.json").read_bytes()),
        "outcome": sha256_hex(text),
        "ledgers": heads,
    }
    audit.append(actor="coordinator", action="run", outcome="finished", details=released)
    checkpoint = sign_log(audit, signer, origin_of_run(job.digest()))
    replace_file(folder.path / "audit.checkpoint.json", checkpoint)
    (folder.path / "witness").mkdir(exist_ok=True)
    for name, statement_of_site in announce().items():
        replace_file(folder.path / "witness" / f"{name}.json", statement_of_site)
    sign_manifest(folder.path, job.digest(), signer, pending={"outcome.json": text})
    replace_file(folder.path / "outcome.json", text)
    return RunOutcome(model, digest, last, last.metrics)


def _export_ledgers(
    federation: FederationFolder, folder: RunFolder, sites: Mapping[str, LocalLedger]
) -> dict[str, dict[str, Any]]:
    """Export the ledgers of the sites on this host, each signed by its own site; return their heads."""
    (folder.path / "ledger").mkdir(exist_ok=True)
    heads = {}
    for name, site in sites.items():
        export = site.ledger.export()
        key = read_private(federation.path / "sites" / name / site.config.keys / "signing.key")
        signed = seal_export(export, name, Signer.from_seed(key), now=time.time())
        replace_file(folder.path / "ledger" / f"{name}.json", export)
        replace_file(folder.path / "ledger" / f"{name}.dsse", signed)
        heads[name] = json.loads(export)["head"]
    return heads


def read_outcome(folder: RunFolder) -> RunOutcome:
    """Return the outcome of a run that another process finished."""
    model = decode_arrays((folder.path / "model.safetensors").read_bytes(), limit=_MAX_MODEL_BYTES)
    last = folder.state().history[-1]
    return RunOutcome(model, folder.read_json("outcome.json")["model"], last, last.metrics)


def lineages_of(sites: Mapping[str, LocalLedger], dataset_id: str) -> dict[str, str]:
    """Return each local site's lineage for the dataset. A site without a registration refuses the job by itself."""
    return {
        name: entry.lineage
        for name, site in sites.items()
        for entry in site.config.lineages
        if entry.dataset_id == dataset_id
    }


def _ledger_epsilon(sites: Mapping[str, LocalLedger], job_id: str, dataset_id: str) -> dict[str, float | None]:
    """Return the job's epsilon in each site's own ledger, which also counts refused and unanswered rounds."""
    spent: dict[str, float | None] = dict.fromkeys(sites)
    for name, lineage in lineages_of(sites, dataset_id).items():
        ledger = sites[name].ledger
        known = job_id in ledger.lineage_claim(lineage).jobs
        guarantee = ledger.job_claim(lineage, job_id).guarantee if known else None
        spent[name] = None if guarantee is None else guarantee.epsilon
    return spent
