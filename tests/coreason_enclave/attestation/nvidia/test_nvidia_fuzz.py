"""Whatever arrives: a refusal with a code, or the one thing that was signed."""

from __future__ import annotations

import base64
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreason_enclave.attestation.verify.nvidia import (
    NvidiaEndorsements,
    NvidiaPlatformPolicy,
    NvidiaRevocation,
    parse_nvidia_evidence,
)
from coreason_enclave.attestation.verify.nvidia.opaque import parse_opaque
from coreason_enclave.attestation.verify.nvidia.spdm import parse_report
from coreason_enclave.attestation.verify.nvidia_chain import load_pem_chain
from coreason_enclave.attestation.verify.rim import verify_manifest_under
from coreason_enclave.attestation.verify.verdict import VerificationRefused
from tests.coreason_enclave.attestation.nvidia.hierarchy import (
    NONCE,
    NOW,
    chain,
    device_answers,
    driver_manifest,
    manifest_chain,
    opaque,
    pem,
    report,
    verifier,
)

POLICY = NvidiaPlatformPolicy()
LISTED = json.dumps(
    [
        {
            "arch": "HOPPER",
            "certificate": base64.b64encode(pem(chain())).decode(),
            "evidence": base64.b64encode(report()).decode(),
            "nonce": NONCE.hex(),
        }
    ]
).encode()
GENUINE = [report(), LISTED, driver_manifest(), pem(chain()), device_answers()[0].der(), b""]
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A genuine document in which pieces were cut, repeated, swapped or written over; or no document at all."""
    data = bytearray(draw(st.sampled_from(GENUINE)) or draw(st.binary(max_size=300)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 60))
        other = draw(st.sampled_from(GENUINE))
        start = draw(st.integers(0, len(other)))
        piece = draw(st.one_of(st.binary(max_size=40), st.just(other[start : start + length]), st.just(b"")))
        data[at : at + draw(st.integers(0, 60))] = piece
    return bytes(data)


@fuzz
@given(mangled())
def test_mangled_evidence_is_refused_or_is_what_was_signed(data: bytes) -> None:
    try:
        verdicts = verifier().verify_all(data, NvidiaEndorsements(chain=pem(chain())), POLICY, NOW, nonce=NONCE)
    except VerificationRefused:
        return
    assert [parse_report(one.report).signed for one in parse_nvidia_evidence(data)] == [report()[:-96]]
    assert verdicts[0].report_data == NONCE


@fuzz
@given(mangled())
def test_mangled_endorsements_are_refused_or_add_nothing(data: bytes) -> None:
    try:
        ends = NvidiaEndorsements.from_files([data])
        merged = NvidiaEndorsements(ends.chain or pem(chain()), ends.manifests, ends.revocation)
        verdict = verifier().verify(report(), merged, POLICY, NOW, nonce=NONCE)
    except VerificationRefused:
        return
    assert "revocation" in verdict.not_checked
    assert "measurements" in verdict.not_checked


@fuzz
@given(mangled())
def test_mangled_manifests_are_refused_or_say_what_was_signed(data: bytes) -> None:
    genuine = verify_manifest_under(manifest_chain()[-1], driver_manifest(), NOW)
    try:
        found = verify_manifest_under(manifest_chain()[-1], data, NOW)
    except VerificationRefused:
        return
    assert found == genuine


@fuzz
@given(st.binary(max_size=200), st.integers(-(10**20), 10**20))
def test_any_bytes_at_any_time(data: bytes, now: int) -> None:
    revocation = NvidiaRevocation(responses=(base64.b64encode(data).decode(),))
    for attempt in (
        lambda: parse_opaque(data),
        lambda: load_pem_chain(data, "x"),
        lambda: verify_manifest_under(manifest_chain()[-1], driver_manifest() + data, now),
        lambda: verifier().verify(data, NvidiaEndorsements(data), POLICY, now, nonce=data),
        lambda: verifier().verify(report(), NvidiaEndorsements(pem(chain()), (), revocation), POLICY, now, nonce=NONCE),
    ):
        try:
            attempt()
        except VerificationRefused:
            continue


@fuzz
@given(st.dictionaries(st.sampled_from([*range(1, 26), *range(32, 37)]), st.binary(max_size=40), max_size=8))
def test_fields_are_read_as_they_were_written(fields: dict[int, bytes]) -> None:
    try:
        assert parse_opaque(opaque(fields)).fields == fields
    except VerificationRefused:
        assert int.from_bytes(fields[34], "little") > 1
