"""Checks that the log agrees with the checkpoints that the sites received during the run.

The holder of the coordinator's key can rewrite a log and sign the result. The sites hold the checkpoints signed
earlier: in the statement signed with each update, and in the statements that they export for an auditor.

A run is not verified if a statement contradicts the log:

- the site accepted or refused a checkpoint of another log (so the coordinator signed two logs)
- the site holds this job's log under another coordinator key
- the site never received this log, although the log accepts updates of the site
- the statement's key differs from the run's key for the site, or the site is no participant

A checkpoint of lost lines that a site gave up on purpose leaves a question open instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from aegis.verification.audit_trail import AuditedUpdate
from aegis.verification.findings import Answer, Answers, Reference, fails, holds, require, stays_open
from aegis.verification.records import Records
from coreason_enclave.crypto import GENESIS, KeyRing, open_envelope, sha256_hex, tree_of
from coreason_enclave.errors import EnclaveError
from coreason_enclave.wire import (
    CHECKPOINT_TYPE,
    UPDATE_TYPE,
    LogCheckpoint,
    LogSeen,
    UpdateStatement,
    WitnessedLog,
    WitnessStatement,
    open_checkpoint,
    open_witness,
    origin_of_run,
)


def check_witnesses(records: Records, reference: Reference) -> Answers:
    """Check that the folder's checkpoint names this run, and that the sites' signed statements agree with the log."""
    origin = origin_of_run(records.job.digest())
    key = records.config.coordinator_key if reference.coordinator_key is None else reference.coordinator_key
    keys = KeyRing({"coordinator": key})
    own = LogCheckpoint.from_payload(
        open_envelope(records.data("audit.checkpoint.json"), CHECKPOINT_TYPE, keys).payload
    )
    require(own.origin == origin, f"audit.checkpoint.json covers log {own.origin}, not this run's log {origin}")
    log = _Log(records.audit, origin, key)
    yield from _check_updates(records, log)
    for statement in (*_in_the_folder(records), *reference.witnesses):
        yield from _check_statement(records, log, statement)


def _in_the_folder(records: Records) -> list[WitnessStatement]:
    """Return the sites' statements from the end of the run. The keeper of the folder could have removed some."""
    names = sorted(path.relative_to(records.folder).as_posix() for path in records.folder.glob("witness/*.json"))
    return [open_witness(records.data(name)) for name in names]


class _Log:
    """The run's log, for comparison with checkpoints."""

    def __init__(self, data: bytes, origin: str, key: str) -> None:
        self.origin, self.key = origin, key
        self._lines, self._tree = data.split(b"\n")[:-1], tree_of(data)

    @property
    def size(self) -> int:
        return len(self._lines)

    def had(self, seen: LogSeen) -> bool:
        return seen.size <= self.size and self._tree.root(seen.size).hex() == seen.root

    def is_of(self, checkpoint: LogCheckpoint) -> bool:
        """Return True if the checkpoint's size, root and head match the log."""
        size = checkpoint.size
        if not self.had(LogSeen(size=size, root=checkpoint.root)):
            return False
        return checkpoint.head == (sha256_hex(self._lines[size - 1]) if size else GENESIS)


def _check_updates(records: Records, log: _Log) -> Answers:
    """Check the checkpoints named in accepted updates; the check of signatures reports bad envelopes."""
    agreeing = 0
    for update in records.trail.updates:
        seen = _checkpoint_in(records, update)
        if seen is None:
            continue  # reported by the check of signatures
        if not log.had(seen):
            where = f"round {update.round_number} (line {update.line})"
            yield fails(f"{update.site}, {where}: signed that it received {seen.size} lines of another log")
            return
        agreeing += 1
    if agreeing:
        yield holds(f"{agreeing} signed updates name a checkpoint of this log")


def _checkpoint_in(records: Records, update: AuditedUpdate) -> LogSeen | None:
    name, key = f"state/updates/{update.envelope}.json", records.config.participants.get(update.site)
    if key is None or not records.exists(name):
        return None
    try:
        opened = open_envelope(records.data(name), UPDATE_TYPE, KeyRing({update.site: key}))
        return UpdateStatement.from_payload(opened.payload).log_seen
    except EnclaveError:
        return None


def _check_statement(records: Records, log: _Log, statement: WitnessStatement) -> Iterator[Answer]:
    site = statement.site_id
    registered = records.config.participants.get(site)
    if registered != statement.public_key:
        whose = "from no participant of this run" if registered is None else "not signed with its key in config.json"
        yield fails(f"{site}: its witness statement is {whose}")
        return
    of_this_job = [kept for kept in statement.logs if kept.origin == log.origin]
    foreign = [kept for kept in of_this_job if kept.coordinator_key != log.key]
    if foreign:
        other = foreign[0].coordinator_key[:16]
        yield fails(f"{site} received this job's log under another coordinator key ({other}…)")
        return
    if not of_this_job:
        yield _not_received(records, site)
    for kept in of_this_job:
        yield from _compared(site, log, kept)


def _not_received(records: Records, site: str) -> Answer:
    if records.updates_of(site):
        return fails(f"{site} never received this run's log, although the log admits updates of the site")
    return stays_open(f"{site} did not receive this run's log, and the log admits no update of the site")


def _compared(site: str, log: _Log, kept: WitnessedLog) -> Iterator[Answer]:
    last = open_checkpoint(kept.last, log.key)
    if not log.is_of(last):
        yield fails(f"{site} contradicts the log: it received {last.size} lines of another log, signed by the same key")
        return
    for refused in (open_checkpoint(each.shown, log.key) for each in kept.refused):
        if not log.is_of(refused):
            message = f"the site refused {refused.size} lines of another log, signed with the same key"
            yield fails(f"{site} contradicts the log: {message}")
            return
    given_up = [each for each in kept.abandoned if not log.is_of(open_checkpoint(each.held, log.key))]
    for each in given_up:
        lost = open_checkpoint(each.held, log.key).size
        yield stays_open(f"{site} received {lost} lines that were lost; {each.by} continued without them ({each.why})")
    yield holds(f"{site} received the first {last.size} of {log.size} lines, the same as here")
