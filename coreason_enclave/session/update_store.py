"""The updates released by this site, kept so that the site resends a lost answer without computing it again.

A kept update has left the site before, or was about to leave: it has exactly the privacy of the update on the wire. A
file counts only if the ledger committed exactly these bytes. If a file is damaged or gone, the site recomputes the
round to the same bytes.

Layout: one folder per job, one file per round, named by the reservation's binding. Files have mode 0600 and are written
whole or not at all. The store keeps the last two rounds of a job and the last 16 jobs; an older round can still be
recomputed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coreason_enclave.crypto import canonical_json, parse_json, sha256_hex
from coreason_enclave.errors import ConfigurationError, EnvelopeError
from coreason_enclave.system import PRIVATE, replace_file, sync_folder

KEPT_ROUNDS = 2
KEPT_JOBS = 16
_NAME = re.compile(r"([0-9]{6})-([0-9a-f]{64})\.update")
_JOB = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class StoredUpdate:
    """A released update: safetensors bytes and the metrics released with them."""

    payload: bytes
    metrics: Mapping[str, float]


class UpdateStore:
    """The store in one folder, made on first use with mode 0700.

    A writer holds the job's lineage in the ledger, so no two writers serve one job at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, job_digest: str, round_number: int, binding: str, update: StoredUpdate) -> None:
        """Keep an update, durable before this method returns, and forget older updates.

        Raises:
            ConfigurationError: the folder cannot be written. No update may leave before this method returns.
        """
        path = self._path(job_digest, round_number, binding)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(path, _encode(binding, update), mode=PRIVATE)
            sync_folder(self._folder)  # the job's folder may be new, too
            self._forget(path.parent, round_number)
        except OSError as error:
            raise ConfigurationError(f"released updates cannot be stored: {error}") from error

    def find(self, job_digest: str, round_number: int, binding: str, update_digest: str) -> StoredUpdate | None:
        """Return the update with this binding, or None if missing or damaged.

        Args:
            update_digest: SHA-256 (hex) that the update's bytes must have.
        """
        try:
            data = self._path(job_digest, round_number, binding).read_bytes()
        except OSError:
            return None
        kept = _decode(binding, data)
        return kept if kept is not None and sha256_hex(kept.payload) == update_digest else None

    def _path(self, job_digest: str, round_number: int, binding: str) -> Path:
        return self._folder / job_digest / f"{round_number:06d}-{binding}.update"

    def _forget(self, job: Path, newest: int) -> None:
        for entry in job.iterdir():  # leftovers of a killed writer bear no round's name
            named = _NAME.fullmatch(entry.name)
            if named is None or int(named[1]) <= newest - KEPT_ROUNDS:
                entry.unlink(missing_ok=True)
        jobs = [entry for entry in self._folder.iterdir() if _JOB.fullmatch(entry.name) and entry != job]
        with suppress(FileNotFoundError):  # another lineage's session may forget at the same time
            jobs.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
        for old in jobs[KEPT_JOBS - 1 :]:
            shutil.rmtree(old, ignore_errors=True)


def _encode(binding: str, update: StoredUpdate) -> bytes:
    """Encode an update as SHA-256 over the rest, the header's length in 8 bytes, the header, and the payload."""
    header = canonical_json({"version": 1, "binding": binding, "metrics": dict(update.metrics)})
    body = len(header).to_bytes(8, "big") + header + update.payload
    return hashlib.sha256(body).digest() + body


def _decode(binding: str, data: bytes) -> StoredUpdate | None:
    stated, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != stated:
        return None
    end = 8 + int.from_bytes(body[:8], "big")
    try:
        header = parse_json(body[8:end])
    except EnvelopeError:
        return None
    if header.keys() != {"version", "binding", "metrics"} or (header["version"], header["binding"]) != (1, binding):
        return None
    return StoredUpdate(body[end:], header["metrics"])
