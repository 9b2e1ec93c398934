"""Reads the files of a command: evidence in any of its forms, endorsements, a policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from coreason_enclave.attestation import AttestationPolicy, Evidence, parse_evidence
from coreason_enclave.attestation.verify import Refusal, VerificationRefused
from coreason_enclave.configuration import read_toml
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import AttestationError, ConfigurationError, EnvelopeError, Reason
from coreason_enclave.schemas import StrictModel, explained

MAX_FILE_BYTES = 4 << 20
"""Above the size of any endorsement, and of the largest evidence (a processor and sixteen GPUs, base64 in JSON)."""

_MAX_POLICY_BYTES = 256 * 1024

_Policy = TypeVar("_Policy", bound=StrictModel)


def read_capped(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        ConfigurationError: the file cannot be read.
        VerificationRefused: ``oversized``; the read stops one byte past the limit.
    """
    content = _head(path, MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise VerificationRefused(Refusal.OVERSIZED, f"{path.name} is larger than {MAX_FILE_BYTES} bytes")
    return content


def read_evidence(content: bytes) -> bytes | Evidence:
    """Parse a host's evidence (the JSON object from ``coreason-enclave attest``), or return a vendor's form as is.

    Raises:
        VerificationRefused: ``malformed`` or ``oversized``: the content starts like a host's evidence, but is invalid.
    """
    if not content.lstrip(b" \t\r\n").startswith(b"{"):
        return content
    try:
        return parse_evidence(parse_json(content, limit=MAX_FILE_BYTES))
    except EnvelopeError as error:
        refusal = Refusal.OVERSIZED if error.reason is Reason.OVERSIZED else Refusal.MALFORMED
        raise VerificationRefused(refusal, f"not evidence: {error}") from error
    except AttestationError as error:
        raise VerificationRefused(Refusal.MALFORMED, str(error)) from error


def read_policy(path: Path, model: type[_Policy], table: str | None = None) -> _Policy:
    """Read a policy from a TOML file.

    The fields stand

    - at the top of the file, or in the table ``[attestation]`` of a file without any other content;
    - with ``table``: in the platform's table (``[dcap]``, or ``[attestation.dcap]``), if the file has a table of any
      platform, otherwise at the top as above.

    Raises:
        ConfigurationError: the file cannot be read, or holds no such policy.
    """
    document = _attestation_of(read_toml(path, limit=_MAX_POLICY_BYTES), path)
    if table is not None:
        document = _platform_of(document, table, path)
    with explained(lambda why: ConfigurationError(f"{path}: {why}")):
        return model.model_validate(document)


def _head(path: Path, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(length)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error


def _attestation_of(document: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    if "attestation" not in document:
        return document
    if others := sorted(document.keys() - {"attestation"}):
        raise ConfigurationError(f"{path}: remove or move {', '.join(others)}, ignored beside the table [attestation]")
    inner = document["attestation"]
    if not isinstance(inner, dict):
        raise ConfigurationError(f"{path}: attestation must be a table")
    return inner


def _platform_of(document: Mapping[str, Any], table: str, path: Path) -> Mapping[str, Any]:
    """Return one platform's table of a whole policy. A whole policy without the table has no policy for this kind."""
    if not document.keys() & {"dcap", "snp", "nvidia"}:
        return document
    if unknown := sorted(document.keys() - AttestationPolicy.model_fields.keys()):
        raise ConfigurationError(f"{path}: {', '.join(unknown)} belongs to no platform's table, and would be ignored")
    if table not in document:
        raise ConfigurationError(f"{path} has no table [{table}]")
    inner = document[table]
    if not isinstance(inner, dict):
        raise ConfigurationError(f"{path}: {table} must be a table")
    return inner
