"""Studies: founded small sites and one run folder, with ways to be hostile, silent, or to lose power.

Sites are opened in this process behind Flower's own interfaces, with injected keys, so that two runs that should be the
same can be compared to the last bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from aegis.attacks.byzantine import SimulatedAttacker
from aegis.federated_coordinator import FederatedCoordinator
from aegis.runtimes.in_process import (
    ClientApp,
    InProcessSites,
    client_app,
    initial_model,
    opened_sites,
    seeded_keys,
)
from aegis.security.audit import HashLog, verify_lines
from aegis.stores.run_state import FileRunStore, RoundRecord
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob
from coreason_enclave.updates import SealedMessage, encode_arrays

Federation = Any
Adapt = Callable[[Any], ClientApp]
MakeStudy = Callable[..., "Study"]
THREE = ("clinic-1", "clinic-2", "clinic-3")


class Refuses:
    """A site that refuses every order, or only the first few."""

    def __init__(self, session: Any, reason: Reason = Reason.POLICY, *, times: int = 1 << 30) -> None:
        self.session, self.reason, self.times = session, reason, times

    def run(self, message: SealedMessage) -> SealedMessage:
        if self.times > 0:
            self.times -= 1
            raise EnclaveError("not today", reason=self.reason)
        answer: SealedMessage = self.session.run(message)
        return answer


def where(names: Iterable[str], handler: Callable[[Any], Any]) -> Adapt:
    """``handler`` answers for the named sites, their own session for the others."""
    chosen = frozenset(names)
    return lambda site: client_app(handler(site) if site.config.site_id in chosen else site.session)


@dataclass
class Study:
    """Founded sites and one run folder over them."""

    federation: Federation
    folder: Path
    sites: list[Any]
    seen: list[RoundRecord] = field(default_factory=list)

    @property
    def store(self) -> FileRunStore:
        return FileRunStore(self.folder / "state")

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]

    @contextmanager
    def opened(self, adapt: Adapt | None = None, *, sites: Iterable[Any] | None = None) -> Iterator[InProcessSites]:
        sites = self.sites if sites is None else list(sites)
        keys = {site.config.site_id: site.public_key for site in sites}
        options = {} if adapt is None else {"adapt": adapt}
        with opened_sites(
            [site.folder for site in sites], keys, job_keys=lambda site: seeded_keys(7, site), **options
        ) as opened:
            yield opened

    @contextmanager
    def coordinator(self, job: FederationJob, opened: InProcessSites, **options: Any) -> Iterator[FederatedCoordinator]:
        audit = options.pop("audit", None) or HashLog(self.folder / "audit.jsonl")
        settings = {
            "signer": self.federation.signer,
            "store": self.store,
            "profile": Profile.DEVELOPMENT,
            "observe": self.seen.append,
            **options,
        }
        try:
            yield FederatedCoordinator(job, opened.participants, audit=audit, **settings)
        finally:
            audit.close()

    def run(
        self,
        job: FederationJob,
        adapt: Adapt | None = None,
        *,
        grid: Callable[[Grid], Any] = lambda grid: grid,
        sites: Iterable[Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Open the sites, run or go on with the job, close everything."""
        with self.opened(adapt, sites=sites) as opened, self.coordinator(job, opened, **options) as coordinator:
            return coordinator.run(grid(opened.grid), initial_model(job))

    def history(self) -> tuple[RoundRecord, ...]:
        state = self.store.load()
        return () if state is None else state.history

    def reserved_rounds(self) -> dict[str, list[int]]:
        """The rounds that each site's ledger has a reservation for, in order."""
        return {
            site.config.site_id: [
                entry["plan"]["round_number"] for entry in site.ledger_entries() if entry["type"] == "reserved"
            ]
            for site in self.sites
        }


def a_job(federation: Federation, **changes: Any) -> FederationJob:
    job: FederationJob = federation.job(**{"min_clients": 3, "rounds": 2, "local_steps": 2, **changes})
    return job


class Relay(Grid):
    """A grid whose replies pass through :meth:`hear` on their way to the coordinator."""

    def __init__(self, grid: Any) -> None:
        self.grid, self.rounds = grid, 0

    def hear(self, replies: list[Message]) -> list[Message]:
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        self.sent = list(messages)
        self.rounds += 1
        replies = self.grid.send_and_receive(self.sent, timeout=timeout)
        return self.hear(sorted(replies, key=lambda reply: reply.metadata.src_node_id))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise AssertionError("unused")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise AssertionError("unused")

    def create_message(self, *args: Any, **options: Any) -> Message:
        raise AssertionError("unused")

    def get_node_ids(self) -> Iterable[int]:
        return self.grid.get_node_ids()

    def set_run(self, run: Any) -> None:
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        return self.grid.run


def scaled(factor: float) -> Callable[[Any], SimulatedAttacker]:
    return lambda site: SimulatedAttacker(site.session, site.signer, factor)


class PowerFailure(BaseException):
    """Ends the process's work at one point, as far as the process itself can tell."""


def lose_power() -> None:
    raise PowerFailure


@dataclass
class Fuse:
    """Counts durable writes and fails at the ``number``-th, before or after it."""

    number: int | None = None
    when: str = "before"
    fail: Callable[[], None] = lose_power
    passed: int = 0

    def through(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            self.passed += 1
            here = self.passed == self.number
            if here and self.when == "before":
                self.fail()
            result = write(*args, **options)
            if here and self.when == "after":
                self.fail()
            return result

        return guarded


def watched(fuse: Fuse, folder: Path) -> dict[str, Any]:
    """Store and audit log whose every durable write passes the fuse."""
    store, audit = FileRunStore(folder / "state"), HashLog(folder / "audit.jsonl")
    store.save, store.save_model = fuse.through(store.save), fuse.through(store.save_model)  # type: ignore[method-assign]
    audit.append = fuse.through(audit.append)  # type: ignore[method-assign]
    return {"store": store, "audit": audit}


@dataclass(frozen=True)
class Undisturbed:
    """Three founded sites, a job of two rounds, the model it gives, and how many durable writes it takes."""

    federation: Federation
    job: FederationJob
    founded: Path
    sites: list[Any]
    model: bytes
    writes: int

    def again(self, folder: Path) -> Study:
        """The sites as they were founded, and an empty run folder."""
        shutil.copytree(self.founded, folder / "sites")
        sites = [replace(site, folder=folder / "sites" / site.config.site_id) for site in self.sites]
        return Study(self.federation, folder / "run", sites)


def check_resumed(run: Study, undisturbed: Undisturbed) -> None:
    """Go on, and find everything as if nothing had happened."""
    model = run.run(undisturbed.job)
    assert encode_arrays(model) == undisturbed.model
    assert run.reserved_rounds() == {name: [1, 2] for name in THREE}
    assert [record.round_number for record in run.history()] == [1, 2]
    assert all(len(record.admitted) == 3 for record in run.history())
    assert run.history()[-1].steps == dict.fromkeys(THREE, 4)
    verify_lines((run.folder / "audit.jsonl").read_bytes())
    admitted = [line["details"]["update"] for line in run.audit() if line["outcome"] == "accepted"]
    assert len(set(admitted)) == 6  # heard twice or not, each site's update of each round is one and the same
