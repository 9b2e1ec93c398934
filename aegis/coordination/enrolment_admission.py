"""Admits a site's enrolment by numbered checks, each with its reason code.

1. The message stays within the size cap and holds nothing but the envelope, which travels to every other site.
2. The registered key signed the envelope, over an enrolment document.
3. The document names the invited site, the registered key, this very job, and the run's profile.
"""

from __future__ import annotations

from aegis.errors import UpdateRefused
from coreason_enclave.crypto import KeyRing, open_envelope
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.schemas import FederationJob, Profile
from coreason_enclave.wire import ENROLMENT_TYPE, Enrolment, SealedMessage

MAX_ENROLMENT_BYTES = 1 << 12
"""Several times the size of an honest enrolment. A large enrolment would crowd others out of the roll-call."""


def admit_enrolment(
    message: SealedMessage, job: FederationJob, site_id: str, public_key: str, *, profile: Profile
) -> Enrolment:
    """Check an enrolment of ``site_id``, whose registered Ed25519 key is ``public_key`` (hex), in a run of ``profile``.

    Raises:
        UpdateRefused: with the reason code of the first failed check.
    """
    try:
        enrolment = _checked(message, job, site_id, public_key)
        other = f"the site is under profile {enrolment.profile}, the run is under profile {profile}"
        _require(enrolment.profile is profile, Reason.WRONG_PROFILE, other)
        return enrolment
    except EnclaveError as error:
        raise UpdateRefused(site_id, error.reason, f"the enrolment of {site_id} is refused: {error}") from error


def _checked(message: SealedMessage, job: FederationJob, site_id: str, public_key: str) -> Enrolment:
    _require(len(message.envelope) <= MAX_ENROLMENT_BYTES, Reason.OVERSIZED, "the envelope is too large")  # 1
    _require(not message.arrays and not message.roll_call, Reason.OVERSIZED, "the message has more than an envelope")
    opened = open_envelope(message.envelope, ENROLMENT_TYPE, KeyRing({site_id: public_key}))  # 2
    enrolment = Enrolment.from_payload(opened.payload)
    _require(enrolment.site_id == site_id, Reason.UNKNOWN_SITE, "the enrolment names another site")  # 3
    _require(enrolment.public_key == public_key, Reason.UNKNOWN_SIGNER, "the enrolment names another key")
    same_job = enrolment.job_id == job.job_id and enrolment.job_digest == job.digest()
    _require(same_job, Reason.WRONG_DIGEST, "the enrolment is for another job")
    return enrolment


def _require(condition: bool, reason: Reason, message: str) -> None:
    if not condition:
        raise EnclaveError(message, reason=reason)
