"""A run's durable state: what a coordinator needs to go on after it was killed at any instruction.

State is one JSON document, replaced whole (write, ``fsync``, rename); models are files named by their digest. A model
is on disk before the state that names it, so a state never points at nothing.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field, ValidationError

from aegis.errors import RunFolderError
from coreason_enclave.encoding import parse_json, sha256_hex
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import FormatVersion, HexDigest, Provenance, SafeId, StrictModel, explain, in_range
from coreason_enclave.updates import Array, Arrays, decode_arrays, encode_arrays

__all__ = ["FileRunStore", "RoundRecord", "RunState", "RunStore", "replace_file"]

_MAX_MODEL_BYTES = 1 << 30
_MAX_STATE_BYTES = 1 << 28


class RoundRecord(StrictModel):
    """One completed round. ``epsilon`` is each site's job so far, recomputed from the events that were admitted."""

    round_number: Annotated[int, *in_range(1, 1 << 53)]
    admitted: tuple[SafeId, ...]
    refused: dict[SafeId, str]
    used: tuple[SafeId, ...]
    provenance: dict[SafeId, Provenance]
    steps: dict[SafeId, int]
    epsilon: dict[SafeId, float | None]
    model_digest: HexDigest
    metrics: dict[str, float]
    seconds: Annotated[float, *in_range(0, 1e9)]


class RunState(StrictModel):
    """Everything that must not be forgotten; ``nonces`` are those of the round that is open, by site."""

    version: FormatVersion = 1
    job_digest: HexDigest
    attempt: Annotated[int, *in_range(1, 1 << 53)] = 1
    nonces: dict[SafeId, HexDigest] = Field(default_factory=dict)
    models: tuple[HexDigest, ...]
    history: tuple[RoundRecord, ...] = ()

    @property
    def completed_rounds(self) -> int:
        """Rounds whose model is in :attr:`models`."""
        return len(self.history)


class RunStore(Protocol):
    """Durable state of one run: what was saved is there after a crash, whole."""

    def load(self) -> RunState | None:
        """The last saved state; None where nothing was saved yet."""
        ...

    def save(self, state: RunState) -> None:
        """Replace the state; durable when this returns."""
        ...

    def load_model(self, digest: str) -> dict[str, Array]:
        """The model with this digest; raises :class:`RunFolderError` if it is missing or damaged."""
        ...

    def save_model(self, arrays: Arrays) -> str:
        """Keep a model and return its digest; durable when this returns."""
        ...


class FileRunStore:
    """:class:`RunStore` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "models").mkdir(parents=True, exist_ok=True)

    def load(self) -> RunState | None:
        """See :class:`RunStore`; a damaged document raises :class:`RunFolderError`."""
        path = self._folder / "state.json"
        if not path.exists():
            return None
        try:
            return RunState.model_validate(parse_json(path.read_bytes(), limit=_MAX_STATE_BYTES))
        except (ValidationError, EnclaveError) as error:
            what = explain(error) if isinstance(error, ValidationError) else str(error)
            raise RunFolderError(f"{path} is damaged ({what}): start a new run") from error

    def save(self, state: RunState) -> None:
        """See :class:`RunStore`."""
        replace_file(self._folder / "state.json", state.canonical())

    def load_model(self, digest: str) -> dict[str, Array]:
        """See :class:`RunStore`."""
        path = self._folder / "models" / f"{digest}.safetensors"
        data = path.read_bytes() if path.exists() else b""
        if sha256_hex(data) != digest:
            raise RunFolderError(f"{path} is missing or damaged: start a new run")
        return decode_arrays(data, limit=_MAX_MODEL_BYTES)

    def save_model(self, arrays: Arrays) -> str:
        """See :class:`RunStore`."""
        data = encode_arrays(arrays)
        digest = sha256_hex(data)
        replace_file(self._folder / "models" / f"{digest}.safetensors", data)
        return digest


def replace_file(path: Path, data: bytes) -> None:
    """Write ``path`` whole or not at all: temporary file, ``fsync``, rename, ``fsync`` of the folder."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
