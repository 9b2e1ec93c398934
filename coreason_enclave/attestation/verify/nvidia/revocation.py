"""Check revocation of NVIDIA's certificates through OCSP answers, fetched beforehand (RFC 6960). No other way exists.

Only a signed answer can establish *good*. An unsigned statement can only lead to a refusal, so a forger gains nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import StringConstraints

from coreason_enclave.attestation.verify.nvidia_chain import (
    BAD_CERTIFICATE,
    Chain,
    canonical_base64,
    load_der,
    public_key,
    refusing,
)
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.crypto import load_ocsp_response
from coreason_enclave.schemas import FormatVersion, StrictModel
from coreason_enclave.system import unix_seconds

_HASHES: dict[type[hashes.HashAlgorithm], str] = {hashes.SHA1: "sha1", hashes.SHA256: "sha256", hashes.SHA384: "sha384"}
_SIGNING = (hashes.SHA256, hashes.SHA384)
_MAX_ANSWERS = 64
_MAX_ANSWER_TEXT = 16 * 1024


class RevocationStatus(StrEnum):
    """Status of a certificate in the responder's answer."""

    GOOD = "good"
    REVOKED = "revoked"
    ON_HOLD = "on_hold"
    UNKNOWN = "unknown"


class RevocationStatement(StrictModel):
    """An unsigned claim about a responder's answer. ``serial``: of the certificate, hex."""

    serial: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{1,40}$")]
    status: RevocationStatus


class NvidiaRevocation(StrictModel):
    """The revocation result that ``--endorsements`` takes as a JSON document.

    Attributes:
        responses: Signed OCSP answers (DER, base64), for any number of certificates. Only signed answers can show that
            a certificate is good.
        statements: Unsigned claims. ``good`` counts as not checked; any other status leads to a refusal.
    """

    version: FormatVersion = 1
    kind: Literal["nvidia-ocsp"] = "nvidia-ocsp"
    responses: tuple[Annotated[str, StringConstraints(max_length=_MAX_ANSWER_TEXT)], ...] = ()
    statements: tuple[RevocationStatement, ...] = ()

    @classmethod
    def of_responses(cls, *answers: bytes) -> NvidiaRevocation:
        """Return the document for raw OCSP answers (DER); refuse an answer of excessive length."""
        texts = tuple(base64.b64encode(answer).decode() for answer in answers)
        if any(len(text) > _MAX_ANSWER_TEXT for text in texts):
            raise VerificationRefused(Refusal.OVERSIZED, "a revocation result exceeds the limit for an OCSP answer")
        return cls(responses=texts)

    def check(self, chain: Chain, first: int, now: int, what: str) -> tuple[str, ...]:
        """Refuse if any certificate from ``chain[first]`` up to below the root is revoked, held or unknown.

        Returns:
            Names of the certificates that no signed, current answer shows to be good.

        Raises:
            VerificationRefused: ``revoked``; ``oversized`` for too many answers; ``malformed``, ``signature`` or
                ``not_valid_now`` for an unusable answer about one of these certificates.
        """
        if len(self.responses) > _MAX_ANSWERS:
            raise VerificationRefused(Refusal.OVERSIZED, f"a revocation result of {len(self.responses)} answers")
        answers = [_load(text) for text in self.responses]
        open_ends = []
        for certificate, issuer in zip(chain[first:-1], chain[first + 1 :], strict=True):
            name = f"{certificate.subject.rfc4514_string()[:120]!r} in the chain of {what}"
            self._check_statements(certificate, name)
            results = [_is_good(answer, certificate, issuer, now, name) for answer in answers]
            if not any(results):
                open_ends.append(name)
        return tuple(open_ends)

    def _check_statements(self, certificate: x509.Certificate, name: str) -> None:
        for statement in self.statements:
            if int(statement.serial, 16) == certificate.serial_number and statement.status is not RevocationStatus.GOOD:
                raise _revoked(name, statement.status)


def _load(text: str) -> ocsp.OCSPResponse:
    der = canonical_base64(text.encode("utf-8", "replace"), "a revocation result")
    with refusing(Refusal.MALFORMED, "a revocation result is not an OCSP answer"):
        answer = load_ocsp_response(der)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise ValueError(answer.response_status.name)
        if b"\0" + answer.signature not in der:
            raise ValueError("its signature is not whole octets")
    return answer


def _is_good(
    answer: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate, now: int, name: str
) -> bool:
    """Return True if ``answer`` shows that ``certificate`` is good; False for an answer about other certificates."""
    with refusing(Refusal.MALFORMED, f"the OCSP answer about {name}"):
        responses = [single for single in answer.responses if _is_about(single, certificate, issuer)]
        if not responses:
            return False
        _check_signature(answer, issuer, now, name)
        for single in responses:
            _check_status(single, now, name)
    return True


def _is_about(single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    algorithm = _HASHES.get(type(single.hash_algorithm))
    if algorithm is None or single.serial_number != certificate.serial_number:
        return False
    point = public_key(issuer, "an issuer").public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return (single.issuer_name_hash, single.issuer_key_hash) == (
        hashlib.new(algorithm, issuer.subject.public_bytes(), usedforsecurity=False).digest(),
        hashlib.new(algorithm, point, usedforsecurity=False).digest(),
    )


def _check_signature(answer: ocsp.OCSPResponse, issuer: x509.Certificate, now: int, name: str) -> None:
    algorithm = answer.signature_hash_algorithm
    if not isinstance(algorithm, _SIGNING):
        raise VerificationRefused(Refusal.SIGNATURE, f"the OCSP answer about {name} is signed with a weak algorithm")
    for responder in (issuer, *_delegates(answer, issuer, now)):
        key = responder.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            continue
        try:
            key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(algorithm))
        except InvalidSignature:
            continue
        return
    message = f"the OCSP answer about {name} is signed neither by its issuer nor by the issuer's responder"
    raise VerificationRefused(Refusal.SIGNATURE, message)


def _delegates(answer: ocsp.OCSPResponse, issuer: x509.Certificate, now: int) -> Iterator[x509.Certificate]:
    """Yield the currently valid certificates of responders that ``issuer`` itself authorised to answer in its place."""
    for candidate in answer.certificates[:4]:
        certificate = load_der(candidate.public_bytes(Encoding.DER), "the certificate of a responder")
        try:
            purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, *BAD_CERTIFICATE):
            continue
        window = (unix_seconds(certificate.not_valid_before_utc), unix_seconds(certificate.not_valid_after_utc))
        if ExtendedKeyUsageOID.OCSP_SIGNING in purposes and window[0] <= now <= window[1]:
            yield certificate


def _check_status(single: ocsp.OCSPSingleResponse, now: int, name: str) -> None:
    if single.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        raise _revoked(name, RevocationStatus.UNKNOWN)
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        on_hold = single.revocation_reason is x509.ReasonFlags.certificate_hold
        raise _revoked(name, RevocationStatus.ON_HOLD if on_hold else RevocationStatus.REVOKED)
    first, last = single.this_update_utc, single.next_update_utc
    if last is None or not unix_seconds(first) <= now <= unix_seconds(last):
        message = f"the OCSP answer about {name} is not current: fetch a newer one"
        raise VerificationRefused(Refusal.NOT_VALID_NOW, message)


def _revoked(name: str, status: RevocationStatus) -> VerificationRefused:
    return VerificationRefused(Refusal.REVOKED, f"{name}: the vendor's responder says {status.value}")
