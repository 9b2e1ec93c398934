"""Studies: founded small sites and one run folder, with ways to be hostile, silent, or to lose power.

Sites are opened in this process behind Flower's own interfaces, with injected keys, so that two runs that should be the
same can be compared to the last bit.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from aegis.attacks.hostile.byzantine import SimulatedAttacker
from aegis.attacks.hostile.insider import Insider
from aegis.federated_coordinator import FederatedCoordinator
from aegis.rounds.attestation_handshake import CoordinatorHandshake
from aegis.rounds.context import ParticipantView
from aegis.rounds.journal import RunRecords
from aegis.rounds.round_runner import RoundHooks
from aegis.runtimes.in_process import (
    ClientApp,
    InProcessSites,
    client_app,
    initial_model,
    open_sites,
    seeded_keys,
)
from aegis.security.audit import HashLog, verify_lines
from aegis.stores.heads import FileHeadStore
from aegis.stores.run_state import RoundRecord, RunState
from aegis.stores.run_store import FileRunStore
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.challenges import FileChallenges
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.crypto.encoding import canonical_json, sha256_hex
from coreason_enclave.crypto.envelope import KeyRing, open_envelope, seal, unverified_payload
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob
from coreason_enclave.wire.documents import UPDATE_TYPE, RoundOrder, UpdateStatement
from coreason_enclave.wire.handler import AnswersByMethod
from coreason_enclave.wire.updates import Arrays, SealedMessage, encode_arrays

Federation = Any
Adapt = Callable[[Any], ClientApp]
MakeStudy = Callable[..., "Study"]
REHEARSALS = 4
"""A loop is run so many times over synthetic rows, to its first step, before the round is reserved."""

THREE = ("clinic-1", "clinic-2", "clinic-3")


class Refuses(AnswersByMethod):
    """A site that enrols, and then refuses every order, or only the first few."""

    def __init__(self, session: Any, reason: Reason = Reason.POLICY, *, times: int = 1 << 30) -> None:
        self.session, self.reason, self.times = session, reason, times

    def enrol(self, message: SealedMessage) -> SealedMessage:
        enrolment: SealedMessage = self.session.enrol(message)
        return enrolment

    def attest(self, message: SealedMessage) -> SealedMessage:
        attestation: SealedMessage = self.session.attest(message)
        return attestation

    def witness(self, message: SealedMessage) -> SealedMessage:
        statement: SealedMessage = self.session.witness(message)
        return statement

    def run(self, message: SealedMessage) -> SealedMessage:
        if self.times > 0:
            self.times -= 1
            raise EnclaveError("not today", reason=self.reason)
        answer: SealedMessage = self.session.run(message)
        return answer


class Forges(Refuses):
    """A site that trains honestly and signs something else, with its real key.

    ``change`` makes, of the honest statement's fields and arrays, what is said and sent instead.
    """

    def __init__(self, site: Any, change: Callable[[dict[str, Any], Arrays], tuple[dict[str, Any], Arrays]]) -> None:
        super().__init__(site.session, times=0)
        self.signer, self.change = site.session.signer, change

    def run(self, message: SealedMessage) -> SealedMessage:
        honest, own = Insider(self.session).revealed(message)
        keys = KeyRing({"self": self.signer.public_hex})
        said = UpdateStatement.from_payload(open_envelope(honest.envelope, UPDATE_TYPE, keys).payload).model_dump(
            mode="json"
        )
        fields, arrays = self.change(said, own)
        payload = encode_arrays(arrays)
        if "update_digest" in fields and fields["update_digest"] == said["update_digest"]:
            fields = {**fields, "update_digest": sha256_hex(payload)}
        envelope = seal(UPDATE_TYPE, canonical_json(fields), self.signer)
        order = RoundOrder.from_payload(unverified_payload(message.envelope))
        return SealedMessage(envelope, self.session.handshake.encrypt_update(order, envelope, payload))


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

    @property
    def heads(self) -> FileHeadStore:
        return FileHeadStore(self.folder / "heads")

    def state(self) -> RunState:
        state = self.store.load()
        assert state is not None
        return state

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]

    @contextmanager
    def opened(self, adapt: Adapt | None = None, *, sites: Iterable[Any] | None = None) -> Iterator[InProcessSites]:
        sites = self.sites if sites is None else list(sites)
        keys = {site.config.site_id: site.public_key for site in sites}
        options = {} if adapt is None else {"adapt": adapt}
        with open_sites(
            [site.folder for site in sites], keys, job_keys=lambda site: seeded_keys(7, site), **options
        ) as opened:
            yield opened

    def forget_other_logs(self) -> None:
        """Let the sites forget what they witnessed: tests run one job in several folders, as nobody else may."""
        for site in self.sites:
            shutil.rmtree(site.folder / "checkpoints", ignore_errors=True)

    @contextmanager
    def coordinator(self, job: FederationJob, opened: InProcessSites, **options: Any) -> Iterator[FederatedCoordinator]:
        """A coordinator of this study; ``options`` replace single members of what it is given, by their own names."""
        if not (self.folder / "audit.jsonl").exists():
            self.forget_other_logs()

        def given(*names: str) -> dict[str, Any]:
            return {name: options.pop(name) for name in names if name in options}

        profile = options.pop("profile", Profile.DEVELOPMENT)
        proving = {
            "signer": self.federation.signer,
            "appraiser": Appraiser(AttestationPolicy.simulated_only(), profile, NoEndorsements()),
            "attester": SimulatedAttester(),
            "challenges": FileChallenges(self.folder / "challenges"),
            **given("appraiser", "attester", "challenges", "clock"),
        }
        kept = {"store": self.store, "heads": self.heads, **given("store", "heads")}
        audit = options.pop("audit", None) or HashLog(self.folder / "audit.jsonl")
        try:
            yield FederatedCoordinator(
                job,
                ParticipantView(opened.participants, **given("revoked", "readmitted", "liveness")),
                CoordinatorHandshake(**proving),
                RunRecords(audit=audit, **kept),
                hooks=RoundHooks(**{"observe": self.seen.append, **given("evaluate", "observe")}),
                **options,
            )
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
        with self.opened(adapt, sites=sites) as opened:
            transport = grid(opened.grid)
            if isinstance(transport, Relay):
                options = {"monotonic": transport.monotonic, **options}
            with self.coordinator(job, opened, **options) as coordinator:
                return coordinator.run(transport, initial_model(job))

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
    """A grid whose replies to one round's orders pass together, by node, through :meth:`receive`.

    Its clock jumps as soon as nothing more can come in: nobody waits for a deadline. Everything else passes as it is;
    orders follow upon it, so replies to orders are held back until all of it is answered and what follows was sent: a
    coordinator may pull twice before it sends.
    """

    def __init__(self, grid: Any) -> None:
        self.grid, self.rounds, self.sent = grid, 0, list[Message]()
        self._orders: list[str] = []
        self._others: set[str] = set()
        self._may_follow = False
        self._replies: list[Message] = []
        self._jumped = 0.0

    def receive(self, replies: list[Message]) -> list[Message]:
        return replies

    def monotonic(self) -> float:
        return time.monotonic() + self._jumped

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        message_ids = list(self.grid.push_messages(messages))
        orders = {key: each for key, each in zip(message_ids, messages, strict=True) if _is_order(each)}
        self._others |= set(message_ids) - orders.keys()
        if orders:
            if not self._orders:
                self.sent, self._replies = [], []
                self.rounds += 1
            self.sent = sorted([*self.sent, *orders.values()], key=lambda each: each.metadata.dst_node_id)
            self._orders += orders
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        others = self.grid.pull_messages([each for each in message_ids if each not in self._orders])
        answered = {reply.metadata.reply_to_message_id for reply in others}
        self._others -= answered
        self._may_follow = self._may_follow or bool(answered)
        if not self._orders:
            return others
        self._replies += self.grid.pull_messages(self._orders)
        if self._may_follow or self._others or len(self._replies) < len(self._orders):
            return others
        self._orders = []
        return self.receive(sorted(self._replies, key=lambda reply: reply.metadata.src_node_id))

    def wait_for_reply(self, seconds: float) -> None:
        self._may_follow = False  # what follows is sent next
        if self._orders or self.grid._pending:
            self.grid.wait_for_reply(seconds)
        else:
            self._jumped += seconds

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
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


def _is_order(message: Message) -> bool:
    return bool(message.metadata.message_type == "train")


class OneByOne(Relay):
    """Hands out one reply at a time, by node, once all are in: the same durable writes in the same order, each time."""

    def __init__(self, grid: Any) -> None:
        super().__init__(grid)
        self._asked: list[str] = []
        self._ready: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = list(self.grid.push_messages(list(messages)))
        self._asked += pushed
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        arrived = list(self.grid.pull_messages(self._asked))
        self._ready += arrived
        self._asked = [
            each for each in self._asked if each not in {reply.metadata.reply_to_message_id for reply in arrived}
        ]
        if self._asked or not self._ready:
            return []
        self._ready.sort(key=lambda reply: (-reply.metadata.src_node_id, reply.metadata.message_type != "train"))
        return [self._ready.pop()]

    def wait_for_reply(self, seconds: float) -> None:
        if self._asked:
            self.grid.wait_for_reply(seconds)


def scaled(factor: float) -> Callable[[Any], SimulatedAttacker]:
    return lambda site: SimulatedAttacker(site.session, factor)


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
    """Store, heads and audit log whose every durable write passes the fuse."""
    store, heads = FileRunStore(folder / "state"), FileHeadStore(folder / "heads")
    audit = HashLog(folder / "audit.jsonl")
    for keeper, names in {
        store: (
            *("save", "save_model", "save_strategy", "keep_strategy"),
            *("save_update", "drop_arrays", "save_health"),
        ),
        heads: ("put",),
        audit: ("append",),
    }.items():
        for name in names:
            setattr(keeper, name, fuse.through(getattr(keeper, name)))
    return {"store": store, "heads": heads, "audit": audit}


@dataclass(frozen=True)
class Undisturbed:
    """Three created sites, a job of two rounds, the model it gives, and how many durable writes it takes."""

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
    accepted = [line for line in run.audit() if (line["action"], line["outcome"]) == ("admit", "accepted")]
    updates = {(line["details"]["site"], line["details"]["round"], line["details"]["update"]) for line in accepted}
    assert len(updates) == 6  # heard twice or not, each site's update of each round is one and the same
