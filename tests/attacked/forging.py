"""What somebody with the coordinator's key, and no site's, can make of a finished run's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aegis.federation.job_files import dump_job, load_job
from aegis.runs.folder import metrics_csv
from aegis.runs.manifest import MANIFEST, SIGNATURE, sign_manifest
from aegis.stores.run_state import RunState
from coreason_enclave.crypto.encoding import canonical_json, parse_json, sha256_hex
from coreason_enclave.crypto.hash_log import HashLog
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.ledger.chain import make_link
from coreason_enclave.ledger.records import LedgerHead
from coreason_enclave.schemas import FederationJob
from coreason_enclave.wire.checkpoints import origin_of_run, sign_log

__all__ = ["Owner"]

Change = Callable[[dict[str, Any]], object]


class Owner:
    """Rewrites a run folder and signs it again, as its coordinator.

    Args:
        run: the folder, which is changed in place.
        signer: the coordinator's key.
    """

    def __init__(self, run: Path, signer: Signer) -> None:
        self.run, self.signer = run, signer

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "audit.jsonl").read_text().splitlines()]

    def rewrite_log(self, entries: list[dict[str, Any]]) -> None:
        """A new chain over these entries, and the checkpoint signed again."""
        (self.run / "audit.jsonl").unlink()
        times = iter(entry["time"] for entry in entries)
        log = HashLog(self.run / "audit.jsonl", clock=lambda: next(times))
        for entry in entries:
            log.append(**{name: entry[name] for name in ("actor", "action", "outcome", "reason", "details")})
        origin = origin_of_run(json.loads((self.run / "config.json").read_text())["job_digest"])
        (self.run / "audit.checkpoint.json").write_bytes(sign_log(log, self.signer, origin))
        log.close()

    def sign_again(self) -> None:
        """The log's word about the outcome, and the manifest, over whatever lies in the folder now."""
        self._name_outcome()
        job_digest = json.loads((self.run / "config.json").read_text())["job_digest"]
        for name in (MANIFEST, SIGNATURE):
            (self.run / name).unlink(missing_ok=True)
        sign_manifest(self.run, job_digest, self.signer, pending={})

    def _name_outcome(self) -> None:
        outcome = self.run / "outcome.json"
        if not outcome.exists() or not (self.run / "audit.jsonl").exists():
            return
        entries, digest = self.entries(), sha256_hex(outcome.read_bytes())
        if entries[-1]["details"].get("outcome", digest) != digest:
            entries[-1]["details"]["outcome"] = digest
            self.rewrite_log(entries)

    def edit(self, name: str, change: Change) -> None:
        """Change a JSON document in place."""
        document = json.loads((self.run / name).read_text())
        change(document)
        canonical = name.startswith("state/")
        data = canonical_json(document) if canonical else f"{json.dumps(document, indent=2, sort_keys=True)}\n".encode()
        (self.run / name).write_bytes(data)

    def edit_state(self, change: Change) -> None:
        """Change the state, and let the log name it."""
        path = self.run / "state" / "state.json"
        before = sha256_hex(path.read_bytes())
        self.edit("state/state.json", change)
        state = RunState.model_validate(parse_json(path.read_bytes()))
        path.write_bytes(state.canonical())
        self.replace_everywhere(before, sha256_hex(path.read_bytes()))

    def edit_config(self, change: Change) -> None:
        """Change the configuration, and let the log name it."""
        before = sha256_hex((self.run / "config.json").read_bytes())
        self.edit("config.json", change)
        self.replace_everywhere(before, sha256_hex((self.run / "config.json").read_bytes()))

    def replace_everywhere(self, old: str, new: str) -> None:
        """One digest for another in the log, which is chained and signed again."""
        self.rewrite_log(json.loads(json.dumps(self.entries()).replace(old, new)))

    def order_another_job(self, change: Callable[[dict[str, Any]], object]) -> FederationJob:
        """Exchange the job in every document that names it."""
        before = load_job(self.run / "job.yaml")
        fields = before.model_dump(mode="json")
        change(fields)
        job = FederationJob.model_validate(fields)
        old_file = sha256_hex((self.run / "job.yaml").read_bytes())
        (self.run / "job.yaml").write_text(dump_job(job))
        self.replace_everywhere(old_file, sha256_hex((self.run / "job.yaml").read_bytes()))
        self.replace_everywhere(before.digest(), job.digest())
        self.edit_config(lambda config: config.update(job_digest=job.digest()))
        self.edit_state(lambda state: state.update(job_digest=job.digest()))
        return job

    def silence_witnesses(self) -> None:
        """Delete the copies of what the sites keep of the log; the sites have them still."""
        shutil.rmtree(self.run / "witness", ignore_errors=True)

    def boast(self, **metrics: float) -> None:
        """Other metrics for every round, wherever they stand."""

        def better(document: dict[str, Any]) -> None:
            for record in document["history"]:
                record["metrics"].update(metrics)

        self.edit_state(better)
        state = RunState.model_validate(parse_json((self.run / "state" / "state.json").read_bytes()))
        entries = self.entries()
        for entry in entries:
            for holder in (entry["details"], entry["details"].get("record") or {}):
                if "metrics" in holder:
                    holder["metrics"].update(metrics)
        self.rewrite_log(entries)
        (self.run / "metrics.csv").write_text(metrics_csv(state.history))
        self.edit("outcome.json", lambda outcome: outcome["metrics"].update(metrics))

    def rewrite_ledger(self, site: str, change: Callable[[list[dict[str, Any]]], object]) -> dict[int, str]:
        """Other entries in a site's export, on a chain that holds; return the new hashes by number."""
        path = self.run / "ledger" / f"{site}.json"
        document = json.loads(path.read_text())
        entries = [json.loads(row["payload"]) for row in document["entries"]]
        change(entries)
        head: LedgerHead | None = None
        rows = []
        for entry in entries:
            link = make_link(head, canonical_json(entry))
            head = link.head
            rows.append({"seq": link.seq, "prev": link.prev, "payload": link.payload.decode(), "hash": link.hash})
        assert head is not None
        document |= {"entries": rows, "head": {"seq": head.seq, "hash": head.hash}}
        path.write_bytes(canonical_json(document))
        return {row["seq"]: row["hash"] for row in rows}

    def accepted(self, entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The details of every admission."""
        for entry in entries:
            if (entry["action"], entry["outcome"]) == ("admit", "accepted"):
                yield entry["details"]
