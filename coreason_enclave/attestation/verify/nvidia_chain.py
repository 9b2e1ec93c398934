"""NVIDIA's certificate paths: leaf first, ECDSA P-384 with SHA-384 throughout, ending in one pinned root.

Devices and reference manifests each have a hierarchy of the same form. The checks follow RFC 5280, section 6, reduced
to the certificates that NVIDIA issues: no name constraints, no policies, no other algorithm.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.crypto import load_certificate
from coreason_enclave.system import as_text, unix_seconds

Chain = tuple[x509.Certificate, ...]

MAX_CHAIN_BYTES = 16 * 1024
_ECDSA_WITH_SHA384 = x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384
_UNDERSTOOD = frozenset({x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.ExtendedKeyUsage.oid})
_BLOCK = rb"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----"
_PEM = re.compile(rb"(?:" + _BLOCK.replace(b"([", b"(?:[") + rb"[\r\n]*){1,16}")
BAD_CERTIFICATE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


@contextmanager
def refusing(refusal: Refusal, what: str) -> Iterator[None]:
    """Turn a library's error about ``what`` into a refusal."""
    try:
        yield
    except BAD_CERTIFICATE as error:
        raise VerificationRefused(refusal, f"{what}: {error}") from error


def canonical_base64(text: bytes, what: str) -> bytes:
    """Decode base64, canonical spelling only (line breaks aside); raises :class:`VerificationRefused`."""
    joined = text.replace(b"\r", b"").replace(b"\n", b"")
    try:
        decoded = base64.b64decode(joined, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationRefused(Refusal.MALFORMED, f"{what} is not base64") from error
    if base64.b64encode(decoded) != joined:
        raise VerificationRefused(Refusal.MALFORMED, f"{what} is not in canonical base64")
    return decoded


def load_der(der: bytes, what: str) -> x509.Certificate:
    """Parse one certificate without trailing bytes; raises :class:`VerificationRefused`."""
    with refusing(Refusal.MALFORMED, f"{what} is not a certificate"):
        certificate = load_certificate(der)
    if not der.endswith(b"\0" + certificate.signature):
        # The octet before the signature counts unused bits: the parser would accept one or more.
        raise VerificationRefused(Refusal.MALFORMED, f"{what} has a signature that is not whole octets")
    return certificate


def load_pem_chain(pem: bytes, what: str) -> Chain:
    """Parse certificates in order, with no bytes between them; raises :class:`VerificationRefused`."""
    if len(pem) > MAX_CHAIN_BYTES:
        raise VerificationRefused(Refusal.OVERSIZED, f"{what} of {len(pem)} bytes is larger than {MAX_CHAIN_BYTES}")
    if not _PEM.fullmatch(pem):
        raise VerificationRefused(Refusal.MALFORMED, f"{what} is not a sequence of PEM certificates")
    return tuple(load_der(canonical_base64(block, what), what) for block in re.findall(_BLOCK, pem))


def pin(pem: bytes, sha256: str) -> x509.Certificate:
    """Parse a packaged root; raises :class:`VerificationRefused` unless its DER has the pinned SHA-256 (hex)."""
    (root,) = load_pem_chain(pem, "a pinned root")
    if hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest() != sha256:
        raise VerificationRefused(Refusal.CHAIN, "the root in the package is not the pinned root")
    return root


def public_key(certificate: x509.Certificate, what: str) -> ec.EllipticCurvePublicKey:
    """Return the certificate's key, which must be on P-384; raises :class:`VerificationRefused`."""
    with refusing(Refusal.CHAIN, what):
        key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise VerificationRefused(Refusal.CHAIN, f"{what} has a key that is not on P-384")
    return key


def verify_path(chain: Sequence[x509.Certificate], root: x509.Certificate, now: int, what: str) -> None:
    """Check every signature, constraint and validity window from the leaf ``chain[0]`` to ``root``.

    Args:
        chain: Leaf first; the last certificate must be ``root`` itself.
        now: Unix seconds.

    Raises:
        VerificationRefused: ``chain`` or ``not_valid_now``.
    """
    if len(chain) < 2 or chain[-1].public_bytes(Encoding.DER) != root.public_bytes(Encoding.DER):
        raise VerificationRefused(Refusal.CHAIN, f"the chain of {what} does not end in the pinned root of its kind")
    with refusing(Refusal.CHAIN, f"the chain of {what}"):
        for certificate in chain:
            _check_form(certificate, what)
        _check_leaf(chain[0], what)
        for below, (certificate, issuer) in enumerate(zip(chain, (*chain[1:-1], root), strict=False)):
            _check_issued(certificate, issuer, below, what)
        for certificate in chain:
            _check_window(certificate, now, what)


def _check_form(certificate: x509.Certificate, what: str) -> None:
    name = f"{_name(certificate)} in the chain of {what}"
    public_key(certificate, name)
    if certificate.version is not x509.Version.v3 or certificate.signature_algorithm_oid != _ECDSA_WITH_SHA384:
        raise VerificationRefused(Refusal.CHAIN, f"{name} is not an X.509 v3 certificate with ECDSA and SHA-384")
    unknown = [e.oid.dotted_string for e in certificate.extensions if e.critical and e.oid not in _UNDERSTOOD]
    if unknown:
        raise VerificationRefused(Refusal.CHAIN, f"{name} has unknown critical extensions: {unknown}")


def _check_leaf(leaf: x509.Certificate, what: str) -> None:
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    if _constraints(leaf).ca or usage.key_cert_sign or not usage.digital_signature:
        raise VerificationRefused(Refusal.CHAIN, f"the leaf of {what} is not a certificate for signing documents")


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate, below: int, what: str) -> None:
    """Check that ``issuer`` issued ``certificate``. ``below``: number of authorities from ``issuer`` to the leaf."""
    constraints = _constraints(issuer)
    usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    if not constraints.ca or not usage.key_cert_sign:
        raise VerificationRefused(Refusal.CHAIN, f"{_name(issuer)} in the chain of {what} may not issue certificates")
    if constraints.path_length is not None and constraints.path_length < below:
        raise VerificationRefused(Refusal.CHAIN, f"the chain of {what} is longer than {_name(issuer)} allows")
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        message = f"{_name(certificate)} in the chain of {what} is not signed by the key of {_name(issuer)}"
        raise VerificationRefused(Refusal.CHAIN, message) from None


def _check_window(certificate: x509.Certificate, now: int, what: str) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not unix_seconds(first) <= now <= unix_seconds(last):
        window = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
        message = f"{_name(certificate)} in the chain of {what} is valid {window}, not at {as_text(now)}"
        raise VerificationRefused(Refusal.NOT_VALID_NOW, message)


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return x509.BasicConstraints(ca=False, path_length=None)


def _name(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string()[:120])


def spki_sha256(certificate: x509.Certificate, what: str) -> str:
    """Return the SHA-256 of the public key (SubjectPublicKeyInfo, DER), hex: an identity independent of the issuer."""
    encoded = public_key(certificate, what).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()
