"""Intel's signed statements about a platform: TCB levels, the quoting enclave's identity, and revocation lists.

This module checks that the collateral belongs to the quote, is valid now, and revokes no certificate in use. The
library then checks every signature over the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AfterValidator, Field

from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.crypto import load_pem_certificates, load_revocation_list, parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import StrictModel
from coreason_enclave.system import explain, unix_seconds

MAX_COLLATERAL_BYTES = 1 << 20


@dataclass(frozen=True)
class DcapEndorsements:
    """Endorsements of a quote.

    Attributes:
        collateral: A JSON object with the fields of Intel's ``sgx_ql_qve_collateral_t`` (binary ones in hex), as
            ``dcap-qvl`` and PCCS clients write it; ``None`` if absent.
    """

    collateral: bytes | None = None


def _plain(value: str) -> str:
    if not value.isascii() or "\0" in value:
        raise ValueError("must be ASCII text")
    return value


_Text = Annotated[str, AfterValidator(_plain)]
_Hex = Annotated[str, Field(pattern=r"^(?:[0-9a-fA-F]{2})+$")]
_Signature = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{128}$")]


class _Document(StrictModel):
    pck_crl_issuer_chain: _Text
    root_ca_crl: _Hex
    pck_crl: _Hex
    tcb_info_issuer_chain: _Text
    tcb_info: _Text
    tcb_info_signature: _Signature
    qe_identity_issuer_chain: _Text
    qe_identity: _Text
    qe_identity_signature: _Signature
    pck_certificate_chain: _Text | None = None


@dataclass(frozen=True)
class Collateral:
    """Parsed collateral; ``document`` holds the exact strings and bytes that the library verifies."""

    document: _Document
    tcb_info: dict[str, Any]
    qe_identity: dict[str, Any]
    crls: tuple[x509.CertificateRevocationList, x509.CertificateRevocationList]
    chains: tuple[tuple[x509.Certificate, ...], ...]

    def refuse_another_platform(self, kind: str, pck: x509.Certificate, fmspc: str, pce_id: str) -> None:
        """Raise if the collateral covers another TEE, processor model or certificate authority than the quote."""
        expected = {"sgx": ("SGX", "QE"), "tdx": ("TDX", "TD_QE")}[kind]
        if (self.tcb_info.get("id"), self.qe_identity.get("id")) != expected:
            raise _mismatch(f"the TCB info or the QE identity is not for {kind.upper()}")
        stated = (str(self.tcb_info.get("fmspc")).lower(), str(self.tcb_info.get("pceId")).lower())
        if stated != (fmspc.lower(), pce_id.lower()):
            raise _mismatch(f"FMSPC and PCE id: {stated[0]:.12} and {stated[1]:.4}, the quote's {fmspc} and {pce_id}")
        if pck.issuer != self.crls[1].issuer or pck.issuer != self.chains[0][0].subject:
            raise _mismatch("the revocation list and this platform's certificate have different authorities")

    def refuse_outside_validity(self, quote_chain: tuple[x509.Certificate, ...], now: int) -> None:
        """Raise if a part of the collateral, or a certificate of the quote, is not valid at ``now`` (Unix seconds)."""
        for what, begin, end in self._windows(quote_chain):
            if not begin <= now <= end:
                raise VerificationRefused(
                    Refusal.NOT_VALID_NOW, f"{what} is valid from {begin} to {end}, not at {now} (Unix seconds)"
                )

    def refuse_unissued(self) -> None:
        """Raise if the root did not issue the certificate given as the issuer of the revocation list.

        The library takes the issuer from the quote and ignores this certificate.
        """
        issuer, root = self.chains[0]
        try:
            issuer.verify_directly_issued_by(root)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as error:
            raise VerificationRefused(Refusal.CHAIN, "the root did not certify the revocation list's issuer") from error

    def refuse_revoked(self, quote_chain: tuple[x509.Certificate, ...]) -> None:
        """Raise if a certificate of the quote or of the collateral appears on its issuer's list."""
        for chain in (quote_chain, *self.chains):
            for certificate in chain:
                self._refuse_listed(certificate)

    def _refuse_listed(self, certificate: x509.Certificate) -> None:
        for crl in self.crls:
            listed = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if crl.issuer == certificate.issuer and listed is not None:
                subject = certificate.subject.rfc4514_string()
                raise VerificationRefused(Refusal.REVOKED, f"Intel revoked the certificate of {subject}")

    def _windows(self, quote_chain: tuple[x509.Certificate, ...]) -> Iterator[tuple[str, int, int]]:
        for name, document in (("the TCB info", self.tcb_info), ("the QE identity", self.qe_identity)):
            yield name, _moment(document, "issueDate"), _moment(document, "nextUpdate")
        for crl in self.crls:
            if crl.next_update_utc is None:
                raise _unusable("a revocation list has no end date")
            name = f"the revocation list of {crl.issuer.rfc4514_string()}"
            yield name, unix_seconds(crl.last_update_utc), unix_seconds(crl.next_update_utc)
        for certificate in {one for chain in (quote_chain, *self.chains) for one in chain}:
            name = f"the certificate of {certificate.subject.rfc4514_string()}"
            yield name, unix_seconds(certificate.not_valid_before_utc), unix_seconds(certificate.not_valid_after_utc)


