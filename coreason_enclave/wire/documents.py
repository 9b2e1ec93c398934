"""What travels inside envelopes: what a coordinator asks (invitations, attestation requests, orders), and what a site
answers (enrolments, attestations, update statements)."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from coreason_enclave.crypto.encoding import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import (
    Delta,
    FederationJob,
    Flag,
    FormatVersion,
    HexDigest,
    SafeId,
    SafePath,
    StrictModel,
    UnixSeconds,
    explain,
    in_range,
)
from coreason_enclave.wire.checkpoints import Envelope, LogProof, LogSeen

__all__ = [
    "ATTESTATION_REQUEST_TYPE",
    "ATTESTATION_TYPE",
    "COORDINATOR",
    "ENROLMENT_TYPE",
    "HEAD_TYPE",
    "HEALTH_TYPE",
    "INVITATION_TYPE",
    "ORDER_TYPE",
    "UPDATE_TYPE",
    "AttestationRequest",
    "CoordinatorIdentity",
    "Enrolment",
    "FreeBudget",
    "HealthStatement",
    "JobInvitation",
    "LedgerHeadStatement",
    "RoundOrder",
    "SiteAttestation",
    "SiteLedgerHead",
    "UpdateStatement",
    "parse_attestation",
    "parse_attestation_request",
    "parse_enrolment",
    "parse_head",
    "parse_health",
    "parse_invitation",
    "parse_order",
    "parse_statement",
]

INVITATION_TYPE = "application/vnd.aegis.job-invitation.v1+json"
ENROLMENT_TYPE = "application/vnd.aegis.enrolment.v1+json"
ATTESTATION_REQUEST_TYPE = "application/vnd.aegis.attestation-request.v1+json"
ATTESTATION_TYPE = "application/vnd.aegis.attestation.v1+json"
ORDER_TYPE = "application/vnd.aegis.round-order.v1+json"
UPDATE_TYPE = "application/vnd.aegis.update.v1+json"
HEAD_TYPE = "application/vnd.aegis.ledger-head.v1+json"
HEALTH_TYPE = "application/vnd.aegis.health.v1+json"

COORDINATOR = "coordinator"
"""The name under which a coordinator's evidence is bound."""

Round = Annotated[int, *in_range(1, 100_000)]


class JobInvitation(StrictModel):
    """A coordinator asks a site to take part in a job, before any round. Spends nothing and promises nothing."""

    version: FormatVersion = 1
    job: FederationJob
    site_id: SafeId
    nonce: HexDigest
    issued_at: UnixSeconds
    expires_at: UnixSeconds


class Enrolment(StrictModel):
    """A site's signed word that it takes part in this very job: one entry of the roll-call.

    It travels to every other participant, so it says no more than that. ``public_key`` (Ed25519, hex) is the key
    that signed; whether it belongs to a site that somebody knows is for the reader's own list to say.
    """

    version: FormatVersion = 1
    site_id: SafeId
    public_key: HexDigest
    job_id: SafeId
    job_digest: HexDigest
    enrolled_at: UnixSeconds


class AttestationRequest(StrictModel):
    """A coordinator asks a site to prove what runs there; ``nonce`` is its single-use challenge."""

    version: FormatVersion = 1
    site_id: SafeId
    job_id: SafeId
    job_digest: HexDigest
    nonce: HexDigest
    issued_at: UnixSeconds
    expires_at: UnixSeconds


class SiteAttestation(StrictModel):
    """A site's evidence over the coordinator's challenge, and its own challenge to the coordinator.

    The evidence is bound to ``public_key`` (Ed25519), which also signed this, and to ``kem_key`` (X25519), which models
    are then encrypted to; both hex. ``log_seen`` is the newest checkpoint of this job's log that the site accepted;
    None: it was shown none.
    """

    version: FormatVersion = 1
    site_id: SafeId
    public_key: HexDigest
    kem_key: HexDigest
    job_id: SafeId
    job_digest: HexDigest
    nonce: HexDigest
    evidence: dict[str, Any]
    challenge: HexDigest
    attested_at: UnixSeconds
    log_seen: LogSeen | None = None


class CoordinatorIdentity(StrictModel):
    """The X25519 key (hex) that updates are encrypted to, and evidence over the site's last challenge.

    ``evidence`` is absent where the coordinator runs on no hardware that could prove anything.
    """

    kem_key: HexDigest
    challenge: HexDigest
    evidence: dict[str, Any] | None = None


class RoundOrder(StrictModel):
    """What one site is asked to do in one round. Times are Unix seconds; the nonce is used once.

    The base model travels beside it, encrypted to the key that ``attestation`` (an attestation result's envelope)
    names.

    ``roll_call_digest`` is the SHA-256 of the roll-call's bytes, which travel beside the order. ``last_head`` is the
    newest ledger head that this site ever signed for this coordinator, shown back to it: a ledger that does not
    know it was restored from an older copy.

    ``log`` is a checkpoint (an envelope) of the coordinator's log of this run, and ``log_proof`` shows that the log
    continues the newest checkpoint that this site said it had seen.
    """

    version: FormatVersion = 1
    job: FederationJob
    round_number: Round
    site_id: SafeId
    nonce: HexDigest
    base_model_digest: HexDigest
    roll_call_digest: HexDigest
    last_head: Envelope | None = None
    coordinator: CoordinatorIdentity
    attestation: Envelope
    log: Envelope
    log_proof: LogProof
    issued_at: UnixSeconds
    expires_at: UnixSeconds


