"""Documents inside envelopes: requests of a coordinator and statements of a site.

- coordinator: invitations, attestation requests, orders
- site: enrolments, attestations, update statements, ledger heads, health statements
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from coreason_enclave.schemas import (
    Delta,
    FederationJob,
    Flag,
    HexDigest,
    Profile,
    SafeId,
    SafePath,
    StrictModel,
    UnixSeconds,
    in_range,
)
from coreason_enclave.wire.addressed import SiteDocument, SiteJobDocument, SiteRequest
from coreason_enclave.wire.checkpoints import Envelope, LogProof, LogSeen

INVITATION_TYPE = "application/vnd.aegis.job-invitation.v1+json"
ENROLMENT_TYPE = "application/vnd.aegis.enrolment.v1+json"
ATTESTATION_REQUEST_TYPE = "application/vnd.aegis.attestation-request.v1+json"
ATTESTATION_TYPE = "application/vnd.aegis.attestation.v1+json"
ORDER_TYPE = "application/vnd.aegis.round-order.v1+json"
UPDATE_TYPE = "application/vnd.aegis.update.v1+json"
HEAD_TYPE = "application/vnd.aegis.ledger-head.v1+json"
HEALTH_TYPE = "application/vnd.aegis.health.v1+json"

COORDINATOR = "coordinator"
"""Subject name in the binding of a coordinator's evidence."""

Round = Annotated[int, *in_range(1, 100_000)]


class JobInvitation(SiteRequest):
    """A coordinator's invitation to take part in a job, before any round. Spends no budget, makes no promise."""

    described: ClassVar[str] = "a job invitation"

    job: FederationJob
    nonce: HexDigest


class Enrolment(SiteJobDocument):
    """A site's signed declaration of taking part in this very job: one entry of the roll-call.

    Every other participant receives the enrolment, so the document says no more. ``public_key`` (Ed25519, hex) made the
    signature; each reader's own list decides whether the key belongs to a known site. ``profile`` is the site's own.
    """

    described: ClassVar[str] = "an enrolment"

    profile: Profile
    public_key: HexDigest
    enrolled_at: UnixSeconds


class AttestationRequest(SiteRequest, SiteJobDocument):
    """A coordinator's request to a site to prove what runs there; ``nonce`` is its single-use challenge."""

    described: ClassVar[str] = "an attestation request"

    nonce: HexDigest


class SiteAttestation(SiteJobDocument):
    """A site's evidence over the coordinator's challenge, and the site's own challenge to the coordinator.

    The evidence is bound to two keys (hex): ``public_key`` (Ed25519), which also signed this document, and ``kem_key``
    (X25519), which later models are encrypted to. ``log_seen`` holds the newest checkpoint of this job's log that the
    site accepted, or None before the first checkpoint.
    """

    described: ClassVar[str] = "an attestation"

    public_key: HexDigest
    kem_key: HexDigest
    nonce: HexDigest
    evidence: dict[str, Any]
    challenge: HexDigest
    attested_at: UnixSeconds
    log_seen: LogSeen | None = None


class CoordinatorIdentity(StrictModel):
    """The coordinator's X25519 key (hex) for encrypting updates, and evidence over the site's last challenge.

    ``evidence`` is absent if the coordinator's hardware cannot attest.
    """

    kem_key: HexDigest
    challenge: HexDigest
    evidence: dict[str, Any] | None = None


class RoundOrder(SiteRequest):
    """A coordinator's order to one site for one round. Times are Unix seconds; the nonce is used once.

    The base model and the roll-call travel next to the order. Fields:

    - ``attestation``: envelope of an attestation result, naming the key that the base model is encrypted to.
    - ``roll_call_digest``: SHA-256 of the roll-call's bytes.
    - ``last_head``: the newest ledger head that this site ever signed for this coordinator, shown back to the site. A
      ledger that does not know the head was restored from an older copy.
    - ``log``: a checkpoint (envelope) of the coordinator's log of this run.
    - ``log_proof``: proof that the log continues the newest checkpoint reported by this site.
    """

    described: ClassVar[str] = "a round order"

    job: FederationJob
    round_number: Round
    nonce: HexDigest
    base_model_digest: HexDigest
    roll_call_digest: HexDigest
    last_head: Envelope | None = None
    coordinator: CoordinatorIdentity
    attestation: Envelope
    log: Envelope
    log_proof: LogProof


class LedgerHeadStatement(StrictModel):
    """Head of the site's ledger after this round: an older head later reveals a restored copy."""

    seq: Annotated[int, *in_range(0, 1 << 53)]
    hash: HexDigest


class SiteLedgerHead(SiteDocument):
    """A ledger head signed on its own: a coordinator can show the head back, but cannot invent one."""

    described: ClassVar[str] = "a ledger head"

    head: LedgerHeadStatement


class UpdateStatement(SiteJobDocument):
    """A site's signed statement about an update: which order, which privacy event, from where.

    Every field is independent of the data or has passed the mechanism. Fields:

    - ``nominal_units``: the declared, public size, never a count of rows.
    - ``content_changed``: True if the rows differ from those of the job's previous draw at this site, which the job
      must allow. The statement does not say how the rows changed.
    - ``signed_head``: an envelope of :class:`SiteLedgerHead` with the same head as ``ledger_head``.
    - ``evidence``: fresh, over the order's nonce and both of the site's keys.
    - ``log_seen``: the newest checkpoint of the run's log that the site accepted.
    """

    described: ClassVar[str] = "an update statement"

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
    """One lineage's budget: cap and spending, in epsilon at the lineage's delta. Independent of the rows."""

    dataset_id: SafePath
    epsilon_cap: Annotated[float, *in_range(0, 1e6)]
    epsilon_spent: Annotated[float, *in_range(0, 1e6)]
    delta: Delta


class HealthStatement(SiteDocument):
    """A site agent's sign of life: version, its own clock, last measured round-trip (seconds), budgets left."""

    described: ClassVar[str] = "a health statement"

    agent_version: Annotated[str, Field(min_length=1, max_length=64)]
    sent_at: UnixSeconds
    round_trip_s: Annotated[float, *in_range(0, 3600)] | None = None
    busy: Flag = False
    budgets: tuple[FreeBudget, ...] = ()
