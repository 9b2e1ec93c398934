"""A run's durable state and its audit log: saves each state before the next act, and logs each act.

State and log refer to each other, so that neither can be rolled back or exchanged alone:

- a state names the log's size and head at the time of saving;
- a log line names the state on disk at the time of writing.

The state is saved first. A crash may leave a state without its log line, but never a log that knows more than the
state. :mod:`aegis.runs.resuming` checks both before a run continues.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aegis.coordination import record_strike
from aegis.errors import RunFolderError
from aegis.stores import FileHeadStore, FileRunStore, LogPosition, RunState
from coreason_enclave.crypto import HashLog
from coreason_enclave.schemas import FederationJob, Profile
from coreason_enclave.wire import Arrays


@dataclass(frozen=True)
class RunRecords:
    """The durable records that a coordinator writes during one run.

    Attributes:
        store, audit: state and log of this run.
        heads: the newest ledger head of each site, over all runs of this coordinator.
    """

    store: FileRunStore
    audit: HashLog
    heads: FileHeadStore


class Journal:
    """The state and audit log of one run. ``state`` always equals the state on disk.

    Args:
        profile: labels every line of the log.

    Raises:
        RunFolderError: the stored state belongs to another job, is damaged, or was saved when the log was longer.
    """

    def __init__(self, job: FederationJob, initial: Arrays, records: RunRecords, profile: Profile) -> None:
        self.store, self._audit, self._profile = records.store, records.audit, profile
        store, audit = records.store, records.audit
        identity, state = {"job": job.job_id, "job_digest": job.digest()}, store.load()
        if state is None:
            self.state = self._placed(RunState(job_digest=job.digest(), models=(store.save_model(initial),)))
            self._digest = store.save(self.state)
            self.log("run", "started", identity)
            return
        if state.job_digest != job.digest():
            raise RunFolderError("this run folder belongs to another job: choose another --out")
        if state.log.size > audit.head.size:
            raise RunFolderError(
                f"the run's log has {audit.head.size} lines, but {state.log.size} when its state was saved: lines "
                "were removed. Restore audit.jsonl from a backup, or start a new run"
            )
        self.state, self._digest = state, state.digest()
        last = [record.model_dump(mode="json") for record in state.history[-1:]]
        self.log(
            "run",
            "resumed",
            {**identity, "completed_rounds": state.completed_rounds, "record": last[0] if last else None},
        )

    def save(self, state: RunState | None = None, /, **changes: Any) -> RunState:
        """Save ``state`` (default: the current state) with ``changes`` as the current state; durable on return."""
        following = (self.state if state is None else state).model_copy(update=changes)
        if following != self.state:
            following = self._placed(following)
            self._digest = self.store.save(following)
            self.state = following
        return following

    def log(self, action: str, outcome: str, details: Mapping[str, object], reason: str | None = None) -> None:
        """Append a line to the audit log, with the profile and the digest of the state on disk."""
        entry = {**self._profile.label(), "state": self._digest, **details}
        self._audit.append(actor="coordinator", action=action, outcome=outcome, reason=reason, details=entry)

    def refuse(self, action: str, site: str, reason: str, message: str, **details: object) -> None:
        """Log a refusal of a message from ``site``."""
        self.log(action, "refused", {"site": site, **({"message": message} if message else {}), **details}, reason)

    def struck(self, strikes: Mapping[str, str], activations: Mapping[str, int]) -> dict[str, Any]:
        """Return the state changes that record these strikes (reason codes by site), and log each strike."""
        quarantine, rounds_ended = dict(self.state.quarantine), self.state.rounds_ended
        for site, reason in sorted(strikes.items()):
            quarantine[site] = record_strike(quarantine.get(site), reason, rounds_ended, activations.get(site, 0))
            until = {
                "site": site,
                "strikes": quarantine[site].strikes,
                "quarantined_until": quarantine[site].quarantined_until,
            }
            self.log("quarantine", "strike", {**until, "rounds_ended": rounds_ended}, reason)
        return {"quarantine": quarantine, "struck": tuple(sorted({*self.state.struck, *strikes}))}

    def _placed(self, state: RunState) -> RunState:
        """Return ``state`` with the log's current position."""
        head = self._audit.head
        return state.model_copy(update={"log": LogPosition(size=head.size, head=head.head)})

    def readmit(self, sites: Collection[str]) -> None:
        """Clear the strikes of ``sites`` and log each one: a person's decision."""
        for site in sorted(sites):
            self.log("quarantine", "readmitted", {"site": site, "strikes": self._strikes(site)})
        self.save(quarantine={site: record for site, record in self.state.quarantine.items() if site not in sites})

    def _strikes(self, site: str) -> int:
        return self.state.quarantine[site].strikes if site in self.state.quarantine else 0
