"""Admits a site's update by numbered checks, in this order, each with its reason code.

1. Envelope and arrays stay within the size caps.
2. A registered site signed the envelope.
3. The document is an update statement.
4. The signer equals the asked site, and the document names the same site.
5. Job, round and base model match the order; the nonce equals the order's nonce.
6. The evidence is authentic, fresh, acceptable, and bound to both keys of the site.
7. The arrays decrypt with this envelope and match the signed digest. They are float32 with the base model's names and
   shapes, finite, and within the norm.
8. The privacy event has the plan's mechanism, unit and delta, and at most the plan's steps. The rows equal those of the
   site's earlier draws, unless the job lets lineages grow.
9. The signed ledger head belongs to this site and matches the head in the statement.

The first failed check decides: no later check runs, and the model stays unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aegis.coordination.orders import RoundRequest
from aegis.errors import UpdateRefused
from coreason_enclave.accounting import Event, NonPrivate, PoissonSampledGaussian, event_from_dict
from coreason_enclave.attestation import Appraiser, Binding, Role, parse_evidence
from coreason_enclave.attestation.verify import in_words
from coreason_enclave.crypto import MAX_ENVELOPE_BYTES, OVERHEAD_BYTES, KeyRing, open_envelope, sha256_hex
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.ledger import open_head
from coreason_enclave.schemas import FederationJob, Mechanism, Provenance
from coreason_enclave.wire import (
    UPDATE_TYPE,
    AdmittedUpdate,
    Array,
    Layout,
    SealedMessage,
    UpdateStatement,
    decode_arrays,
    layout_of,
)

_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class Admitted:
    """An update that passed every check, its statement, and the bytes of its arrays."""

    update: AdmittedUpdate
    statement: UpdateStatement
    payload: bytes


@dataclass(frozen=True)
class Admission:
    """The checks of one site's answer to one order.

    Attributes:
        question: the request. public_key: the site's registered Ed25519 key, hex.
        layout: names and shapes of the base model. appraiser: decides which evidence is acceptable.
        decrypt_update: decrypts a message's arrays; raises :class:`EnclaveError`.
    """

    question: RoundRequest
    public_key: str
    layout: Layout
    appraiser: Appraiser
    decrypt_update: Callable[[SealedMessage], bytes]

    def admit(self, message: SealedMessage, *, now: float) -> Admitted:
        """Run the checks; ``now`` is Unix seconds.

        Raises:
            UpdateRefused: with the reason code of the first failed check.
        """
        try:
            return self._admit(message, now)
        except EnclaveError as error:
            raise UpdateRefused(self.question.site_id, error.reason, in_words(error)) from error
        except Exception as error:  # an error over one site's update must not end the round of the others
            problem = f"the update could not be checked: {type(error).__name__}: {error}"
            raise UpdateRefused(self.question.site_id, Reason.INTERNAL, problem) from error

    def _admit(self, message: SealedMessage, now: float) -> Admitted:
        self._require(len(message.envelope) <= MAX_ENVELOPE_BYTES, Reason.OVERSIZED, "the envelope is too large")  # 1
        sent = len(message.arrays)
        self._require(sent <= self._most_bytes() + OVERHEAD_BYTES, Reason.OVERSIZED, "the arrays are too large")
        keys = KeyRing({self.question.site_id: self.public_key})
        statement = UpdateStatement.from_payload(open_envelope(message.envelope, UPDATE_TYPE, keys).payload)  # 2, 3
        self._check_address(statement)  # 4, 5
        provenance = self._appraise(statement, now)  # 6
        payload = self.decrypt_update(message)  # 7
        arrays = self._check_arrays(statement, payload)
        event = self._check_event(statement)  # 8
        self._check_head(statement)  # 9
        update = AdmittedUpdate(
            self.question.site_id, arrays, statement.update_digest, event, provenance, statement.nominal_units
        )
        return Admitted(update, statement, payload)

    def _check_address(self, statement: UpdateStatement) -> None:
        order = self.question
        same_job = statement.job_id == order.job.job_id and statement.job_digest == order.job.digest()
        self._require(statement.site_id == order.site_id, Reason.UNKNOWN_SITE, "a statement of another site")
        self._require(same_job, Reason.WRONG_DIGEST, "a statement for another job")
        self._require(statement.round_number == order.round_number, Reason.WRONG_ROUND, "a statement for another round")
        self._require(statement.nonce == order.nonce, Reason.WRONG_NONCE, "a statement for another order")
        same_base = statement.base_model_digest == order.base_model_digest
        self._require(same_base, Reason.WRONG_DIGEST, "the site trained from another base model")

    def _appraise(self, statement: UpdateStatement, now: float) -> Provenance:
        binding = Binding(
            role=Role.SITE,
            nonce=self.question.nonce,
            public_key=self.public_key,
            kem_key=statement.kem_key,
            subject=self.question.site_id,
            job_digest=self.question.job.digest(),
        )
        report = self.appraiser.appraise(parse_evidence(statement.evidence), binding, int(now))
        return report.provenance

    def _check_arrays(self, statement: UpdateStatement, data: bytes) -> dict[str, Array]:
        self._require(sha256_hex(data) == statement.update_digest, Reason.WRONG_DIGEST, "arrays lack the signed digest")
        arrays = decode_arrays(data, limit=self._most_bytes())
        self._require(layout_of(arrays) == dict(self.layout), Reason.WRONG_SHAPES, "names or shapes unlike the model's")
        squared = sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values())
        self._require(math.isfinite(squared), Reason.NON_FINITE, "the arrays contain NaN or infinity")
        within = math.sqrt(squared) <= self.question.job.max_update_norm
        self._require(within, Reason.NORM_EXCEEDED, f"the L2 norm {math.sqrt(squared):.3g} exceeds max_update_norm")
        return arrays

    def _check_event(self, statement: UpdateStatement) -> Event:
        event, job = event_from_dict(statement.event), self.question.job
        self._require(_within_plan(event, statement, job), Reason.EVENT_EXCEEDS_PLAN, "event exceeds the job's plan")
        same = job.lineages_may_grow or not statement.content_changed
        self._require(same, Reason.CONTENT_CHANGED, "the site's rows changed within the job, which forbids changes")
        return event

    def _check_head(self, statement: UpdateStatement) -> None:
        head, stated = open_head(statement.signed_head, self.question.site_id, self.public_key), statement.ledger_head
        same = (head.seq, head.hash) == (stated.seq, stated.hash)
        self._require(same, Reason.WRONG_DIGEST, "the stated ledger head differs from the signed ledger head")

    def _most_bytes(self) -> int:
        return 4 * sum(math.prod(shape) for shape in self.layout.values()) + _HEADER_BYTES

    def _require(self, condition: bool, reason: Reason, message: str) -> None:
        if not condition:
            raise EnclaveError(f"the update of {self.question.site_id} is refused: {message}", reason=reason)


def _within_plan(event: Event, statement: UpdateStatement, job: FederationJob) -> bool:
    """Return True if the event has the job's mechanism and unit, no less noise, and no higher rate, steps or delta."""
    privacy = job.privacy
    if privacy.mechanism is Mechanism.NON_PRIVATE:
        return isinstance(event, NonPrivate)
    if not isinstance(event, PoissonSampledGaussian) or privacy.noise_multiplier is None:
        return False
    return (
        event.noise_multiplier >= privacy.noise_multiplier
        and event.sample_rate <= privacy.sample_rate
        and 1 <= event.steps <= job.local_steps
        and (privacy.delta is None or statement.delta <= privacy.delta)
        and (privacy.unit is None or statement.unit == privacy.unit)
    )