class LedgerHeadStatement(StrictModel):
    """The site's ledger after this round: an older head later reveals a restored copy."""

    seq: Annotated[int, *in_range(0, 1 << 53)]
    hash: HexDigest


class SiteLedgerHead(StrictModel):
    """A ledger head signed on its own, so that a coordinator can show it back and cannot invent one."""

    version: FormatVersion = 1
    site_id: SafeId
    head: LedgerHeadStatement


class UpdateStatement(StrictModel):
    """What a site signs over: which update, for which order, under which privacy event, from where.

    Everything here is data-independent or has passed the mechanism: ``nominal_units`` is the declared, public
    size, never a count of rows. ``content_changed``: the rows are other ones than the job's draw before had at this
    site, which the job has to allow; how they changed is not said. ``signed_head`` is an envelope of
    :class:`SiteLedgerHead` with the same head. The evidence is fresh: it covers the order's nonce, and both of the
    site's keys. ``log_seen`` is the newest checkpoint of the run's log that the site accepted.
    """

    version: FormatVersion = 1
    site_id: SafeId
    job_id: SafeId
    job_digest: HexDigest
    round_number: Round
    nonce: HexDigest
    base_model_digest: HexDigest
    update_digest: HexDigest
    event: dict[str, Any]
    noise_source: SafeId
    unit: SafeId
    delta: Delta
    epsilon: Annotated[float, *in_range(0, 1e6)] | None
    nominal_units: Annotated[int, *in_range(1, 1 << 53)]
    content_changed: Flag
    metrics: dict[SafeId, Annotated[float, *in_range(-1e300, 1e300)]]
    kem_key: HexDigest
    evidence: dict[str, Any]
    ledger_head: LedgerHeadStatement
    signed_head: Envelope
    log_seen: LogSeen


class FreeBudget(StrictModel):
    """What one lineage's cap leaves, in epsilon at the lineage's delta. Independent of the rows."""

    dataset_id: SafePath
    epsilon_cap: Annotated[float, *in_range(0, 1e6)]
    epsilon_spent: Annotated[float, *in_range(0, 1e6)]
    delta: Delta


class HealthStatement(StrictModel):
    """A site agent's sign of life: version, its own clock, the last round-trip it measured (seconds), budgets left."""

    version: FormatVersion = 1
    site_id: SafeId
    agent_version: Annotated[str, Field(min_length=1, max_length=64)]
    sent_at: UnixSeconds
    round_trip_s: Annotated[float, *in_range(0, 3600)] | None = None
    busy: Flag = False
    budgets: tuple[FreeBudget, ...] = ()


_Document = TypeVar("_Document", bound=StrictModel)


def parse_invitation(payload: bytes) -> JobInvitation:
    """Read a verified payload as an invitation; raises :class:`EnvelopeError`."""
    return _parse(JobInvitation, payload, "a job invitation")


def parse_enrolment(payload: bytes) -> Enrolment:
    """Read a verified payload as an enrolment; raises :class:`EnvelopeError`."""
    return _parse(Enrolment, payload, "an enrolment")


def parse_attestation_request(payload: bytes) -> AttestationRequest:
    """Read a verified payload as an attestation request; raises :class:`EnvelopeError`."""
    return _parse(AttestationRequest, payload, "an attestation request")


def parse_attestation(payload: bytes) -> SiteAttestation:
    """Read a verified payload as a site's attestation; raises :class:`EnvelopeError`."""
    return _parse(SiteAttestation, payload, "an attestation")


def parse_order(payload: bytes) -> RoundOrder:
    """Read a verified payload as an order; raises :class:`EnvelopeError`."""
    return _parse(RoundOrder, payload, "a round order")


def parse_statement(payload: bytes) -> UpdateStatement:
    """Read a verified payload as an update statement; raises :class:`EnvelopeError`."""
    return _parse(UpdateStatement, payload, "an update statement")


def parse_head(payload: bytes) -> SiteLedgerHead:
    """Read a verified payload as a site's ledger head; raises :class:`EnvelopeError`."""
    return _parse(SiteLedgerHead, payload, "a ledger head")


def parse_health(payload: bytes) -> HealthStatement:
    """Read a verified payload as a health statement; raises :class:`EnvelopeError`."""
    return _parse(HealthStatement, payload, "a health statement")


def _parse(kind: type[_Document], payload: bytes, what: str) -> _Document:
    try:
        document = kind.model_validate(parse_json(payload))
    except ValidationError as error:
        raise EnvelopeError(f"not {what}: {explain(error)}") from error
    if document.canonical() != payload:  # two spellings of one document would have two digests
        raise EnvelopeError(f"not {what} in its canonical form")
    return document
