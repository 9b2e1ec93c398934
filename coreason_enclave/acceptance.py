"""Accepting an order: is it authentic, for this site, timely, and within what this site allows?

Checks, in order: signature by a coordinator of the policy, shape of the document, address, issue and expiry times,
round within the job, base model as signed, dataset registered, unit and delta as registered, and then the policy
line by line on the *resolved* job, in which nothing is left open.
"""

from __future__ import annotations

from dataclasses import dataclass

from coreason_enclave.accounting import calibrate_noise
from coreason_enclave.encoding import digest, sha256_hex
from coreason_enclave.envelope import KeyRing, open_envelope
from coreason_enclave.errors import EnvelopeError, JobRejected, Reason
from coreason_enclave.ledger import NoiseSource, NonPrivatePlan, Plan, RoundPlan
from coreason_enclave.orders import ORDER_TYPE, RoundOrder, parse_order
from coreason_enclave.policy import LineagePolicy, SiteConfig
from coreason_enclave.schemas import AggregationStrategy, FederationJob, Mechanism, PrivacyConfig
from coreason_enclave.updates import Arrays, SealedMessage, decode_arrays

__all__ = ["AcceptedJob", "accept"]

MAX_MODEL_BYTES = 1 << 30
CLOCK_SKEW_S = 60


@dataclass(frozen=True)
class AcceptedJob:
    """An order that this site agreed to, with every value of the job resolved.

    Attributes:
        order: as signed by the coordinator.
        job: the order's job with delta, unit and noise multiplier present.
        job_digest: of the job as ordered; it names the job in ledger, keys and statements.
        base: the global weights to train from.
    """

    order: RoundOrder
    job: FederationJob
    job_digest: str
    lineage: LineagePolicy
    base: Arrays

    @property
    def privacy(self) -> PrivacyConfig:
        """The resolved privacy configuration."""
        return self.job.privacy

    @property
    def delta(self) -> float:
        """The failure probability of the job's guarantee."""
        return self.lineage.job_delta if self.privacy.delta is None else self.privacy.delta

    def binding(self) -> str:
        """SHA-256 (hex) of everything in the order that determines the bytes of the update."""
        return digest(
            "aegis/reservation/v1",
            bytes.fromhex(self.job_digest),
            self.order.round_number.to_bytes(8, "big"),
            bytes.fromhex(self.order.base_model_digest),
        ).hex()

    def plan(self, noise_source: NoiseSource) -> Plan:
        """What this round would spend at its worst."""
        job, privacy = self.job, self.privacy
        if privacy.mechanism is Mechanism.NON_PRIVATE:
            return NonPrivatePlan(
                job_id=job.job_id,
                job_digest=self.job_digest,
                round_number=self.order.round_number,
                unit=self.lineage.unit,
                steps=job.local_steps,
            )
        if privacy.noise_multiplier is None or privacy.target_epsilon is None:
            raise JobRejected("the job's privacy configuration is incomplete", reason=Reason.MALFORMED)
        return RoundPlan(
            job_id=job.job_id,
            job_digest=self.job_digest,
            round_number=self.order.round_number,
            unit=self.lineage.unit,
            noise_multiplier=privacy.noise_multiplier,
            sample_rate=privacy.sample_rate,
            steps=job.local_steps,
            total_steps=job.total_steps,
            target_epsilon=privacy.target_epsilon,
            delta=self.delta,
            noise_source=noise_source,
        )


def accept(message: SealedMessage, config: SiteConfig, now: float) -> AcceptedJob:
    """Verify and resolve an order; ``now`` is Unix seconds.

    Raises:
        EnvelopeError: not authentic, malformed, or a base model other than the signed one.
        JobRejected: authentic, and not acceptable here; the message names the line that refused.
    """
    keys = KeyRing({f"coordinator-{i}": key for i, key in enumerate(config.policy.coordinator_keys)})
    order = parse_order(open_envelope(message.envelope, ORDER_TYPE, keys).payload)
    _require_timely(order, config, now)
    base = _base_model(order, message.arrays)
    lineage = config.lineage_of(order.job.dataset_id)
    job = _resolve(order.job, lineage)
    config.policy.check(job)
    return AcceptedJob(order, job, order.job.digest(), lineage, base)


def _require_timely(order: RoundOrder, config: SiteConfig, now: float) -> None:
    if order.site_id != config.site_id:
        raise JobRejected(f"the order is addressed to {order.site_id}", reason=Reason.NOT_ADDRESSED_TO_ME)
    if order.issued_at > now + CLOCK_SKEW_S:
        raise JobRejected("the order was issued in the future: compare the clocks", reason=Reason.NOT_YET_VALID)
    if order.expires_at < now or order.expires_at - order.issued_at > config.policy.max_order_lifetime_s:
        raise JobRejected("the order has expired, or was made to live too long", reason=Reason.EXPIRED)
    if order.round_number > order.job.rounds:
        raise JobRejected(f"round {order.round_number} of a job of {order.job.rounds}", reason=Reason.WRONG_ROUND)


def _base_model(order: RoundOrder, arrays: bytes) -> Arrays:
    if sha256_hex(arrays) != order.base_model_digest:
        raise EnvelopeError("the base model is not the one that the order was signed over", reason=Reason.WRONG_DIGEST)
    return decode_arrays(arrays, limit=MAX_MODEL_BYTES)


def _resolve(job: FederationJob, lineage: LineagePolicy) -> FederationJob:
    """Nothing left open: delta and unit from the registration, noise from cap and schedule."""
    if job.strategy is not AggregationStrategy.FED_AVG:
        raise JobRejected(f"strategy {job.strategy} is not offered by this version", reason=Reason.UNSUPPORTED)
    privacy = job.privacy
    if privacy.unit not in (None, lineage.unit):
        raise JobRejected(f"the lineage protects a {lineage.unit}, the job asks for a {privacy.unit}")
    delta = lineage.job_delta if privacy.delta is None else privacy.delta
    noise = privacy.noise_multiplier
    if privacy.mechanism is Mechanism.DP_SGD and noise is None and privacy.target_epsilon is not None:
        noise = calibrate_noise(privacy.target_epsilon, delta, privacy.sample_rate, job.total_steps)
    resolved = privacy.model_copy(update={"delta": delta, "unit": lineage.unit, "noise_multiplier": noise})
    return job.model_copy(update={"privacy": resolved})
