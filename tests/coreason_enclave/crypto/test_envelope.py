from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.crypto.envelope import (
    MAX_ENVELOPE_BYTES,
    KeyRing,
    open_envelope,
    pre_authentication_encoding,
    seal,
)
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import ConfigurationError, EnvelopeError, Reason

KIND = "application/vnd.aegis.example.v1+json"
SIGNER = Signer.from_seed(bytes(range(32)))
RING = KeyRing({"hospital-a": SIGNER.public_hex})
ENVELOPE = seal(KIND, b'{"round":1}', SIGNER)


def test_the_pre_authentication_encoding_is_that_of_the_dsse_specification() -> None:
    # https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, "Test Vectors"
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_lengths_in_the_pre_authentication_encoding_count_bytes_not_characters() -> None:
    assert pre_authentication_encoding("é", "ü".encode()) == "DSSEv1 2 é 2 ü".encode()


@given(st.text(max_size=10), st.binary(max_size=10), st.text(max_size=10), st.binary(max_size=10))
def test_two_different_documents_never_share_a_pre_authentication_encoding(
    kind: str, payload: bytes, other_kind: str, other_payload: bytes
) -> None:
    same = (kind, payload) == (other_kind, other_payload)
    encoded, other = (
        pre_authentication_encoding(kind, payload),
        pre_authentication_encoding(other_kind, other_payload),
    )
    assert (encoded == other) == same


@given(st.binary(max_size=300))
def test_what_is_sealed_comes_out_with_its_signer(payload: bytes) -> None:
    opened = open_envelope(seal(KIND, payload, SIGNER), KIND, RING)
    assert (opened.payload, opened.payload_type, opened.signer) == (payload, KIND, "hospital-a")
    assert opened.key_id == SIGNER.key_id


def test_an_envelope_is_a_dsse_object_that_anyone_can_verify() -> None:
    document = json.loads(ENVELOPE)
    assert document.keys() == {"payloadType", "payload", "signatures"}
    assert base64.b64decode(document["payload"]) == b'{"round":1}'
    assert len(base64.b64decode(document["signatures"][0]["sig"])) == 64


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_in_an_envelope_is_refused(bit: int) -> None:
    accepted = []
    for at in range(len(ENVELOPE)):
        spoilt = bytearray(ENVELOPE)
        spoilt[at] ^= 1 << bit
        try:
            open_envelope(bytes(spoilt), KIND, RING)
        except EnvelopeError:
            continue
        accepted.append((at, chr(ENVELOPE[at]), chr(spoilt[at])))
    assert accepted == []


def test_an_envelope_cut_anywhere_is_refused() -> None:
    for end in range(len(ENVELOPE)):
        with pytest.raises(EnvelopeError):
            open_envelope(ENVELOPE[:end], KIND, RING)


def _changed(**changes: Any) -> bytes:
    return canonical_json({**json.loads(ENVELOPE), **changes})


def _signature(**changes: Any) -> dict[str, Any]:
    return {**json.loads(ENVELOPE)["signatures"][0], **changes}


def _respelled(text: str) -> str:
    """Another base64 spelling of the same bytes: the unused bits of the last digit set."""
    digits = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return digits[:-1] + alphabet[alphabet.index(digits[-1]) + 1] + text[len(digits) :]


