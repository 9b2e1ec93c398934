"""Stores a run's durable state, so that saved data survives a crash whole.

The state is one JSON document, replaced whole (write, ``fsync``, rename). Models and sealed updates are files named by
their digests. A file is on disk before the state that names it, so a state never names a missing file.

::

    state.json                          the state
    models/<digest>.safetensors         global models
    updates/<digest>.json               each admitted update's envelope, named by its SHA-256, kept for an auditor
    updates/<digest>.safetensors        the update's arrays, decrypted: input to recompute each round's model
    strategy/<digest>.safetensors       strategy documents: SCAFFOLD's variates, Adam's and Yogi's moments
    health.json                         last known health of the sites
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError

from aegis.errors import RunFolderError
from aegis.stores.run_state import RunState
from coreason_enclave.crypto import canonical_json, parse_json, sha256_hex
from coreason_enclave.errors import EnclaveError
from coreason_enclave.system import explain, replace_file, sync_folder, write_whole
from coreason_enclave.wire import Array, Arrays, SealedMessage, decode_arrays, encode_arrays

_MAX_MODEL_BYTES = 1 << 30
_MAX_STATE_BYTES = 1 << 28


class FileRunStore:
    """The durable state of one run, in a folder. Saved data survives a crash whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("models", "strategy", "updates"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def load(self) -> RunState | None:
        """Return the last saved state, or None before the first save; raise :class:`RunFolderError` if damaged."""
        path = self._folder / "state.json"
        if not path.exists():
            return None
        try:
            return RunState.model_validate(parse_json(path.read_bytes(), limit=_MAX_STATE_BYTES))
        except (ValidationError, EnclaveError) as error:
            raise RunFolderError(f"{path} is damaged ({explain(error)}): start a new run") from error

    def save(self, state: RunState) -> str:
        """Replace the state, durable on return; return the SHA-256 of the new document on disk."""
        data = state.canonical()
        replace_file(self._folder / "state.json", data)
        return sha256_hex(data)

    def load_model(self, digest: str) -> dict[str, Array]:
        """Return the model with this digest; raise :class:`RunFolderError` if missing or damaged."""
        return self._load("models", digest)

    def save_model(self, arrays: Arrays) -> str:
        """Store a model and return its digest; durable on return."""
        return self._save("models", arrays)

    def load_strategy(self, digest: str) -> dict[str, Array]:
        """Return the strategy document with this digest; raise :class:`RunFolderError` if missing or damaged."""
        return self._load("strategy", digest)

    def save_strategy(self, arrays: Arrays) -> str:
        """Store a strategy document and return its digest; durable on return."""
        return self._save("strategy", arrays)

    def keep_strategy(self, digests: Collection[str]) -> None:
        """Delete all strategy documents except those with ``digests``. A repeated call does nothing."""
        for path in (self._folder / "strategy").iterdir():
            if path.name.removesuffix(".safetensors") not in digests:
                path.unlink(missing_ok=True)

    def save_update(self, message: SealedMessage) -> str:
        """Store a sealed update and return its envelope's SHA-256; durable on return."""
        digest = sha256_hex(message.envelope)
        write_whole(self._update(digest, "safetensors"), message.arrays)
        write_whole(self._update(digest, "json"), message.envelope)
        sync_folder(self._folder / "updates")
        return digest

    def load_update(self, digest: str) -> SealedMessage:
        """Return the sealed update whose envelope has this digest; raise :class:`RunFolderError` if missing or damaged.

        The arrays come unchecked: the reader checks them against the envelope.
        """
        try:
            envelope, arrays = (self._update(digest, kind).read_bytes() for kind in ("json", "safetensors"))
        except OSError as error:
            raise RunFolderError(f"the sealed update {digest} cannot be read: {error.strerror}") from error
        if sha256_hex(envelope) != digest:
            raise RunFolderError(f"{self._update(digest, 'json')} is damaged")
        return SealedMessage(envelope, arrays)

    def drop_arrays(self, digest: str) -> None:
        """Delete the arrays of a sealed update and keep its envelope. A repeated call does nothing."""
        self._update(digest, "safetensors").unlink(missing_ok=True)

    def save_health(self, document: Mapping[str, object]) -> None:
        """Replace the last known health of the sites (JSON types), for display only: no decision reads it."""
        replace_file(self._folder / "health.json", canonical_json(document))

    def _load(self, kind: str, digest: str) -> dict[str, Array]:
        path = self._folder / kind / f"{digest}.safetensors"
        data = path.read_bytes() if path.exists() else b""
        if sha256_hex(data) != digest:
            raise RunFolderError(f"{path} is missing or damaged: start a new run")
        return decode_arrays(data, limit=_MAX_MODEL_BYTES)

    def _save(self, kind: str, arrays: Arrays) -> str:
        data = encode_arrays(arrays)
        digest = sha256_hex(data)
        replace_file(self._folder / kind / f"{digest}.safetensors", data)
        return digest

    def _update(self, digest: str, kind: str) -> Path:
        return self._folder / "updates" / f"{digest}.{kind}"
