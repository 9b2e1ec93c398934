"""Reads the coordinator's audit log as the history of one run.

The coordinator writes the log around durable state, so a crash may leave

- an event twice, or
- a round completed in the state without its log line. The resume that follows logs the number of completed rounds.

The reader accepts both. No line's content is trusted: the reader skips unknown acts and refuses malformed lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aegis.errors import VerificationFailed
from aegis.stores import RoundRecord
from coreason_enclave.accounting import Event, event_from_dict
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import HexDigest, Provenance, SafeId
from coreason_enclave.system import explain
from coreason_enclave.wire import LedgerHeadStatement


class _Details(BaseModel):
    """The checked fields of a line's details; further fields may be present."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Line(_Details):
    actor: str
    action: str
    outcome: str
    details: dict[str, Any]


class _Started(_Details):
    job_digest: HexDigest


class RecordedRun(_Details):
    """Digests of the files behind one start of the run; None for a missing file."""

    config: HexDigest
    job_file: HexDigest | None = None
    evaluation_set: HexDigest | None = None


class _Resumed(_Details):
    completed_rounds: int
    job_digest: HexDigest | None = None
    record: RoundRecord | None = None


class _Completed(_Details):
    round: int
    model: HexDigest
    record: RoundRecord | None = None


class ModelReleaseEvent(_Details):
    """The log's last line: the release of the final global model.

    Attributes:
        model: the final global model's digest.
        averaged_rounds: number of last rounds whose models were averaged.
        metrics: the final global model's utility.
        evaluation_set: digest of the public examples behind ``metrics``.
        state: digest of the last state.
        outcome: digest of ``outcome.json``.
        ledgers: heads of the exported ledgers, by site.
    """

    model: HexDigest
    averaged_rounds: int
    metrics: dict[str, float] | None = None
    evaluation_set: HexDigest | None = None
    state: HexDigest | None = None
    outcome: HexDigest | None = None
    ledgers: dict[SafeId, LedgerHeadStatement] = Field(default_factory=dict)


class _Paid(_Details):
    ledger_head: LedgerHeadStatement


def _an_event(document: object) -> Event:
    if not isinstance(document, Mapping):
        raise ValueError("must be a privacy event")
    return event_from_dict(document)


class AuditedUpdate(_Details):
    """One accepted update in the log. ``line`` counts from 1; ``envelope`` holds the SHA-256 of the signed envelope."""

    line: int
    site: SafeId
    round_number: int = Field(alias="round")
    digest: HexDigest = Field(alias="update")
    event: Annotated[Event, BeforeValidator(_an_event)]
    provenance: Provenance
    noise_source: SafeId
    unit: SafeId
    delta: float
    ledger_head: LedgerHeadStatement
    content_changed: bool = False
    envelope: HexDigest | None = None


@dataclass(frozen=True)
class AuditedRound:
    """One completed round. ``model`` and ``record`` are None only in logs of earlier versions."""

    number: int
    admitted: Mapping[str, AuditedUpdate]
    model: str | None
    record: RoundRecord | None = None


@dataclass(frozen=True)
class AuditedDraw:
    """A charged round of a job with client-level privacy. ``ledger_head`` belongs to the coordinator's ledger."""

    line: int
    ledger_head: LedgerHeadStatement


@dataclass(frozen=True)
class AuditTrail:
    """The run's history according to the log.

    Attributes:
        jobs: digests of the started jobs; a run has one.
        rounds: the completed rounds, in order.
        updates: every accepted update, including attempts repeated or lost in a crash.
        released: the release in the log's last line; None if the log ends otherwise.
        profiles: profiles named in the coordinator's lines.
        configurations: digests of the run's configuration files; a run has one set.
        draws: charges of a job with client-level privacy, each made before the round's model was stored.
    """

    jobs: frozenset[str]
    rounds: tuple[AuditedRound, ...]
    updates: tuple[AuditedUpdate, ...]
    released: ModelReleaseEvent | None
    profiles: frozenset[str]
    configurations: frozenset[RecordedRun]
    draws: tuple[AuditedDraw, ...]


def read_trail(data: bytes) -> AuditTrail:
    """Read a log with a verified hash chain.

    Raises:
        VerificationFailed: names the malformed or inconsistent line.
    """
    reading = _Reading()
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            reading.follow(number, _Line.model_validate(parse_json(line)))
        except (ValidationError, EnclaveError) as error:
            raise VerificationFailed(f"audit.jsonl, line {number}: {explain(error)}") from error
    return reading.trail()


_D = TypeVar("_D", bound=_Details)


@dataclass
class _Reading:
    """A fold over the lines: the history so far, and the accepted updates of the open round."""

    jobs: set[str] = field(default_factory=set)
    rounds: list[AuditedRound] = field(default_factory=list)
    updates: list[AuditedUpdate] = field(default_factory=list)
    open: dict[str, AuditedUpdate] = field(default_factory=dict)
    released: ModelReleaseEvent | None = None
    profiles: set[str] = field(default_factory=set)
    configurations: set[RecordedRun] = field(default_factory=set)
    draws: list[AuditedDraw] = field(default_factory=list)

    def follow(self, number: int, line: _Line) -> None:
        self.released = None  # only a release in the last line counts
        if line.actor != "coordinator":
            return
        self.profiles.add(str(line.details.get("profile", "unnamed")))
        match line.action, line.outcome:
            case "configuration", "recorded":
                self.configurations.add(_read(RecordedRun, line))
            case "run", "started":
                self.jobs.add(_read(_Started, line).job_digest)
            case "run", "resumed":
                self._resume(_read(_Resumed, line))
            case "run", "finished":
                self.released = _read(ModelReleaseEvent, line)
            case "round", "opened":
                self.open = {}
            case "round", "completed":
                completed = _read(_Completed, line)
                self._complete(completed.round, completed.model, completed.record)
            case "client_privacy", "committed":
                self.draws.append(AuditedDraw(number, _read(_Paid, line).ledger_head))
            case "admit", "accepted":
                update = AuditedUpdate.model_validate({**line.details, "line": number})
                self.updates.append(update)
                self.open[update.site] = update

    def _resume(self, resumed: _Resumed) -> None:
        """Continue after a crash: this line carries the record of a completed round whose own line is missing."""
        completed_rounds, record = resumed.completed_rounds, resumed.record
        if resumed.job_digest is not None:
            self.jobs.add(resumed.job_digest)
        if completed_rounds - len(self.rounds) not in (0, 1):
            raise VerificationFailed(f"lines missing: {len(self.rounds)} of {completed_rounds} rounds before resuming")
        if completed_rounds > len(self.rounds):
            self._complete(completed_rounds, None if record is None else record.model_digest, record)
        self.open = {}

    def _complete(self, number: int, model: str | None, record: RoundRecord | None) -> None:
        self.rounds.append(AuditedRound(number, dict(self.open), model, record))
        self.open = {}

    def trail(self) -> AuditTrail:
        return AuditTrail(
            frozenset(self.jobs),
            tuple(self.rounds),
            tuple(self.updates),
            self.released,
            frozenset(self.profiles),
            frozenset(self.configurations),
            tuple(self.draws),
        )


def _read(kind: type[_D], line: _Line) -> _D:
    return kind.model_validate(line.details)
