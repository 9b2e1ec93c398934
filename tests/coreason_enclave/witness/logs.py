"""A coordinator's log on disk, and what it shows of itself to a site."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.hash_log import HashLog
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.wire.checkpoints import LogProof, LogSeen, origin_of_run, show_log
from coreason_enclave.witness import CheckpointStore, ShownLog

COORDINATOR = Signer.from_seed(bytes([7]) * 32)
JOB = sha256_hex(b"a job")
NOW = 1_800_000_000.0


class Owner:
    """Writes lines that are told apart by ``branch``, and shows its log with or without an honest proof."""

    def __init__(self, path: Path, branch: str = "main", signer: Signer = COORDINATOR, job: str = JOB) -> None:
        self.log, self.branch, self.signer, self.job = HashLog(path, clock=lambda: NOW), branch, signer, job
        weakref.finalize(self, self.log.close)

    def write(self, lines: int = 1, branch: str | None = None) -> Owner:
        for _ in range(lines):
            about = {"branch": branch or self.branch, "number": self.log.head.size}
            self.log.append(actor="coordinator", action="round", outcome="opened", details=about)
        return self

    def show(self, seen: LogSeen | None, round_number: int | None = 1, **changes: Any) -> ShownLog:
        envelope, proof = show_log(self.log, seen, self.signer, origin_of_run(self.job))
        fields: dict[str, Any] = {
            "job_id": "study-1",
            "job_digest": self.job,
            "coordinator_key": self.signer.public_hex,
            "round_number": round_number,
            "envelope": envelope.decode(),
            "proof": proof,
            **changes,
        }
        return ShownLog(**fields)


def seen_at(store: CheckpointStore) -> LogSeen | None:
    return store.seen(COORDINATOR.public_hex, JOB)


def no_proof(since: int = 0) -> LogProof:
    return LogProof(since=since)
