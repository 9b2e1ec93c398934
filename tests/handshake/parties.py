"""Two ends of the protocol with a clock and hosts in the test's hand, and a wire that is listened to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from aegis.coordination.orders import RoundRequest, issue_order
from aegis.rounds.attestation_handshake import Attested, CoordinatorHandshake
from aegis.runtimes.in_process import InProcessSites, client_app, open_sites
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.challenges import FileChallenges
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.attestation.evidence import CpuKind, Evidence
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob
from coreason_enclave.session.handshake import ReleasedModel, SiteHandshake
from coreason_enclave.wire.checkpoints import LogProof
from coreason_enclave.wire.documents import (
    ATTESTATION_TYPE,
    ORDER_TYPE,
    AttestationRequest,
    RoundOrder,
    SiteAttestation,
)
from coreason_enclave.wire.updates import WIRE_RECORD, SealedMessage
from tests.support.studies import Adapt, Study

NOW = 1_800_000_000
SITE = "clinic-1"
MODEL = b"the global model"


@dataclass
class Clock:
    """Unix seconds that pass when a test says so."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Host:
    """A development host that counts what it is asked, and breaks on demand."""

    fault: Exception | None = None
    asked: list[bytes] = field(default_factory=list)
    kind: CpuKind = CpuKind.SIMULATED

    def produce(self, context: bytes) -> Evidence:
        self.asked.append(context)
        if self.fault is not None:
            raise self.fault
        return SimulatedAttester().produce(context)


def no_device() -> AttestationError:
    return AttestationError("the device is gone", reason=Reason.ATTESTATION_UNAVAILABLE)


def simulated_appraiser(**changes: Any) -> Appraiser:
    """Accepts simulated evidence; ``changes`` are to its policy."""
    policy = AttestationPolicy.model_validate({"kinds": ["simulated"], **changes})
    return Appraiser(policy, Profile.DEVELOPMENT, NoEndorsements())


@dataclass
class Order:
    """An order on its way: the document, its envelope, the encrypted model."""

    order: RoundOrder
    envelope: bytes
    ciphertext: bytes


@dataclass
class Pair:
    """One coordinator and one site, with nothing between them but the test.

    ``sites`` is what the coordinator asks; ``asks`` whether the site wants evidence of the coordinator, too.
    """

    folder: Path
    job: FederationJob
    asks: Appraiser | None = None
    name: str = SITE
    clock: Clock = field(default_factory=Clock)
    host: Host = field(default_factory=Host)
    coordinator_host: Host | None = field(default_factory=Host)
    signer: Signer = field(default_factory=lambda: Signer.from_seed(bytes([7]) * 32))
    site_signer: Signer = field(default_factory=lambda: Signer.from_seed(bytes([8]) * 32))
    appraiser: Appraiser = field(default_factory=simulated_appraiser)
    coordinator: CoordinatorHandshake = field(init=False)
    site: SiteHandshake = field(init=False)

    def __post_init__(self) -> None:
        self.restart_coordinator()
        self.restart_site()

    def restart_coordinator(self) -> None:
        """As another process: memory is lost, files are there."""
        challenges = FileChallenges(self.folder / "coordinator")
        self.coordinator = CoordinatorHandshake(
            self.signer, self.appraiser, self.coordinator_host, challenges, self.clock
        )

    def restart_site(self) -> None:
        """As another process: memory is lost, files are there."""
        challenges = FileChallenges(self.folder / "site")
        self.site = SiteHandshake(self.name, self.site_signer, self.host, self.asks, challenges, self.clock)

    def request(self) -> AttestationRequest:
        return self.coordinator.request(self.name, self.job)

    def answer(self, request: AttestationRequest) -> SiteAttestation:
        return self.site.answer(request, self.signer.public_hex)

    def sealed(self, attestation: SiteAttestation, **changes: Any) -> SealedMessage:
        """What the site sends; ``changes`` are made before it signs."""
        changed = attestation.model_copy(update=changes)
        return SealedMessage(seal(ATTESTATION_TYPE, changed.canonical(), self.site_signer))

    def receive(self, message: SealedMessage) -> Attested:
        return self.coordinator.receive(self.name, self.site_signer.public_hex, message)

    def attest(self) -> Attested:
        """The whole exchange, as it should be."""
        return self.receive(self.sealed(self.answer(self.request())))

    def order(self, attested: Attested, *, nonce: str = "ab" * 32, **changes: Any) -> Order:
        """An order upon it; ``changes`` are made before the coordinator signs and encrypts."""
        order = issue_order(
            RoundRequest(self.job, 1, self.name, nonce, sha256_hex(MODEL)),
            profile=self.coordinator.appraiser.profile,
            roll_call_digest="00" * 32,
            last_head=None,
            coordinator=attested.identity,
            attestation=attested.result,
            log="of no matter to a handshake",
            log_proof=LogProof(since=0),
            now=self.clock(),
        ).model_copy(update=changes)
        envelope = seal(ORDER_TYPE, order.canonical(), self.signer)
        return Order(order, envelope, self.coordinator.release(attested, MODEL, envelope))

    def open(self, sent: Order) -> ReleasedModel:
        """What the site makes of it."""
        return self.site.release(sent.order, sent.envelope, sent.ciphertext, self.signer.public_hex)


