"""Whose word that it takes part counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aegis.coordination.enrolment_admission import MAX_ENROLMENT_BYTES, admit_enrolment
from aegis.errors import UpdateRefused
from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import Reason
from coreason_enclave.schemas import Profile
from coreason_enclave.wire.documents import ENROLMENT_TYPE, UPDATE_TYPE
from coreason_enclave.wire.roll_call import encode_roll_call, read_roll_call
from coreason_enclave.wire.updates import SealedMessage

KEY, STRANGER = Signer.generate(), Signer.generate()


def enrolment(job: Any, *, signer: Signer = KEY, kind: str = ENROLMENT_TYPE, **changes: Any) -> SealedMessage:
    document = {
        "version": 1,
        "site_id": "hospital-a",
        "public_key": KEY.public_hex,
        "profile": "development",
        "job_id": job.job_id,
        "job_digest": job.digest(),
        "enrolled_at": 1_800_000_000,
        **changes,
    }
    return SealedMessage(seal(kind, canonical_json(document), signer))


def test_a_sites_signed_word_for_this_job_is_taken_and_stands_in_the_roll_call(job_with: Any) -> None:
    job = job_with()
    message = enrolment(job)
    taken = admit_enrolment(message, job, "hospital-a", KEY.public_hex, profile=Profile.DEVELOPMENT)
    assert taken.site_id == "hospital-a"
    assert read_roll_call(encode_roll_call({"hospital-a": message.envelope}), job.digest()) == (taken,)


REFUSALS: dict[str, tuple[Reason, Callable[[Any], SealedMessage]]] = {
    "1 one that would crowd others out of the roll-call": (
        Reason.OVERSIZED,
        lambda job: SealedMessage(enrolment(job).envelope + b" " * MAX_ENROLMENT_BYTES),
    ),
    "1 one with arrays": (Reason.OVERSIZED, lambda job: SealedMessage(enrolment(job).envelope, b"arrays")),
    "1 one with a roll-call": (Reason.OVERSIZED, lambda job: SealedMessage(enrolment(job).envelope, b"", b"{}")),
    "2 nothing": (Reason.MALFORMED, lambda job: SealedMessage(b"")),
    "2 one in another encoding than everybody reads": (
        Reason.MALFORMED,
        lambda job: SealedMessage(enrolment(job).envelope.decode().encode("utf-16-le")),
    ),
    "2 one that a stranger signed": (Reason.UNKNOWN_SIGNER, lambda job: enrolment(job, signer=STRANGER)),
    "2 a signature over something else": (Reason.WRONG_PAYLOAD_TYPE, lambda job: enrolment(job, kind=UPDATE_TYPE)),
    "2 a document with a field too many": (Reason.MALFORMED, lambda job: enrolment(job, rows=20)),
    "3 the name of another site": (Reason.UNKNOWN_SITE, lambda job: enrolment(job, site_id="hospital-b")),
    "3 another key than the one that signed": (
        Reason.UNKNOWN_SIGNER,
        lambda job: enrolment(job, public_key=STRANGER.public_hex),
    ),
    "3 another profile": (Reason.WRONG_PROFILE, lambda job: enrolment(job, profile="unattested")),
    "3 another job": (Reason.WRONG_DIGEST, lambda job: enrolment(job, job_id="study-2")),
    "3 the right job's name over other terms": (Reason.WRONG_DIGEST, lambda job: enrolment(job, job_digest="cd" * 32)),
}


@pytest.mark.parametrize(("reason", "make"), REFUSALS.values(), ids=REFUSALS)
def test_an_enrolment_is_refused_that_is(job_with: Any, reason: Reason, make: Callable[[Any], SealedMessage]) -> None:
    job = job_with()
    with pytest.raises(UpdateRefused) as refused:
        admit_enrolment(make(job), job, "hospital-a", KEY.public_hex, profile=Profile.DEVELOPMENT)
    assert (refused.value.reason, refused.value.site_id) == (reason, "hospital-a")
