"""Checks that a run's records are complete and consistent, before the coordinator sends anything to a site.

The checks run in this order. The first failure is reported; nothing has changed or cost privacy by then:

1. ``config.json``, ``job.yaml`` and the evaluation set match the digests in the log;
2. the log extends the last checkpoint that this coordinator signed;
3. the state exists, and is neither older nor newer than the log says;
4. the models and strategy documents named by the state exist, with the digests in their names;
5. so do the envelopes named by the log, and the arrays of every update used, or still usable, for a model.

Traces of a crash pass. Each act reaches the disk before the next act begins, so a crash leaves

- a state without the log line that follows,
- a log without the newest checkpoint, or
- files that no state names.

The opposite of each trace means damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aegis.errors import RunFolderError
from aegis.runs.folder import EVALUATION_SET, RunFolder
from aegis.security import HashLog, verify_checkpoint
from aegis.stores import RunState
from coreason_enclave.crypto import KeyRing, Signer, parse_json, sha256_hex, unverified_payload
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import Profile
from coreason_enclave.system import replace_file
from coreason_enclave.wire import UpdateStatement, origin_of_run, sign_log

RECORDED_FILES = {"config": "config.json", "job_file": "job.yaml", "evaluation_set": EVALUATION_SET}
"""Files whose SHA-256 each start of a run records in the log; null for a missing evaluation set."""

CHECKPOINT = "state/checkpoint.json"
"""The newest signed head of the log, for resuming the run."""

_RESTORE = "restore the run folder from a backup, or start a new run (another --out)"


def record_configuration(folder: RunFolder, audit: HashLog, profile: Profile) -> None:
    """Append the digests of configuration, job file and evaluation set to the log; a later checkpoint signs them."""
    paths = {field: folder.path / name for field, name in RECORDED_FILES.items()}
    digests = {field: sha256_hex(path.read_bytes()) if path.exists() else None for field, path in paths.items()}
    audit.append(
        actor="coordinator", action="configuration", outcome="recorded", details={**profile.label(), **digests}
    )


def sign_checkpoint(folder: RunFolder, audit: HashLog, signer: Signer) -> None:
    """Store a signed head of the present log; durable when this returns."""
    path = folder.path / CHECKPOINT
    path.parent.mkdir(exist_ok=True)
    replace_file(path, sign_log(audit, signer, origin_of_run(folder.job().digest())))


def require_whole(folder: RunFolder, coordinator_key: str) -> None:
    """Check the records of a run in ``folder``, whose log this process holds open.

    Args:
        coordinator_key: Ed25519, hex.

    Raises:
        RunFolderError: names the file, the damage and the remedy.
    """
    checks = _Checks(folder, coordinator_key)
    recorded = [line for line in checks.lines if _action_and_outcome(line) == ("configuration", "recorded")]
    if not recorded:
        checks.require_nothing_else()
        return
    checks.require_recorded(recorded)
    checks.require_checkpoint()
    if checks.require_state():
        checks.require_named_files()
        checks.require_updates()


@dataclass(frozen=True)
class _Checks:
    folder: RunFolder
    coordinator_key: str

    @cached_property
    def log(self) -> bytes:
        return (self.folder.path / "audit.jsonl").read_bytes()

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        return [parse_json(line, limit=len(self.log)) for line in self.log.split(b"\n")[:-1]]

    @cached_property
    def state(self) -> RunState:
        return self.folder.state()

    def require_nothing_else(self) -> None:
        """Accept a log without a configuration line, as a crash may leave one, only if no later file exists."""
        for name in ("state/state.json", CHECKPOINT):
            if (self.folder.path / name).exists():
                raise _damaged("audit.jsonl", f"the file is missing or truncated, but {name} records a started run")

    def require_recorded(self, recorded: list[dict[str, Any]]) -> None:
        for field, name in RECORDED_FILES.items():
            path = self.folder.path / name
            digest = sha256_hex(path.read_bytes()) if path.exists() else None
            if any(line["details"].get(field) != digest for line in recorded):
                raise _damaged(name, "the file differs from the one that the log recorded")

    def require_checkpoint(self) -> None:
        path = self.folder.path / CHECKPOINT
        if not path.exists():
            if self.folder.has_state:
                raise _damaged(CHECKPOINT, "the file is missing")
            return
        try:
            verify_checkpoint(self.log, path.read_bytes(), KeyRing({"coordinator": self.coordinator_key}))
        except EnclaveError as error:
            raise _damaged("audit.jsonl", f"the log does not extend {CHECKPOINT}: {error}") from error

    def require_state(self) -> bool:
        """Check the state against the log; return False for a run that crashed before its first state was saved."""
        acts = [line for line in self.lines if _action_and_outcome(line)[0] not in ("configuration", "recovered")]
        if not self.folder.has_state:
            if acts:
                raise _damaged("state/state.json", f"missing; the log has action {_action_and_outcome(acts[-1])[0]}")
            return False
        position, size = self.state.log, len(self.lines)
        if position.size > size:
            raise _damaged("audit.jsonl", f"the log has {size} lines, but the state was saved after {position.size}")
        if position.size and sha256_hex(self.log.split(b"\n")[position.size - 1]) != position.head:
            raise _damaged("audit.jsonl", f"line {position.size} is not the line that the state was saved after")
        digest = sha256_hex((self.folder.path / "state" / "state.json").read_bytes())
        later = {line["details"]["state"] for line in self.lines[position.size :] if "state" in line["details"]}
        if later - {digest}:
            raise _damaged("state/state.json", "the log names another state: the file was changed or rolled back")
        return True

    def require_named_files(self) -> None:
        names = [f"models/{digest}" for digest in self.state.models]
        names += [f"strategy/{digest}" for digest in sorted(self.state.strategy.digests())]
        for name in names:
            self._require_digest(f"state/{name}.safetensors", name.partition("/")[2])

    def require_updates(self) -> None:
        accepted = [
            line["details"]["envelope"] for line in self.lines if _action_and_outcome(line) == ("admit", "accepted")
        ]
        with_arrays = {kept.envelope for kept in self.state.received.values()}
        if self.folder.job().client_privacy is None:
            with_arrays |= {each for record in self.state.history for each in record.envelopes.values()}
        for digest in sorted({*accepted, *with_arrays}):
            envelope = self._require_digest(f"state/updates/{digest}.json", digest)
            if digest in with_arrays:
                statement = UpdateStatement.from_payload(unverified_payload(envelope))
                self._require_digest(f"state/updates/{digest}.safetensors", statement.update_digest)

    def _require_digest(self, name: str, digest: str) -> bytes:
        try:
            data = (self.folder.path / name).read_bytes()
        except FileNotFoundError as error:
            raise _damaged(name, "the file is missing") from error
        if sha256_hex(data) != digest:
            raise _damaged(name, "the content does not have the digest in the file's name")
        return data


def _action_and_outcome(line: Mapping[str, Any]) -> tuple[str, str]:
    return str(line.get("action")), str(line.get("outcome"))


def _damaged(name: str, damage: str) -> RunFolderError:
    return RunFolderError(f"{name}: {damage}. No request was sent to any site: {_RESTORE}")
