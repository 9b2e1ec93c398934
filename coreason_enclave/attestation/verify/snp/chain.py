"""Verify the chain from a pinned root down to the report's signing key, and check AMD's revocation lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from coreason_enclave.attestation.verify.snp.certificates import Certificate, read_certificate, readable
from coreason_enclave.attestation.verify.snp.der import SignedDer, split_signed
from coreason_enclave.attestation.verify.snp.endorsements import SnpEndorsements
from coreason_enclave.attestation.verify.snp.products import SnpProduct
from coreason_enclave.attestation.verify.snp.report import SigningKey
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.crypto import load_revocation_list
from coreason_enclave.system import unix_seconds

_SALT_BYTES = 48
_AUTHORITY_NAMES = {SigningKey.VCEK: "SEV-{}", SigningKey.VLEK: "SEV-VLEK-{}"}


@dataclass(frozen=True)
class Root:
    """A trust anchor for one product line: DER and parsed certificate."""

    der: bytes
    certificate: Certificate

    @classmethod
    def of(cls, der: bytes) -> Root:
        """Parse an anchor; raises :class:`VerificationRefused`."""
        return cls(der, read_certificate(der))


@dataclass(frozen=True)
class Chain:
    """A verified chain: every signature below ``root`` holds, and every validity window contains ``now``."""

    product: SnpProduct
    root: Certificate
    authority: Certificate
    leaf: Certificate
    leaf_key: ec.EllipticCurvePublicKey


def verify_chain(
    roots: Mapping[SnpProduct, Root], endorsements: SnpEndorsements, signing_key: SigningKey, now: int
) -> Chain:
    """Verify root, authority (ASK or ASVK) and key (VCEK or VLEK); raises :class:`VerificationRefused`."""
    leaf, authority, given_root = _sort(endorsements.certificates)
    product = _product(roots, authority, given_root)
    root = roots[product].certificate
    _check_signature(authority.signed, root, f"the certificate of {authority.common_name!r}")
    _check_authority(authority, product)
    if leaf.issuer != authority.subject:
        raise VerificationRefused(Refusal.CHAIN, "another authority than the given one issued the key's certificate")
    _check_signature(leaf.signed, authority, "the certificate of the key")
    for certificate in (root, authority, leaf):
        _check_window(certificate, now)
    return Chain(product, root, authority, leaf, _leaf_key(leaf, authority, signing_key, product))


def check_not_revoked(chain: Chain, lists: Sequence[bytes], now: int) -> None:
    """Refuse a revoked authority, a list of another root, and a list that is not current.

    AMD revokes ASK and ASVK through these lists. A VCEK has no serial number of its own; its TCB outdates it instead.
    """
    for der in lists:
        _check_list(chain, der, now)


def _sort(certificates: Sequence[bytes]) -> tuple[Certificate, Certificate, bytes | None]:
    """Return the certificates of key and authority, and of the root if given; refuse more than one of each."""
    read = {der: read_certificate(der) for der in certificates}
    leaves = [one for one in read.values() if not one.is_authority]
    roots = [der for der, one in read.items() if one.is_authority and one.subject == one.issuer]
    authorities = [one for der, one in read.items() if one.is_authority and der not in roots]
    if not leaves or not authorities:
        missing = "VCEK or VLEK" if not leaves else "ASK or ASVK"
        raise VerificationRefused(Refusal.ENDORSEMENTS_MISSING, f"the {missing} certificate is missing")
    if len(leaves) > 1 or len(authorities) > 1 or len(roots) > 1:
        raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, "the given certificates belong to more than one chain")
    return leaves[0], authorities[0], roots[0] if roots else None


def _product(roots: Mapping[SnpProduct, Root], authority: Certificate, given_root: bytes | None) -> SnpProduct:
    for product, root in roots.items():
        if authority.issuer == root.certificate.subject and given_root in (None, root.der):
            return product
    raise VerificationRefused(
        Refusal.CHAIN, f"the root above {authority.common_name!r} is not a pinned AMD root, or not the given root"
    )


def _check_authority(authority: Certificate, product: SnpProduct) -> None:
    if not authority.may_sign_keys_only:
        raise VerificationRefused(Refusal.CHAIN, f"{authority.common_name!r} must not sign keys for {product}")


def _leaf_key(
    leaf: Certificate, authority: Certificate, signing_key: SigningKey, product: SnpProduct
) -> ec.EllipticCurvePublicKey:
    names = f"SEV-{signing_key}", _AUTHORITY_NAMES[signing_key].format(product)
    if (leaf.common_name, authority.common_name) != names:
        raise VerificationRefused(
            Refusal.ENDORSEMENTS_MISMATCH,
            f"the report is signed by a {signing_key} of {product}, the certificates are of {leaf.common_name!r} "
            f"under {authority.common_name!r}",
        )
    if not isinstance(leaf.public_key, ec.EllipticCurvePublicKey) or leaf.public_key.curve.name != "secp384r1":
        raise VerificationRefused(Refusal.CHAIN, "the key's certificate does not hold a P-384 key")
    return leaf.public_key


def _check_signature(signed: SignedDer, issuer: Certificate, what: str) -> None:
    if not isinstance(issuer.public_key, rsa.RSAPublicKey):
        raise VerificationRefused(Refusal.CHAIN, f"{what} is issued by a key that is not RSA")
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), _SALT_BYTES)
    try:
        issuer.public_key.verify(signed.signature, signed.body, scheme, hashes.SHA384())
    except InvalidSignature as error:
        raise VerificationRefused(Refusal.CHAIN, f"{what} is not signed by {issuer.common_name!r}") from error


def _check_window(certificate: Certificate, now: int) -> None:
    if not certificate.not_before <= now <= certificate.not_after:
        raise VerificationRefused(
            Refusal.NOT_VALID_NOW,
            f"the certificate of {certificate.common_name!r} is valid from {certificate.not_before} to "
            f"{certificate.not_after}, not at {now}",
        )


def _check_list(chain: Chain, der: bytes, now: int) -> None:
    signed = split_signed(der)
    if len(signed.fields) < 2 or signed.fields[1].whole != signed.algorithm:
        raise VerificationRefused(Refusal.MALFORMED, "a revocation list's signed body names another algorithm")
    with readable("a revocation list"):
        listed = load_revocation_list(der)
        issuer = listed.issuer
    if issuer != chain.root.subject:
        raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, f"a revocation list is not for {chain.product}")
    _check_signature(signed, chain.root, "the revocation list")
    with readable("a revocation list"):
        _check_scope(listed)
        start, end = listed.last_update_utc, listed.next_update_utc
        revoked = {entry.serial_number for entry in listed}
    if end is None or not unix_seconds(start) <= now <= unix_seconds(end):
        raise VerificationRefused(Refusal.NOT_VALID_NOW, f"the revocation list is valid {start} to {end}, not at {now}")
    if chain.authority.serial in revoked:
        raise VerificationRefused(Refusal.REVOKED, f"AMD revoked {chain.authority.common_name!r}")


def _check_scope(listed: x509.CertificateRevocationList) -> None:
    """Refuse delta, indirect and partial lists, which a reader would mistake for complete ones.

    Such lists declare themselves in critical extensions.
    """
    entries = [extension for entry in listed for extension in entry.extensions]
    if any(extension.critical for extension in (*listed.extensions, *entries)):
        raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, "a revocation list is not complete")