class UnderSecretKeys(Study):
    """A study whose sites keep their own secret job keys, as production has it."""

    @classmethod
    def of(cls, study: Study) -> UnderSecretKeys:
        return cls(study.federation, study.folder, study.sites)

    @contextmanager
    def opened(self, adapt: Adapt | None = None, *, sites: Iterable[Any] | None = None) -> Iterator[InProcessSites]:
        chosen = self.sites if sites is None else list(sites)
        keys = {site.config.site_id: site.public_key for site in chosen}
        options = {} if adapt is None else {"adapt": adapt}
        with open_sites([site.folder for site in chosen], keys, **options) as opened:
            yield opened


def with_handshake(session: Any, **changes: Any) -> Any:
    """The session over a changed handshake; a clock is the session's, too."""
    clock = {"clock": changes["clock"]} if "clock" in changes else {}
    return replace(session, handshake=replace(session.handshake, **changes), **clock)


def at_sites(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What answers for a site: the session that ``change`` makes of it."""
    return lambda site: client_app(change(site))


@dataclass(frozen=True)
class Passed:
    """One message that went to a site's node."""

    node: int
    kind: str
    message: SealedMessage

    @property
    def bytes(self) -> bytes:
        return self.message.envelope + self.message.arrays + self.message.roll_call


class Tap(Grid):
    """A grid that keeps what passes to the sites, as bytes."""

    def __init__(self, grid: Any) -> None:
        self.grid, self.passed = grid, list[Passed]()

    def to(self, node: int) -> list[str]:
        return [each.kind for each in self.passed if each.node == node]

    def count(self, kind: str) -> int:
        return sum(each.kind == kind for each in self.passed)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for each in messages:
            fields = SealedMessage.from_fields(each.content.config_records[WIRE_RECORD])
            self.passed.append(Passed(each.metadata.dst_node_id, each.metadata.message_type, fields))
        return list(self.grid.push_messages(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return list(self.grid.pull_messages(message_ids))

    def wait_for_reply(self, seconds: float) -> None:
        self.grid.wait_for_reply(seconds)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise AssertionError("unused")

    def create_message(self, *args: Any, **options: Any) -> Message:
        raise AssertionError("unused")

    def get_node_ids(self) -> Iterable[int]:
        return list(self.grid.get_node_ids())

    def set_run(self, run: Any) -> None:
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        return self.grid.run


class Tapped:
    """Gives a study's grid to a :class:`Tap`, which is there once the run began."""

    tap: Tap

    def __call__(self, grid: Grid) -> Tap:
        self.tap = Tap(grid)
        return self.tap
