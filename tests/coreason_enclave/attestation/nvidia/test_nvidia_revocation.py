"""Revocation exists as OCSP only; good is believed of signed, current answers alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from coreason_enclave.attestation.verify.nvidia import (
    NvidiaEndorsements,
    NvidiaPlatformPolicy,
    NvidiaRevocation,
    RevocationStatement,
    RevocationStatus,
)
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from tests.coreason_enclave.attestation.nvidia.hierarchy import (
    NONCE,
    NOW,
    Answer,
    chain,
    device_answers,
    device_certificates,
    driver_manifest,
    manifest_answers,
    manifest_chain,
    pem,
    report,
    responder,
    verifier,
)

GOOD = device_answers()


def verify(
    *answers: Answer, statements: tuple[RevocationStatement, ...] = (), manifests: tuple[bytes, ...] = ()
) -> Authentic:
    signed = NvidiaRevocation.of_responses(*(answer.der() for answer in answers))
    result = NvidiaRevocation(responses=signed.responses, statements=statements)
    ends = NvidiaEndorsements(pem(chain()), manifests, result)
    return verifier().verify(report(), ends, NvidiaPlatformPolicy(), NOW, nonce=NONCE)


def refusal(*answers: Answer, **kwargs: object) -> Refusal:
    with pytest.raises(VerificationRefused) as refused:
        verify(*answers, **kwargs)  # type: ignore[arg-type]
    return refused.value.refusal


def said(index: int, status: RevocationStatus) -> tuple[RevocationStatement, ...]:
    return (RevocationStatement(serial=f"{chain()[index].serial_number:x}", status=status),)


def test_good_answers_about_all_but_leaf_and_root_check_the_revocation() -> None:
    assert "revocation" not in verify(*GOOD).not_checked


@pytest.mark.parametrize("missing", range(3))
def test_with_one_answer_missing_revocation_is_not_checked(missing: int) -> None:
    assert "revocation" in verify(*(answer for n, answer in enumerate(GOOD) if n != missing)).not_checked


def test_no_data_is_never_good() -> None:
    assert "revocation" in verify().not_checked
    assert "revocation" in verify(*manifest_answers()).not_checked
    assert "revocation" in verify(*device_answers("two")[:1], *GOOD[1:]).not_checked


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("reason", [None, x509.ReasonFlags.certificate_hold, x509.ReasonFlags.key_compromise])
def test_a_revoked_or_held_certificate_is_refused(index: int, reason: x509.ReasonFlags | None) -> None:
    answers = list(GOOD)
    answers[index] = replace(GOOD[index], status=ocsp.OCSPCertStatus.REVOKED, reason=reason)
    assert refusal(*answers) is Refusal.REVOKED


def test_revoked_counts_although_it_is_old_or_stands_beside_good() -> None:
    bad = replace(GOOD[0], status=ocsp.OCSPCertStatus.REVOKED, first=NOW - 10_000, last=NOW - 9_000)
    assert refusal(bad) is Refusal.REVOKED
    assert refusal(*GOOD, bad) is Refusal.REVOKED
    assert refusal(bad, *GOOD) is Refusal.REVOKED


def test_a_certificate_that_the_responder_does_not_know_is_refused() -> None:
    assert refusal(replace(GOOD[0], status=ocsp.OCSPCertStatus.UNKNOWN), *GOOD[1:]) is Refusal.REVOKED


@pytest.mark.parametrize(
    "changed", [{"first": NOW + 1}, {"last": NOW - 1}, {"last": None}, {"first": NOW - 10, "last": NOW - 5}]
)
def test_an_answer_that_is_not_current_is_refused(changed: dict[str, int]) -> None:
    assert refusal(replace(GOOD[0], **changed), *GOOD[1:]) is Refusal.NOT_VALID_NOW  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        replace(
            GOOD[0], signer="somebody", poses_as=responder(subject="NVIDIA GH100 Provisioner ICA 1", owner="somebody")
        ),
        replace(GOOD[0], signer="rom", poses_as=chain()[1]),
        replace(GOOD[0], signer="responder", responder=responder(signer="somebody")),
        replace(GOOD[0], signer="responder", responder=responder(signer="identity", issuer="NVIDIA GH100 Identity")),
        replace(GOOD[0], signer="responder", responder=responder(ExtendedKeyUsageOID.SERVER_AUTH)),
        replace(GOOD[0], signer="responder", responder=responder(first=NOW + 1)),
        replace(GOOD[0], signer="responder", responder=responder(last=NOW - 1)),
        replace(GOOD[0], signer="rom", responder=chain()[1]),
        replace(GOOD[0], algorithm=hashes.SHA224()),
    ],
)
def test_an_answer_by_anybody_but_the_issuer_or_its_responder_is_refused(answer: Answer) -> None:
    assert refusal(answer, *GOOD[1:]) is Refusal.SIGNATURE


def test_an_answer_by_the_issuers_own_responder_counts() -> None:
    delegated = replace(GOOD[0], signer="responder", responder=responder())
    assert "revocation" not in verify(delegated, *GOOD[1:]).not_checked


@pytest.mark.parametrize("status", [RevocationStatus.REVOKED, RevocationStatus.ON_HOLD, RevocationStatus.UNKNOWN])
def test_an_unsigned_word_can_refuse(status: RevocationStatus) -> None:
    assert refusal(statements=said(1, status)) is Refusal.REVOKED
    assert refusal(*GOOD, statements=said(3, status)) is Refusal.REVOKED


@pytest.mark.parametrize(
    ("index", "changed"), [(2, {"owner": "somebody"}), (1, {"issuer": "NVIDIA GH200 Provisioner ICA 1"})]
)
def test_an_answer_about_the_same_serial_of_another_issuer_is_about_somebody_else(
    index: int, changed: dict[str, str]
) -> None:
    """One key may answer for several issuers, whose serial numbers are their own."""
    other = replace(device_certificates()[index], **changed).make()  # type: ignore[arg-type]
    about = (*chain()[:index], other, *chain()[index + 1 :])
    answer = replace(GOOD[0], certificates=about, poses_as=chain()[2])
    assert "revocation" in verify(answer, *GOOD[1:]).not_checked


def test_an_unsigned_good_counts_as_nothing() -> None:
    every = tuple(said(index, RevocationStatus.GOOD)[0] for index in range(5))
    assert "revocation" in verify(statements=every).not_checked


def test_the_signers_of_a_manifest_can_be_revoked_too() -> None:
    answers = manifest_answers()
    verdict = verify(*GOOD, *answers, manifests=(driver_manifest(),))
    assert "driver_manifest_revocation" not in verdict.not_checked
    bad = replace(answers[1], status=ocsp.OCSPCertStatus.REVOKED)
    assert refusal(*GOOD, answers[0], bad, answers[2], manifests=(driver_manifest(),)) is Refusal.REVOKED
    serial = f"{manifest_chain()[0].serial_number:X}"
    held = (RevocationStatement(serial=serial, status=RevocationStatus.ON_HOLD),)
    assert refusal(statements=held, manifests=(driver_manifest(),)) is Refusal.REVOKED


@pytest.mark.parametrize("text", ["", "%", "QQ==", "é", "MAMKAQE="])
def test_an_answer_that_cannot_be_read_is_malformed(text: str) -> None:
    ends = NvidiaEndorsements(pem(chain()), (), NvidiaRevocation(responses=(text,)))
    with pytest.raises(VerificationRefused) as refused:
        verifier().verify(report(), ends, NvidiaPlatformPolicy(), NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.MALFORMED


def test_answers_too_long_or_too_many_are_refused_unread() -> None:
    with pytest.raises(VerificationRefused) as refused:
        NvidiaEndorsements.from_files([b"\x30" + bytes(12 * 1024)])
    assert refused.value.refusal is Refusal.OVERSIZED
    assert refusal(*GOOD * 22) is Refusal.OVERSIZED


def test_the_signature_of_an_answer_has_one_encoding() -> None:
    made = (ocsp.load_der_ocsp_response(GOOD[0].der()) for _ in range(200))
    even = next(answer for answer in made if answer.signature[-1] % 2 == 0)
    der = even.public_bytes(Encoding.DER).replace(b"\0" + even.signature, b"\1" + even.signature)
    assert ocsp.load_der_ocsp_response(der).signature == even.signature
    ends = NvidiaEndorsements(pem(chain()), (), NvidiaRevocation.of_responses(der))
    with pytest.raises(VerificationRefused):
        verifier().verify(report(), ends, NvidiaPlatformPolicy(), NOW, nonce=NONCE)


def test_no_part_of_an_answer_can_be_changed_and_still_show_good() -> None:
    assert _still_good(lambda size: [(at, at % 8) for at in range(0, size, 3)]) == []


@pytest.mark.slow
def test_no_bit_of_an_answer_can_be_changed_and_still_show_good() -> None:
    assert _still_good(lambda size: [(at, bit) for at in range(size) for bit in range(8)]) == []


def _still_good(flips: Callable[[int], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    der = replace(GOOD[0], signer="responder", responder=responder()).der()
    others, document, good = [answer.der() for answer in GOOD[1:]], report(), []
    for at, bit in flips(len(der)):
        changed = bytearray(der)
        changed[at] ^= 1 << bit
        ends = NvidiaEndorsements(pem(chain()), (), NvidiaRevocation.of_responses(bytes(changed), *others))
        try:
            verdict = verifier().verify(document, ends, NvidiaPlatformPolicy(), NOW, nonce=NONCE)
        except VerificationRefused:
            continue
        if "revocation" not in verdict.not_checked:
            good.append((at, bit))
    return good
