"""A run's durable state: what a coordinator needs to go on after it was killed at any instruction.

State is one JSON document, replaced whole (write, ``fsync``, rename); models and sealed updates are files named by
their digest. A file is on disk before the state that names it, so a state never points at nothing.

::

    state.json                          the state
    models/<digest>.safetensors         global models
    updates/<digest>.json               each admitted update's envelope, named by its SHA-256, kept for an auditor
    updates/<digest>.safetensors        its arrays, until its round is complete
    health.json                         what was last known of the sites
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field, ValidationError

from aegis.coordination.quarantine import Conduct
from aegis.errors import RunFolderError
from coreason_enclave.encoding import canonical_json, parse_json, sha256_hex
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import HexDigest, Provenance, SafeId, StrictModel, UnixSeconds, explain, in_range
from coreason_enclave.updates import Array, Arrays, SealedMessage, decode_arrays, encode_arrays

__all__ = ["FileRunStore", "KeptUpdate", "RoundRecord", "RunState", "RunStore", "replace_file"]

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


class KeptUpdate(StrictModel):
    """An update that was admitted to the open attempt: where it is kept, and when it was admitted."""

    envelope: HexDigest
    admitted_at: UnixSeconds


class RunState(StrictModel):
    """Everything that must not be forgotten.

    Attributes:
        turn: rounds completed or paused so far; quarantine is counted in these.
        enrolments: the envelope of each site that enrolled: the roll-call.
        conduct: the sites whose offences still count.
        attempt: of the open round. nonces: the sites it asks, each with its order's; empty where no round is open.
        left_out: the sites that the open round does not ask, each with its reason code.
        received: what the open attempt admitted so far. refused: its refusals so far, by reason code.
        offended: the sites that offended in the open attempt.
    """

    version: Annotated[int, *in_range(2, 2)] = 2
    job_digest: HexDigest
    turn: Annotated[int, *in_range(0, 1 << 53)] = 0
    enrolments: dict[SafeId, str] = Field(default_factory=dict)
    conduct: dict[SafeId, Conduct] = Field(default_factory=dict)
    attempt: Annotated[int, *in_range(1, 1 << 53)] = 1
    nonces: dict[SafeId, HexDigest] = Field(default_factory=dict)
    left_out: dict[SafeId, SafeId] = Field(default_factory=dict)
    received: dict[SafeId, KeptUpdate] = Field(default_factory=dict)
    refused: dict[SafeId, SafeId] = Field(default_factory=dict)
    offended: tuple[SafeId, ...] = ()
    models: tuple[HexDigest, ...]
    history: tuple[RoundRecord, ...] = ()

    @property
    def completed_rounds(self) -> int:
        """Rounds whose model is in :attr:`models`."""
        return len(self.history)

    @property
    def open_round(self) -> int:
        """The number of the round that is open, or opened next."""
        return len(self.history) + 1

    def repeated(self, nonces: dict[str, str]) -> RunState:
        """With the same round opened once more for the same sites; none of the attempt before it counts."""
        fresh: dict[str, object] = {"nonces": nonces, "received": {}, "refused": {}, "offended": ()}
        return self.model_copy(update={**fresh, "attempt": self.attempt + 1})

    def closed(self) -> RunState:
        """With no round open, one turn later."""
        state = self.repeated({})
        return state.model_copy(update={"left_out": {}, "attempt": 1, "turn": self.turn + 1})


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

    def save_update(self, message: SealedMessage) -> str:
        """Keep a sealed update and return its envelope's SHA-256; durable when this returns."""
        ...

    def load_update(self, digest: str) -> SealedMessage:
        """The sealed update whose envelope has this digest; raises :class:`RunFolderError`.

        Its arrays are as they were found: whoever reads them checks them against the envelope.
        """
        ...

    def drop_arrays(self, digest: str) -> None:
        """Forget the arrays of a sealed update; its envelope is kept. Doing so again does nothing."""
        ...

    def save_health(self, document: Mapping[str, object]) -> None:
        """Replace what was last known of the sites (JSON types), for whoever looks on. Nothing depends on it."""
        ...


class FileRunStore:
    """:class:`RunStore` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("models", "updates"):
            (folder / name).mkdir(parents=True, exist_ok=True)

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

    def save_update(self, message: SealedMessage) -> str:
        """See :class:`RunStore`."""
        digest = sha256_hex(message.envelope)
        _write_whole(self._update(digest, "safetensors"), message.arrays)
        _write_whole(self._update(digest, "json"), message.envelope)
        _sync_folder(self._folder / "updates")
        return digest

    def load_update(self, digest: str) -> SealedMessage:
        """See :class:`RunStore`."""
        try:
            envelope, arrays = (self._update(digest, kind).read_bytes() for kind in ("json", "safetensors"))
        except OSError as error:
            raise RunFolderError(f"the sealed update {digest} cannot be read: {error.strerror}") from error
        if sha256_hex(envelope) != digest:
            raise RunFolderError(f"{self._update(digest, 'json')} is damaged")
        return SealedMessage(envelope, arrays)

    def drop_arrays(self, digest: str) -> None:
        """See :class:`RunStore`."""
        self._update(digest, "safetensors").unlink(missing_ok=True)

    def save_health(self, document: Mapping[str, object]) -> None:
        """See :class:`RunStore`."""
        replace_file(self._folder / "health.json", canonical_json(document))

    def _update(self, digest: str, kind: str) -> Path:
        return self._folder / "updates" / f"{digest}.{kind}"


def replace_file(path: Path, data: bytes) -> None:
    """Write ``path`` whole or not at all: temporary file, ``fsync``, rename, ``fsync`` of the folder."""
    _write_whole(path, data)
    _sync_folder(path.parent)


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
