"""The manifest of a finished run: every file of its folder by digest, signed by the coordinator.

The manifest takes two files, since the file list of a long run exceeds the size limit of an envelope:

- ``manifest.json`` holds the list;
- ``manifest.dsse`` holds the coordinator's signature over the list's digest and the job's.

A few files remain uncovered, because programs other than the coordinator write them, before or after the end of a run.
No claim of a run rests on these files:

- ``nvflare.log``, ``nvflare/``, ``nvflare-run.json``, ``nvflare-end.json``, ``flower-run.json``: the runtime's notes;
- ``federation/``: a demonstration's own federation, whose sites and ledgers continue to change.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from aegis.errors import VerificationFailed
from coreason_enclave.crypto import KeyRing, Signer, open_envelope, parse_json, seal, sha256_hex
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import FormatVersion, HexDigest, StrictModel
from coreason_enclave.system import explain, replace_file

MANIFEST, SIGNATURE = "manifest.json", "manifest.dsse"
MANIFEST_TYPE = "application/vnd.aegis.run-manifest.v1+json"

_LEFT_OUT = re.compile(r"nvflare\.log|nvflare-(run|end)\.json|flower-run\.json|(.+/)?(nvflare|federation)/.*")
_LARGEST = 1 << 30


class FileList(StrictModel):
    """Content of ``manifest.json``: the SHA-256 of each file, by its path relative to the run folder."""

    version: FormatVersion = 1
    files: dict[Annotated[str, Field(min_length=1, max_length=4096)], HexDigest]


class ManifestStatement(StrictModel):
    """The statement that a coordinator signs at the end of a run: the job, and the SHA-256 of the file list's bytes."""

    version: FormatVersion = 1
    job_digest: HexDigest
    manifest: HexDigest


def sign_manifest(folder: Path, job_digest: str, signer: Signer, *, pending: Mapping[str, bytes]) -> None:
    """Write and sign the manifest of ``folder``; durable when this returns.

    Args:
        pending: content of files that the caller will write or replace next, by name.
    """
    names = [name for name in files_of(folder) if not is_left_out(name) and name not in pending]
    digests = {name: sha256_hex((folder / name).read_bytes()) for name in names}
    listed = FileList(files={**digests, **{name: sha256_hex(data) for name, data in pending.items()}}).canonical()
    statement = ManifestStatement(job_digest=job_digest, manifest=sha256_hex(listed))
    replace_file(folder / MANIFEST, listed)
    replace_file(folder / SIGNATURE, seal(MANIFEST_TYPE, statement.canonical(), signer))


def read_manifest(listed: bytes, signature: bytes, job_digest: str, coordinator_key: str) -> Mapping[str, str]:
    """Return the digests by path of a manifest that the coordinator signed for this job.

    Raises:
        VerificationFailed: the manifest is malformed, or the signature is of another key, job or list.
    """
    try:
        payload = open_envelope(signature, MANIFEST_TYPE, KeyRing({"coordinator": coordinator_key})).payload
        statement = ManifestStatement.model_validate(parse_json(payload))
        files = FileList.model_validate(parse_json(listed, limit=_LARGEST)).files
    except ValidationError as error:
        raise VerificationFailed(f"{MANIFEST}: {explain(error)}") from error
    except EnclaveError as error:
        raise VerificationFailed(f"{SIGNATURE}: {error}") from error
    if statement.job_digest != job_digest:
        raise VerificationFailed(f"{SIGNATURE} belongs to another job")
    if statement.manifest != sha256_hex(listed):
        raise VerificationFailed(f"{MANIFEST} is not the manifest that {SIGNATURE} signs")
    return files


def files_of(folder: Path) -> Iterator[str]:
    """Yield the sorted paths of all files and links in ``folder``, except the manifest and its signature."""
    names = []
    for place, folders, files in os.walk(folder):  # skips a folder that vanishes during the walk
        links = [name for name in folders if Path(place, name).is_symlink()]
        names += [Path(place, name).relative_to(folder).as_posix() for name in (*files, *links)]
    yield from sorted(name for name in names if name not in (MANIFEST, SIGNATURE))


def is_left_out(name: str) -> bool:
    """Return True if the manifest omits this file on purpose."""
    return _LEFT_OUT.fullmatch(name) is not None
