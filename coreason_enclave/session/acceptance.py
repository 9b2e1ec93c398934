"""Acceptance of an invitation or an order: authentic, for this site, timely, and within the site's limits.

An order passes these checks, in this sequence:

1. signature by a coordinator of the policy
2. shape of the document
3. address, profile, issue and expiry times
4. round within the job
5. both ends attested
6. base model as signed
7. dataset registered, unit and delta as registered
8. policy, line by line, on the *resolved* job (no value left open)
9. noise alone within ``max_update_norm``, so that the update can be released
10. roll-call, of this profile alone

An invitation carries neither round nor model nor roll-call: only checks 1 to 3, 7 and 8 apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from coreason_enclave.accounting import require_less_noise_than_norm, resolve_privacy
from coreason_enclave.crypto import KeyRing, digest, open_envelope, sha256_hex
from coreason_enclave.errors import EnvelopeError, JobRejected, Reason
from coreason_enclave.ledger import NoiseSource, NonPrivatePlan, Plan, RoundPlan
from coreason_enclave.policy import LineagePolicy, SiteConfig
from coreason_enclave.schemas import AggregationStrategy, FederationJob, Mechanism, PrivacyConfig
from coreason_enclave.session.handshake import ReleasedModel, SiteHandshake
from coreason_enclave.system import CLOCK_SKEW_S
from coreason_enclave.wire import (
    ANNOUNCEMENT_TYPE,
    ATTESTATION_REQUEST_TYPE,
    INVITATION_TYPE,
    ORDER_TYPE,
    Arrays,
    AttestationRequest,
    Enrolment,
    JobInvitation,
    LogAnnouncement,
    RoundOrder,
    SealedMessage,
    SiteRequest,
    decode_arrays,
    layout_of,
    read_roll_call,
    split_correction,
)

MAX_MODEL_BYTES = 1 << 30

_Bare = TypeVar("_Bare", bound=SiteRequest)


@dataclass(frozen=True)
class ResolvedJob:
    """A job that this site's policy allows, with every value resolved.

    Attributes:
        job: with delta, unit and noise multiplier present.
        job_digest: digest of the job as ordered; names the job in ledger, keys and statements.
        lineage: the site's rules for the job's data lineage.
    """

    job: FederationJob
    job_digest: str
    lineage: LineagePolicy

    @property
    def privacy(self) -> PrivacyConfig:
        """The resolved privacy configuration."""
        return self.job.privacy

    @property
    def delta(self) -> float:
        """The failure probability of the job's guarantee."""
        assert self.privacy.delta is not None  # resolved
        return self.privacy.delta

    def plan(self, round_number: int, noise_source: NoiseSource) -> Plan:
        """Return the worst-case spending of one round.

        Raises:
            JobRejected: the privacy configuration lacks a noise multiplier or a target epsilon.
        """
        job, privacy = self.job, self.privacy
        if privacy.mechanism is Mechanism.NON_PRIVATE:
            return NonPrivatePlan(
                job_id=job.job_id,
                job_digest=self.job_digest,
                round_number=round_number,
                unit=self.lineage.unit,
                steps=job.local_steps,
            )
        if privacy.noise_multiplier is None or privacy.target_epsilon is None:
            raise JobRejected("the job's privacy configuration is incomplete", reason=Reason.MALFORMED)
        return RoundPlan(
            job_id=job.job_id,
            job_digest=self.job_digest,
            round_number=round_number,
            unit=self.lineage.unit,
            noise_multiplier=privacy.noise_multiplier,
            sample_rate=privacy.sample_rate,
            steps=job.local_steps,
            total_steps=job.total_steps,
            target_epsilon=privacy.target_epsilon,
            delta=self.delta,
            noise_source=noise_source,
        )


@dataclass(frozen=True)
class AcceptedJob(ResolvedJob):
    """An order that this site accepted.

    Attributes:
        order: as signed by the coordinator.
        coordinator_key: the key (Ed25519, hex) that signed the order.
        released: the decrypted model, and the attestation result that names this site's decryption key.
        base: global weights to train from.
        correction: SCAFFOLD's addition to each gradient, with the names and shapes of ``base``; otherwise None.
    """

    order: RoundOrder
    coordinator_key: str
    released: ReleasedModel
    base: Arrays
    correction: Arrays | None

    def binding(self) -> str:
        """Return the SHA-256 (hex) of all values in the order that determine the bytes of the update."""
        return digest(
            "aegis/reservation/v1",
            bytes.fromhex(self.job_digest),
            self.order.round_number.to_bytes(8, "big"),
            bytes.fromhex(self.order.base_model_digest),
        ).hex()


