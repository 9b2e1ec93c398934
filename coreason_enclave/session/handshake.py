"""A site's half of mutual attestation: the site proves itself to a coordinator and demands the same.

1. The coordinator sends a request with its challenge. The site makes a fresh key pair for decryption, collects evidence
   over challenge, keys and job, and answers with its own challenge.
2. Each order brings the coordinator's evidence over the site's challenge, the coordinator's key for encrypting updates,
   and the coordinator's signed result on this site. Only then can the site decrypt a model.

Decryption keys live in memory, and each attestation replaces them. The last few stay for orders in transit. As soon as
this host can no longer prove itself, the site erases all of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from coreason_enclave.attestation import (
    Appraiser,
    Attester,
    Binding,
    Challenges,
    Evidence,
    Role,
    open_result,
    parse_evidence,
)
from coreason_enclave.crypto import KemKeys, KemKeysInMemory, Signer, encrypt_to, info_for, require_receiver
from coreason_enclave.errors import AttestationError, EnclaveError, EnvelopeError, Reason
from coreason_enclave.schemas import AttestationReport
from coreason_enclave.system import CLOCK_SKEW_S
from coreason_enclave.wire import COORDINATOR, AttestationRequest, CoordinatorIdentity, RoundOrder, SiteAttestation


@dataclass(frozen=True)
class ReleasedModel:
    """The base model's bytes from an accepted order, and the attestation result on this site that released them."""

    model: bytes
    result: AttestationReport