SIG = _signature()["sig"]
FORGERIES: dict[str, tuple[bytes, Reason]] = {
    "nothing": (b"", Reason.MALFORMED),
    "another type than expected": (seal("application/other", b"{}", SIGNER), Reason.WRONG_PAYLOAD_TYPE),
    "a type relabelled after signing": (
        _changed(payloadType=KIND, payload=json.loads(seal("application/other", b"{}", SIGNER))["payload"]),
        Reason.BAD_SIGNATURE,
    ),
    "a type that is a list": (_changed(payloadType=[KIND]), Reason.WRONG_PAYLOAD_TYPE),
    "another payload": (_changed(payload=base64.b64encode(b'{"round":2}').decode()), Reason.BAD_SIGNATURE),
    "a payload that is null": (_changed(payload=None), Reason.MALFORMED),
    "a payload that is an object": (_changed(payload={}), Reason.MALFORMED),
    "a payload in base64url": (_changed(payload="-_-_"), Reason.MALFORMED),
    "a payload with white space": (_changed(payload="e30 ="), Reason.MALFORMED),
    "an additional field": (_changed(alg="none"), Reason.MALFORMED),
    "no signatures field": (canonical_json({"payload": "", "payloadType": KIND}), Reason.MALFORMED),
    "no signature": (_changed(signatures=[]), Reason.MALFORMED),
    "two signatures": (_changed(signatures=[_signature(), _signature()]), Reason.MALFORMED),
    "signatures as an object": (_changed(signatures=_signature()), Reason.MALFORMED),
    "a signature of null": (_changed(signatures=[_signature(sig=None)]), Reason.MALFORMED),
    "an empty signature": (_changed(signatures=[_signature(sig="")]), Reason.BAD_SIGNATURE),
    "a short signature": (_changed(signatures=[_signature(sig="AAAA")]), Reason.BAD_SIGNATURE),
    "a signature of zeros": (
        _changed(signatures=[_signature(sig=base64.b64encode(bytes(64)).decode())]),
        Reason.BAD_SIGNATURE,
    ),
    "a signature spelled differently": (_changed(signatures=[_signature(sig=_respelled(SIG))]), Reason.MALFORMED),
    "a signature with a field of its own": (_changed(signatures=[_signature(alg="none")]), Reason.MALFORMED),
    "an unknown key": (seal(KIND, b"{}", Signer.from_seed(bytes(32))), Reason.UNKNOWN_SIGNER),
    "the key id of another": (_changed(signatures=[_signature(keyid="00" * 32)]), Reason.UNKNOWN_SIGNER),
    "a key id that is a number": (_changed(signatures=[_signature(keyid=0)]), Reason.MALFORMED),
    "a key id in capitals": (_changed(signatures=[_signature(keyid=SIGNER.key_id.upper())]), Reason.UNKNOWN_SIGNER),
    "too many bytes": (b" " * MAX_ENVELOPE_BYTES + ENVELOPE, Reason.OVERSIZED),
}


@pytest.mark.parametrize(("envelope", "reason"), FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_envelope_is_refused_with_its_reason(envelope: bytes, reason: Reason) -> None:
    with pytest.raises(EnvelopeError) as refused:
        open_envelope(envelope, KIND, RING)
    assert refused.value.reason is reason


def test_a_signature_of_one_participant_does_not_pass_under_the_key_id_of_another() -> None:
    other = Signer.from_seed(bytes(32))
    ring = KeyRing({"hospital-a": SIGNER.public_hex, "hospital-b": other.public_hex})
    forged = _changed(signatures=[_signature(keyid=other.key_id)])
    with pytest.raises(EnvelopeError) as refused:
        open_envelope(forged, KIND, ring)
    assert refused.value.reason is Reason.BAD_SIGNATURE


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_by_a_typed_error(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        open_envelope(data, KIND, RING)


def test_an_empty_ring_accepts_nobody() -> None:
    with pytest.raises(EnvelopeError) as refused:
        open_envelope(ENVELOPE, KIND, KeyRing({}))
    assert refused.value.reason is Reason.UNKNOWN_SIGNER


def test_two_participants_cannot_share_a_key() -> None:
    with pytest.raises(ConfigurationError, match="share"):
        KeyRing({"a": SIGNER.public_hex, "b": SIGNER.public_hex})
    with pytest.raises(ConfigurationError, match="share"):
        KeyRing({"a": SIGNER.public_hex, "b": SIGNER.public_hex.upper()})


@pytest.mark.parametrize("key", ["", "00", "zz" * 32, "00" * 33, "é" * 64])
def test_a_key_that_does_not_parse_is_a_configuration_error(key: str) -> None:
    with pytest.raises(ConfigurationError):
        KeyRing({"a": key})