def accept(message: SealedMessage, config: SiteConfig, handshake: SiteHandshake, now: float) -> AcceptedJob:
    """Verify and resolve an order.

    Args:
        handshake: decrypts the base model; this site's roll-call entry must bear the handshake's key (Ed25519).
        now: Unix seconds.

    Raises:
        EnvelopeError: not authentic, malformed, or with a base model or roll-call that differs from the signed digest.
        AttestationError: coordinator or site has not proved itself to the other end.
        JobRejected: authentic, but not acceptable here; the message names the line that refused.
    """
    payload, coordinator_key = _open(message, ORDER_TYPE, config)
    order = RoundOrder.from_payload(payload)
    _require_addressed(order, config, now)
    if order.round_number > order.job.rounds:
        raise JobRejected(f"round {order.round_number} of a {order.job.rounds}-round job", reason=Reason.WRONG_ROUND)
    released = handshake.release(order, message.envelope, message.arrays, coordinator_key)
    base, correction = _base_model(order, released.model)
    resolved = _allowed(order.job, config)
    weights = sum(array.size for array in base.values())
    require_less_noise_than_norm(resolved.job, parameters=weights, nominal_units=resolved.lineage.nominal_units)
    _require_cohort(order, message.roll_call, config, handshake.signer.public_hex)
    return AcceptedJob(
        resolved.job, resolved.job_digest, resolved.lineage, order, coordinator_key, released, base, correction
    )


def accept_attestation_request(
    message: SealedMessage, config: SiteConfig, now: float
) -> tuple[AttestationRequest, str]:
    """Verify a coordinator's request to prove what runs here.

    Args:
        now: Unix seconds.

    Returns:
        The request and the coordinator's key (Ed25519, hex).

    Raises:
        EnvelopeError: not authentic, malformed, or with a model or a roll-call.
        JobRejected: authentic, but for another site or not timely.
    """
    return _bare(message, ATTESTATION_REQUEST_TYPE, AttestationRequest, config, now)


def accept_announcement(message: SealedMessage, config: SiteConfig, now: float) -> tuple[LogAnnouncement, str]:
    """Verify the announcement that a run has ended.

    Args:
        now: Unix seconds.

    Returns:
        The announcement and the coordinator's key (Ed25519, hex).

    Raises:
        EnvelopeError: not authentic, malformed, or with a model or a roll-call.
        JobRejected: authentic, but for another site or not timely.
    """
    return _bare(message, ANNOUNCEMENT_TYPE, LogAnnouncement, config, now)


def accept_invitation(message: SealedMessage, config: SiteConfig, now: float) -> ResolvedJob:
    """Verify an invitation and resolve its job.

    Args:
        now: Unix seconds.

    Raises:
        EnvelopeError: not authentic, malformed, or with a model or a roll-call.
        JobRejected: authentic, but not acceptable here; the message names the line that refused.
    """
    invitation, _ = _bare(message, INVITATION_TYPE, JobInvitation, config, now)
    return _allowed(invitation.job, config)


def _open(message: SealedMessage, payload_type: str, config: SiteConfig) -> tuple[bytes, str]:
    """Return the payload, and the Ed25519 key (hex) of the coordinator that signed it."""
    keys = {f"coordinator-{i}": key for i, key in enumerate(config.policy.coordinator_keys)}
    opened = open_envelope(message.envelope, payload_type, KeyRing(keys))
    return opened.payload, keys[opened.signer]


def _bare(
    message: SealedMessage, payload_type: str, kind: type[_Bare], config: SiteConfig, now: float
) -> tuple[_Bare, str]:
    """Verify a document that travels alone; return it with the coordinator's key (Ed25519, hex)."""
    payload, coordinator_key = _open(message, payload_type, config)
    document = kind.from_payload(payload)
    _require_addressed(document, config, now)
    if message.arrays or message.roll_call:
        raise EnvelopeError(f"{kind.described} must carry neither a model nor a roll-call")
    return document, coordinator_key