def read_collateral(data: bytes, root: bytes) -> Collateral:
    """Parse collateral whose chains end in ``root`` (DER).

    Raises:
        VerificationRefused: Oversized, malformed, or a chain to another root.
    """
    if len(data) > MAX_COLLATERAL_BYTES:
        raise VerificationRefused(Refusal.OVERSIZED, f"collateral of {len(data)} bytes; limit {MAX_COLLATERAL_BYTES}")
    try:
        document = _Document.model_validate(parse_json(data))
        tcb_info, qe_identity = (parse_json(text.encode()) for text in (document.tcb_info, document.qe_identity))
        root_crl, pck_crl = (
            _crl(bytes.fromhex(text), name)
            for name, text in (("root_ca_crl", document.root_ca_crl), ("pck_crl", document.pck_crl))
        )
    except (EnvelopeError, ValueError) as error:  # pydantic's error among them
        raise _unusable(explain(error)) from error
    chains = tuple(
        read_chain(text.removesuffix("\n").encode() + b"\n", root, length=2, what=f"the collateral's {name}")
        for name, text in (
            ("pck_crl_issuer_chain", document.pck_crl_issuer_chain),
            ("tcb_info_issuer_chain", document.tcb_info_issuer_chain),
            ("qe_identity_issuer_chain", document.qe_identity_issuer_chain),
        )
    )
    return Collateral(document, tcb_info, qe_identity, (root_crl, pck_crl), chains)


def read_chain(text: bytes, root: bytes, *, length: int, what: str) -> tuple[x509.Certificate, ...]:
    """Parse exactly ``length`` certificates in PEM, leaf first; the last must be ``root`` (DER) to the byte.

    - The text must have the canonical spelling (64 columns, line feeds), since no signature covers it.
    - The exact length matters. Intel's root directly issues both certificate authorities and the signer of TCB info. A
      chain of two therefore cannot make a platform's own key a signer of TCB info.
    - This function checks no signature.

    Raises:
        VerificationRefused: ``malformed`` or ``chain``.
    """
    try:
        certificates = tuple(load_pem_certificates(text))
        for certificate in certificates:
            _refuse_odd(certificate)
    except Exception as error:  # the parser raises half a dozen types, all for unreadable input
        raise VerificationRefused(Refusal.CHAIN, f"{what}: a certificate cannot be read: {error}") from error
    if b"".join(one.public_bytes(Encoding.PEM) for one in certificates) != text:
        raise VerificationRefused(Refusal.MALFORMED, f"{what}: the certificates are not in the canonical PEM spelling")
    if len(certificates) != length:
        raise VerificationRefused(Refusal.CHAIN, f"{what}: {len(certificates)} certificates instead of {length}")
    if certificates[-1].public_bytes(Encoding.DER) != root:
        raise VerificationRefused(Refusal.CHAIN, f"{what} does not end in the pinned root")
    return certificates


def _refuse_odd(certificate: x509.Certificate) -> None:
    """Raise for certificates that ``cryptography`` accepts and strict readers refuse. Forces all lazy parsing."""
    _ = certificate.issuer, certificate.subject, certificate.extensions
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if certificate.serial_number <= 0:
        raise ValueError("its serial number is not positive")
    if not certificate.public_bytes(Encoding.DER).endswith(b"\0" + certificate.signature):
        raise ValueError("its signature claims unused bits")


def _crl(der: bytes, name: str) -> x509.CertificateRevocationList:
    try:
        crl = load_revocation_list(der)
        _ = crl.issuer, crl.last_update_utc, crl.next_update_utc, len(crl)  # forces the lazy parser
    except Exception as error:  # the parser raises half a dozen types, all for unreadable input
        raise _unusable(f"{name}: a revocation list cannot be read: {error}") from error
    return crl


def _moment(document: dict[str, Any], name: str) -> int:
    try:
        moment = datetime.fromisoformat(document[name])
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(f"{name} is not a date") from error
    if moment.tzinfo is None:
        raise _unusable(f"{name} has no time zone")
    return unix_seconds(moment)


def _unusable(message: str) -> VerificationRefused:
    return VerificationRefused(Refusal.MALFORMED, f"the DCAP collateral is unusable: {message[:300]}")


def _mismatch(message: str) -> VerificationRefused:
    return VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, f"the DCAP collateral is for another platform: {message}")
