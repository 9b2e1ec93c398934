"""A roll-call: distinct sites, distinct keys, each signed by the key that it names, all for one job."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import EnclaveError, EnvelopeError, Reason
from coreason_enclave.wire.documents import ENROLMENT_TYPE, UPDATE_TYPE, Enrolment
from coreason_enclave.wire.roll_call import encode_roll_call, open_enrolment, read_roll_call

JOB = "ab" * 32
SIGNERS = [Signer.from_seed(bytes([number]) * 32) for number in range(1, 4)]


def enrolment(site: str, signer: Signer, *, payload_type: str = ENROLMENT_TYPE, **changes: Any) -> bytes:
    fields = {
        "site_id": site,
        "public_key": signer.public_hex,
        "profile": "development",
        "job_id": "study-1",
        "job_digest": JOB,
        "enrolled_at": 1_800_000_000,
        **changes,
    }
    return seal(payload_type, Enrolment.model_validate(fields).canonical(), signer)


def roll_call(*envelopes: bytes) -> bytes:
    return encode_roll_call({str(number): envelope for number, envelope in enumerate(envelopes)})


def test_it_is_read_back_as_it_was_made_in_the_order_of_site_names() -> None:
    envelopes = {site: enrolment(site, signer) for site, signer in zip("cab", SIGNERS, strict=True)}
    data = encode_roll_call(envelopes)
    assert [entry.site_id for entry in read_roll_call(data, JOB)] == ["a", "b", "c"]
    assert data == encode_roll_call(dict(reversed(envelopes.items())))


A, B, C = SIGNERS
REFUSED = {
    "one site with two keys": (enrolment("a", A), enrolment("a", B)),
    "two sites with one key": (enrolment("a", A), enrolment("b", A)),
    "one entry twice": (enrolment("a", A), enrolment("a", A)),
    "an entry for another job": (enrolment("a", A), enrolment("b", B, job_digest="cd" * 32)),
    "an entry signed by another key than it names": (enrolment("a", A, public_key=B.public_hex),),
    "an entry whose key is none": (enrolment("a", A, public_key="ff" * 32),),
    "an entry signed as another type": (enrolment("a", A, payload_type=UPDATE_TYPE),),
    "an entry that is no envelope": (b"{}",),
}


@pytest.mark.parametrize("which", REFUSED)
def test_it_is_refused_with(which: str) -> None:
    with pytest.raises(EnvelopeError) as refused:
        read_roll_call(roll_call(*REFUSED[which]), JOB)
    assert refused.value.reason is Reason.ROLL_CALL


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"version": 1},
        {"version": 2, "entries": []},
        {"version": 1, "entries": {}},
        {"version": 1, "entries": [7]},
        {"version": 1, "entries": [], "note": "all is well"},
    ],
)
def test_a_document_that_is_no_roll_call_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(EnvelopeError):
        read_roll_call(canonical_json(document), JOB)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_be_refused(data: bytes) -> None:
    for read in (lambda: read_roll_call(data, JOB), lambda: open_enrolment(data)):
        with pytest.raises(EnclaveError):
            read()


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_byte_changed_in_a_roll_call_is_refused_or_changes_nothing(position: int, flip: int) -> None:
    data = bytearray(roll_call(enrolment("a", A), enrolment("b", B)))
    honest = read_roll_call(bytes(data), JOB)
    data[position % len(data)] ^= flip
    with suppress(EnclaveError):
        assert read_roll_call(bytes(data), JOB) == honest
