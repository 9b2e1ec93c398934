"""A run's durable state: what a coordinator needs to go on after it was killed at any instruction.

State is one JSON document, replaced whole (write, ``fsync``, rename); models and sealed updates are files named by
their digest. A file is on disk before the state that names it, so a state never points at nothing.

::

    state.json                          the state
    models/<digest>.safetensors         global models
    updates/<digest>.json               each admitted update's envelope, named by its SHA-256, kept for an auditor
    updates/<digest>.safetensors        its arrays, until its round is complete
    strategy/<digest>.safetensors       what the strategy remembers: SCAFFOLD's variates, Adam's and Yogi's moments
    health.json                         what was last known of the sites
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field, ValidationError

from aegis.coordination.quarantine import Conduct
from aegis.errors import RunFolderError
from coreason_enclave.encoding import canonical_json, parse_json, sha256_hex
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import Flag, HexDigest, Provenance, SafeId, StrictModel, UnixSeconds, explain, in_range
from coreason_enclave.updates import Array, Arrays, SealedMessage, decode_arrays, encode_arrays

__all__ = [
    "ClientDraw",
    "FileRunStore",
    "KeptUpdate",
    "RoundRecord",
    "RunState",
    "RunStore",
    "StrategyState",
    "replace_file",
]

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


class ClientDraw(StrictModel):
    """Where the draws of a job with client-level privacy stand.

    Attributes:
        round_number, number: the last draw: of which round, and 1 or one more for each time it was drawn anew.
        population: the sites that were enrolled when the job first drew: the fixed part of the denominator.
        is_open: whether that round is open; it may have asked nobody.
    """

    round_number: Annotated[int, *in_range(1, 1 << 53)]
    number: Annotated[int, *in_range(1, 1 << 53)]
    population: Annotated[int, *in_range(1, 1 << 53)]
    is_open: Flag


class StrategyState(StrictModel):
    """What a strategy and a server optimizer remember between rounds: documents by digest; empty where they need none.

    Attributes:
        control: SCAFFOLD's ``c``; None: zero. variates: the sites' ``c_i``; zero for a site that is not named.
        moments: ``m`` and ``v`` of an adaptive server optimizer; None before the first round.
    """

    control: HexDigest | None = None
    variates: dict[SafeId, HexDigest] = Field(default_factory=dict)
    moments: HexDigest | None = None

    def digests(self) -> frozenset[str]:
        """The documents that are needed."""
        return frozenset(each for each in (self.control, self.moments, *self.variates.values()) if each is not None)


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
        strategy: what the strategy remembers of the completed rounds.
        client_draw: of a job with client-level privacy, from its first draw on.
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
    strategy: StrategyState = StrategyState()
    client_draw: ClientDraw | None = None

    @property
    def completed_rounds(self) -> int:
        """Rounds whose model is in :attr:`models`."""
        return len(self.history)

    @property
    def open_round(self) -> int:
        """The number of the round that is open, or opened next."""
        return len(self.history) + 1

    @property
    def is_open(self) -> bool:
        """Whether a round is open, even if it asks nobody."""
        return bool(self.nonces) or (self.client_draw is not None and self.client_draw.is_open)

    def repeated(self, nonces: dict[str, str]) -> RunState:
        """With the same round opened once more for the same sites; none of the attempt before it counts."""
        fresh: dict[str, object] = {"nonces": nonces, "received": {}, "refused": {}, "offended": ()}
        return self.model_copy(update={**fresh, "attempt": self.attempt + 1})

    def closed(self) -> RunState:
        """With no round open, one turn later."""
        state = self.repeated({})
        draw = None if self.client_draw is None else self.client_draw.model_copy(update={"is_open": False})
        return state.model_copy(update={"left_out": {}, "attempt": 1, "turn": self.turn + 1, "client_draw": draw})


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

    def load_strategy(self, digest: str) -> dict[str, Array]:
        """What the strategy remembers under this digest; raises :class:`RunFolderError` as :meth:`load_model` does."""
        ...

    def save_strategy(self, arrays: Arrays) -> str:
        """Keep what the strategy remembers and return its digest; durable when this returns."""
        ...

    def keep_strategy(self, digests: Collection[str]) -> None:
        """Forget whatever the strategy remembered under other digests. Doing so again does nothing."""
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
        for name in ("models", "strategy", "updates"):
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
        return self._load("models", digest)

    def save_model(self, arrays: Arrays) -> str:
        """See :class:`RunStore`."""
        return self._save("models", arrays)

    def load_strategy(self, digest: str) -> dict[str, Array]:
        """See :class:`RunStore`."""
        return self._load("strategy", digest)

    def save_strategy(self, arrays: Arrays) -> str:
        """See :class:`RunStore`."""
        return self._save("strategy", arrays)

    def keep_strategy(self, digests: Collection[str]) -> None:
        """See :class:`RunStore`."""
        for path in (self._folder / "strategy").iterdir():
            if path.name.removesuffix(".safetensors") not in digests:
                path.unlink(missing_ok=True)

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