@dataclass
class SiteHandshake:
    """One site's keys, challenges and appraised coordinators. State lives in memory; challenges are durable.

    Args:
        appraiser: judges a coordinator's evidence; None if this site's policy demands no evidence.
        clock: returns Unix seconds.
        kem_keys: key pairs that models are encrypted to; default: only in memory.
    """

    site_id: str
    signer: Signer
    attester: Attester
    appraiser: Appraiser | None
    challenges: Challenges
    clock: Callable[[], float]
    kem_keys: KemKeys = field(default_factory=KemKeysInMemory, repr=False)
    _coordinators: dict[str, AttestationReport] = field(default_factory=dict, repr=False)

    def answer(self, request: AttestationRequest, coordinator_key: str) -> SiteAttestation:
        """Prove this site over the request's challenge.

        Raises:
            AttestationError: this host cannot prove itself; every decryption key is erased.
        """
        key = self.kem_keys.make(request.nonce, request.job_digest)
        evidence = self._prove(request.nonce, key.public_hex, request.job_digest)
        self.kem_keys.keep(key)
        now = self.clock()
        return SiteAttestation(
            site_id=self.site_id,
            public_key=self.signer.public_hex,
            kem_key=key.public_hex,
            job_id=request.job_id,
            job_digest=request.job_digest,
            nonce=request.nonce,
            evidence=evidence.model_dump(mode="json"),
            challenge=self.challenges.issue(_challenge_subject(coordinator_key), now),
            attested_at=int(now),
        )

    def release(self, order: RoundOrder, envelope: bytes, ciphertext: bytes, coordinator_key: str) -> ReleasedModel:
        """Decrypt an order's base model, if this site's policy accepts the coordinator.

        Raises:
            AttestationError: the coordinator is not acceptable; ``attestation_required``: both ends must attest again.
            EnvelopeError: the model is not encrypted to this site for this order, or the coordinator's key is unusable.
        """
        require_receiver(order.coordinator.kem_key)
        self._check_coordinator(order, coordinator_key)
        result = _result_of(order, coordinator_key)
        key = self.kem_keys.find(result.kem_key, result.nonce, result.job_digest)
        is_ours = (result.subject, result.public_key) == (self.site_id, self.signer.public_hex)
        if key is None or not is_ours or result.job_digest != order.job.digest():
            raise _required("its attestation result does not cover this site's present keys and this job")
        if not result.appraised_at - CLOCK_SKEW_S <= self.clock() <= result.expires_at + CLOCK_SKEW_S:
            raise _required("its attestation result has expired, or is dated in the future: compare the clocks")
        model = key.decrypt(ciphertext, info_for("model", envelope))
        return ReleasedModel(model, result)

    def prove_update(self, order: RoundOrder, kem_key: str) -> Evidence:
        """Return fresh evidence for an update, over the order's nonce; raise like :meth:`answer`."""
        return self._prove(order.nonce, kem_key, order.job.digest())

    def encrypt_update(self, order: RoundOrder, envelope: bytes, payload: bytes) -> bytes:
        """Encrypt an update's bytes to the coordinator's key, bound to this envelope."""
        return encrypt_to(order.coordinator.kem_key, payload, info_for("update", envelope))

    def watch(self, order: RoundOrder, released: ReleasedModel) -> Callable[[], None]:
        """Return a check to call between two steps: the check proves this host again at 0.8 of each lifetime.

        The check raises like :meth:`answer`. After one failure, every later call raises the same error.
        """
        result = released.result
        due, interval, failure = result.renewal_due, result.renewal_due - result.appraised_at, None

        def check() -> None:
            nonlocal due, failure
            if failure is not None:
                raise failure
            if self.clock() >= due:
                try:
                    self._prove(secrets.token_hex(32), result.kem_key, order.job.digest())
                except EnclaveError as error:
                    failure = error
                    raise
                due = self.clock() + interval

        return check

    def require_current(self, released: ReleasedModel) -> None:
        """Raise :class:`AttestationError` once the result that released the model has expired."""
        if self.clock() > released.result.expires_at + CLOCK_SKEW_S:
            message = "the attestation result that released the model has expired"
            raise AttestationError(message, reason=Reason.ATTESTATION_REQUIRED)

    def erase(self) -> None:
        """Forget every decryption key and every coordinator. Best effort: CPython may hold copies."""
        self.kem_keys.erase()
        self._coordinators.clear()

    def _prove(self, nonce: str, kem_key: str, job_digest: str) -> Evidence:
        binding = Binding(Role.SITE, nonce, self.signer.public_hex, kem_key, self.site_id, job_digest)
        try:
            return self.attester.produce(binding.context())
        except EnclaveError:
            self.erase()
            raise
        except Exception as error:  # a broken attester proves as little as a refusing attester
            self.erase()
            message = f"evidence could not be collected: {type(error).__name__}: {error}"
            raise AttestationError(message, reason=Reason.ATTESTATION_UNAVAILABLE) from error

    def _check_coordinator(self, order: RoundOrder, coordinator_key: str) -> None:
        if self.appraiser is None:
            return
        identity, now = order.coordinator, self.clock()
        known = self._coordinators.get(coordinator_key)
        if known is None or now > known.expires_at or _differs(known, identity, order):
            self.challenges.redeem(identity.challenge, _challenge_subject(coordinator_key), now)
            self._coordinators[coordinator_key] = self._appraise(self.appraiser, order, coordinator_key, int(now))

    def _appraise(self, appraiser: Appraiser, order: RoundOrder, coordinator_key: str, now: int) -> AttestationReport:
        identity = order.coordinator
        if identity.evidence is None:
            raise AttestationError("the coordinator sent no evidence, but this site's policy requires evidence")
        binding = Binding(
            Role.COORDINATOR, identity.challenge, coordinator_key, identity.kem_key, COORDINATOR, order.job.digest()
        )
        evidence = parse_evidence(identity.evidence)
        try:
            return appraiser.appraise(evidence, binding, now)
        except EnclaveError:
            raise
        except Exception as error:  # a broken appraiser accepts as little as a refusing appraiser
            message = f"the coordinator's evidence could not be appraised: {type(error).__name__}: {error}"
            raise AttestationError(message, reason=Reason.INTERNAL) from error


def _differs(known: AttestationReport, identity: CoordinatorIdentity, order: RoundOrder) -> bool:
    """Return True if the order shows another challenge, key or job than the appraised evidence."""
    return (known.nonce, known.kem_key, known.job_digest) != (identity.challenge, identity.kem_key, order.job.digest())


def _result_of(order: RoundOrder, coordinator_key: str) -> AttestationReport:
    try:
        return open_result(order.attestation, coordinator_key)
    except EnvelopeError as error:
        raise _required(f"its attestation result is not valid: {error}") from error


def _challenge_subject(coordinator_key: str) -> str:
    return f"{COORDINATOR}:{coordinator_key}"


def _required(why: str) -> AttestationError:
    return AttestationError(f"the order cannot be opened: {why}", reason=Reason.ATTESTATION_REQUIRED)