def _allowed(job: FederationJob, config: SiteConfig) -> ResolvedJob:
    """Return the resolved job if registration and policy allow the job."""
    lineage = config.lineage_of(job.dataset_id)
    resolved = _resolve(job, lineage)
    config.policy.check(resolved, lineage)
    return ResolvedJob(resolved, job.digest(), lineage)


def _require_addressed(document: SiteRequest, config: SiteConfig, now: float) -> None:
    """Raise unless the document is for this site, under this site's profile, and timely."""
    if document.site_id != config.site_id:
        raise JobRejected(f"the order is for {document.site_id}, not for this site", reason=Reason.NOT_ADDRESSED_TO_ME)
    if document.profile is not config.profile:
        message = f"site.toml: profile is {config.profile}, but the order is under profile {document.profile}"
        raise JobRejected(message, reason=Reason.WRONG_PROFILE)
    if document.issued_at > now + CLOCK_SKEW_S:
        raise JobRejected("the order was issued in the future: compare the clocks", reason=Reason.NOT_YET_VALID)
    if document.expires_at < now or document.expires_at - document.issued_at > config.policy.max_order_lifetime_s:
        raise JobRejected("the order has expired, or its lifetime exceeds max_order_lifetime_s", reason=Reason.EXPIRED)


def _base_model(order: RoundOrder, arrays: bytes) -> tuple[Arrays, Arrays | None]:
    """Return the global weights and, only for SCAFFOLD, the correction signed with them."""
    if sha256_hex(arrays) != order.base_model_digest:
        raise EnvelopeError("the base model does not have the digest in the signed order", reason=Reason.WRONG_DIGEST)
    base, correction = split_correction(decode_arrays(arrays, limit=MAX_MODEL_BYTES))
    scaffold = order.job.strategy is AggregationStrategy.SCAFFOLD
    if layout_of(correction) != (layout_of(base) if scaffold else {}):
        needs = "one correction for each tensor" if scaffold else "no corrections"
        raise JobRejected(f"a {order.job.strategy} order's base model must have {needs}", reason=Reason.WRONG_SHAPES)
    if not all(np.isfinite(array).all() for array in correction.values()):
        raise JobRejected("the order's correction is not finite", reason=Reason.NON_FINITE)
    return base, correction if scaffold else None


def _require_cohort(order: RoundOrder, roll_call: bytes, config: SiteConfig, own_key: str) -> None:
    """Raise unless ``min_clients`` participants known to this site, itself among them, signed for this very job."""
    if sha256_hex(roll_call) != order.roll_call_digest:
        raise EnvelopeError("the roll-call does not have the digest in the signed order", reason=Reason.ROLL_CALL)
    entries = read_roll_call(roll_call, order.job.digest())
    if others := sorted(entry.site_id for entry in entries if entry.profile is not config.profile):
        message = f"site.toml: profile is {config.profile}, but {others[0]} enrolled under another profile"
        raise JobRejected(message, reason=Reason.WRONG_PROFILE)
    if (config.site_id, own_key) not in {(entry.site_id, entry.public_key) for entry in entries}:
        raise JobRejected("this site's own enrolment is not in the roll-call", reason=Reason.ROLL_CALL)
    counted, needed = _counted(entries, config), max(order.job.min_clients, config.policy.min_clients)
    if counted < needed:
        raise JobRejected(
            f"site policy: participants lists {counted} of {len(entries)} enrolled sites, but min_clients is {needed}",
            reason=Reason.ROLL_CALL,
        )


def _counted(entries: Sequence[Enrolment], config: SiteConfig) -> int:
    known = config.policy.participants
    count_all = config.policy.unsafe_count_unknown_participants
    return sum(
        count_all or entry.site_id == config.site_id or known.get(entry.site_id) == entry.public_key
        for entry in entries
    )


def _resolve(job: FederationJob, lineage: LineagePolicy) -> FederationJob:
    """Return the job with no value left open: delta and unit from the registration, noise from cap and schedule."""
    privacy = job.privacy
    if privacy.unit not in (None, lineage.unit):
        raise JobRejected(f"the lineage protects each {lineage.unit}, but the job's unit is {privacy.unit}")
    resolved = resolve_privacy(privacy, delta=lineage.job_delta, total_steps=job.total_steps, unit=lineage.unit)
    return job.model_copy(update={"privacy": resolved})
