"""The checkpoints shown to a site: one file per coordinator key and job, durable before the site answers.

The store judges a checkpoint against the newest accepted checkpoint:

1. No accepted checkpoint yet: accepted (trust on first use).
2. An already accepted checkpoint, shown again with the same or an earlier round: no change.
3. Larger, with a proof from another size: *unproven*. The coordinator must ask for this site's newest checkpoint.
4. Larger, with a proof that the log continues: accepted.
5. All remaining cases (smaller, equal size with other lines, or a proof that fails): *forked*. Both checkpoints are
   kept.

A refusal does not stick: the store later accepts a log that continues the accepted checkpoint. A lost log stays refused
until a person acknowledges one of the refused checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ValidationError

from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import ConfigurationError, EnclaveError, JobRejected, Reason
from coreason_enclave.schemas import FormatVersion, StrictModel, in_range
from coreason_enclave.system import PRIVATE, explain, file_lock, replace_file, sync_folder
from coreason_enclave.wire import (
    AbandonedLog,
    LogCheckpoint,
    LogProof,
    LogSeen,
    RefusedLog,
    WitnessedLog,
    open_checkpoint,
    origin_of_run,
)

KEPT_ACCEPTED = 32
"""Number of newest accepted checkpoints that a repeated or late order may show again."""
KEPT_REFUSED = 16
"""Number of refused checkpoints kept: the first ones and the latest. A forking coordinator cannot fill the disk."""

_NAME = re.compile(r"[0-9a-f]{64}-[0-9a-f]{64}\.json")
_LAST_ROUND = 1 << 53


@dataclass(frozen=True)
class ShownLog:
    """A checkpoint that a coordinator shows with a round's order or, without a round, after the last round.

    Attributes:
        coordinator_key: the key (Ed25519, hex) that signed the message and must have signed the checkpoint.
        round_number: None after the last round.
        envelope: the checkpoint's envelope.
        proof: consistency proof from the checkpoint shown to the site before.
    """

    job_id: str
    job_digest: str
    coordinator_key: str
    round_number: int | None
    envelope: str
    proof: LogProof


class _Accepted(StrictModel):
    size: Annotated[int, *in_range(0, 1 << 53)]
    root: str
    round_number: Annotated[int, *in_range(0, _LAST_ROUND)]


class _Kept(StrictModel):
    """Content of one file. ``accepted``: the newest accepted checkpoints, oldest first, ending with ``log.last``."""

    version: FormatVersion = 1
    log: WitnessedLog
    accepted: tuple[_Accepted, ...]


class CheckpointStore:
    """The store in one folder, made on first use with mode 0700.

    Processes and threads may share the folder: every writer holds the folder's lock.

    Raises:
        ConfigurationError: from every method, if a file is damaged or the folder unusable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def seen(self, coordinator_key: str, job_digest: str) -> LogSeen | None:
        """Return the newest accepted checkpoint of the coordinator's log of the job, or None."""
        kept = self._read(self._path(coordinator_key, job_digest))
        return None if kept is None else _seen(_last(kept.log))

    def log(self, coordinator_key: str, job_digest: str) -> WitnessedLog:
        """Return all records of one log.

        Raises:
            ConfigurationError: this site accepted no checkpoint of the log.
        """
        kept = self._read(path := self._path(coordinator_key, job_digest))
        if kept is None:
            raise ConfigurationError(f"{path} does not exist: this site accepted no checkpoint of that log")
        return kept.log

    def logs(self) -> list[WitnessedLog]:
        """Return all records of every log, sorted by job digest and coordinator key."""
        names = sorted(path for path in self._folder.glob("*.json") if _NAME.fullmatch(path.name))
        read = [self._read(path) for path in names]
        return [kept.log for kept in read if kept is not None]

    def witness(self, shown: ShownLog, now: float) -> LogSeen:
        """Judge a checkpoint and store the decision, durable when this method returns or raises.

        Returns:
            The newest accepted checkpoint.

        Raises:
            EnvelopeError: not a checkpoint, or signed by another key.
            JobRejected: ``wrong_digest``: of another log; ``log_unproven``: rule 3; ``log_forked``: rule 5.
        """
        newest = open_checkpoint(shown.envelope, shown.coordinator_key)
        if newest.origin != origin_of_run(shown.job_digest):
            message = f"the checkpoint belongs to log {newest.origin}, not to job {shown.job_id!r}"
            raise JobRejected(message, reason=Reason.WRONG_DIGEST)
        path = self._path(shown.coordinator_key, shown.job_digest)
        with self._locked():
            kept = self._read(path)
            if kept is None:  # 1
                first = WitnessedLog(
                    job_id=shown.job_id,
                    coordinator_key=shown.coordinator_key,
                    origin=newest.origin,
                    last=shown.envelope,
                )
                self._write(path, _Kept(log=first, accepted=(_accepted(newest, shown),)))
                return _seen(newest)
            last = _last(kept.log)
            if _is_repeat(kept, last, newest, shown):  # 2
                return _seen(last)
            if newest.size > last.size and shown.proof.since != last.size:  # 3
                raise JobRejected(_UNPROVEN.format(shown.proof.since, last.size), reason=Reason.LOG_UNPROVEN)
            if newest.size > last.size and shown.proof.shows(last, newest):  # 4
                self._write(path, _continued(kept, newest, shown))
                return _seen(newest)
            self._write(path, _with_refused(kept, shown.envelope, int(now)))  # 5
            raise JobRejected(_forked(shown, last, newest), reason=Reason.LOG_FORKED)

    def acknowledge(
        self, job_digest: str, coordinator_key: str, taken: LogSeen, *, by: str, why: str, now: float
    ) -> None:
        """Continue from a refused checkpoint. The accepted checkpoint stays on record, with name and reason.

        Raises:
            ConfigurationError: the store refused no such checkpoint of the log.
        """
        path = self._path(coordinator_key, job_digest)
        with self._locked():
            kept = self._read(path)
            refused = () if kept is None else kept.log.refused
            match = [each.shown for each in refused if _seen(open_checkpoint(each.shown, coordinator_key)) == taken]
            if kept is None or not match:
                raise ConfigurationError(f"this site refused no checkpoint {taken.size}:{taken.root} of that log")
            given_up = AbandonedLog(held=kept.log.last, taken=match[0], by=by, why=why, at=int(now))
            changed = {"last": match[0], "abandoned": (*kept.log.abandoned, given_up)}
            newest = _Accepted(size=taken.size, root=taken.root, round_number=_LAST_ROUND)
            self._write(path, _Kept(log=kept.log.model_copy(update=changed), accepted=(newest,)))

    def _path(self, coordinator_key: str, job_digest: str) -> Path:
        return self._folder / f"{job_digest}-{coordinator_key}.json"

    def _read(self, path: Path) -> _Kept | None:
        try:
            kept = _Kept.model_validate(parse_json(path.read_bytes()))
            _last(kept.log)  # raises unless the key named in the file signed it
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        except (ValidationError, EnclaveError) as error:
            raise ConfigurationError(f"{path} is damaged ({explain(error)}): restore it from a backup") from error
        if path != self._path(kept.log.coordinator_key, kept.log.origin.removeprefix(origin_of_run(""))):
            raise ConfigurationError(f"{path} holds another log than its file name states: restore it from a backup")
        return kept

    def _write(self, path: Path, kept: _Kept) -> None:
        try:
            replace_file(path, kept.canonical(), mode=PRIVATE)
        except OSError as error:
            raise ConfigurationError(f"the store of checkpoints cannot be written: {error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            if not self._folder.exists():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(self._folder.parent)
            lock = ExitStack()
            lock.enter_context(file_lock(self._folder / ".lock"))
        except OSError as error:
            raise ConfigurationError(f"the store of checkpoints cannot be used: {error}") from error
        with lock:
            yield


_UNPROVEN = "the log's proof starts at line {}, but this site has {} lines: the coordinator must request the checkpoint"


def _last(log: WitnessedLog) -> LogCheckpoint:
    return open_checkpoint(log.last, log.coordinator_key)


def _seen(checkpoint: LogCheckpoint) -> LogSeen:
    return LogSeen(size=checkpoint.size, root=checkpoint.root)


def _accepted(checkpoint: LogCheckpoint, shown: ShownLog) -> _Accepted:
    number = _LAST_ROUND if shown.round_number is None else shown.round_number
    return _Accepted(size=checkpoint.size, root=checkpoint.root, round_number=number)


def _is_repeat(kept: _Kept, last: LogCheckpoint, newest: LogCheckpoint, shown: ShownLog) -> bool:
    """Return True if a late or repeated order shows an accepted checkpoint again.

    With a *later* round, an old checkpoint would hide the lines written since.
    """
    now = _accepted(newest, shown)
    same = [each for each in kept.accepted if (each.size, each.root) == (now.size, now.root)]
    return bool(same) and now.round_number <= same[0].round_number and (newest.size < last.size or newest == last)


def _continued(kept: _Kept, newest: LogCheckpoint, shown: ShownLog) -> _Kept:
    accepted = (*kept.accepted, _accepted(newest, shown))[-KEPT_ACCEPTED:]
    return kept.model_copy(update={"log": kept.log.model_copy(update={"last": shown.envelope}), "accepted": accepted})


def _with_refused(kept: _Kept, envelope: str, now: int) -> _Kept:
    refused = kept.log.refused
    if any((each.held, each.shown) == (kept.log.last, envelope) for each in refused):
        return kept
    evidence = RefusedLog(held=kept.log.last, shown=envelope, at=now)
    refused = (*refused[: KEPT_REFUSED - 1], evidence)
    return kept.model_copy(update={"log": kept.log.model_copy(update={"refused": refused})})


def _forked(shown: ShownLog, last: LogCheckpoint, newest: LogCheckpoint) -> str:
    return (
        f"the coordinator's log of job {shown.job_id!r} has {newest.size} lines that do not continue the {last.size} "
        "received lines: it was rewritten or set back. For an auditor, coreason-enclave checkpoints export writes both "
        "signed checkpoints. If the log was lost, accept the shorter one: coreason-enclave checkpoints acknowledge "
        f"SITE --job {shown.job_digest} --checkpoint {newest.size}:{newest.root} --by NAME --why TEXT"
    )
