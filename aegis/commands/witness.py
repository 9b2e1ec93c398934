"""Reads a site's witness statement from a file."""

from __future__ import annotations

from pathlib import Path

from aegis.errors import RunFolderError
from coreason_enclave.crypto import MAX_ENVELOPE_BYTES
from coreason_enclave.errors import EnclaveError
from coreason_enclave.wire import WitnessStatement, open_witness


def read_witness(path: Path) -> WitnessStatement:
    """Return the statement in ``path``; raises :class:`RunFolderError` if invalid or not authentic."""
    with path.open("rb") as file:
        data = file.read(MAX_ENVELOPE_BYTES + 1)
    try:
        return open_witness(data)
    except EnclaveError as error:
        message = f"{path} is not a site's witness statement ({error}): coreason-enclave checkpoints export writes one"
        raise RunFolderError(message) from error
