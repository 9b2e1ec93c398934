"""The chain ends in a pinned root, every link is signed as AMD signs, and every window is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

from coreason_enclave.attestation.verify.snp import (
    SigningKey,
    SnpEndorsements,
    SnpPlatformPolicy,
    SnpProduct,
    roots,
    verify_snp,
)
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from coreason_enclave.errors import ConfigurationError
from tests.coreason_enclave.attestation.snp.hierarchy import (
    CHIP,
    DATA,
    NOW,
    PSS_LONG,
    PSS_SHA512,
    PSS_SHORT,
    YEAR,
    Vendor,
    authority_of,
    leaf_of,
    resigned,
    root_of,
    rsa_key,
    tlv,
    verifier,
)

Verdict = Callable[..., Authentic]
Refuse = Callable[..., Refusal]


def accepted(report: bytes, tries: Iterator[SnpEndorsements | tuple[Any, ...]]) -> list[int]:
    """The numbers of the endorsements that were not refused."""
    found = []
    for number, endorsements in enumerate(tries):
        given = endorsements if isinstance(endorsements, SnpEndorsements) else SnpEndorsements(endorsements)
        try:
            verifier().verify(report, given, SnpPlatformPolicy(), NOW, report_data=DATA)
            found.append(number)
        except VerificationRefused:
            pass
    return found


def one_bit_a_byte(data: bytes) -> Iterator[bytes]:
    return (data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data)))


# --- what is pinned --------------------------------------------------------------------------------------------


def test_our_own_vendor_is_none_of_the_pinned_ones(milan: Vendor) -> None:
    with pytest.raises(VerificationRefused) as refused:
        verify_snp(milan.report(), milan.endorsements(), SnpPlatformPolicy(), NOW, report_data=DATA)

    assert refused.value.refusal is Refusal.CHAIN


def test_a_root_with_the_vendors_name_is_refused_with_and_without_itself(refusal: Refuse) -> None:
    stranger = Vendor(owner="a stranger")
    leaf, authority, root = stranger.endorsements().certificates

    assert refusal(stranger.report(), SnpEndorsements((leaf, authority, root))) is Refusal.CHAIN
    assert refusal(stranger.report(), SnpEndorsements((leaf, authority))) is Refusal.CHAIN


def test_a_root_made_anew_from_the_pinned_key_is_not_the_pinned_root(refusal: Refuse, milan: Vendor) -> None:
    assert refusal(milan.report(), milan.endorsements(root=milan.root())) is Refusal.CHAIN


def test_the_pinned_roots_are_the_vendors_by_name_and_sign_themselves() -> None:
    found = roots.load_pinned_roots()

    assert {product: root.certificate.common_name for product, root in found.items()} == {
        product: f"ARK-{product}" for product in SnpProduct
    }
    for root in found.values():
        signed = root.certificate.signed
        scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
        root.certificate.public_key.verify(signed.signature, signed.body, scheme, hashes.SHA384())  # type: ignore[call-arg]


def test_an_installation_with_another_root_file_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, milan: Vendor
) -> None:
    (tmp_path / "ark").mkdir()
    (tmp_path / "ark" / "milan.der").write_bytes(root_of(milan))
    monkeypatch.setattr(roots, "files", lambda package: tmp_path)

    with pytest.raises(ConfigurationError, match="not the pinned root"):
        roots.load_pinned_roots()


# --- what is given ---------------------------------------------------------------------------------------------


def test_the_root_need_not_be_given_and_order_is_free(verdict: Verdict, milan: Vendor) -> None:
    leaf, authority, root = milan.endorsements().certificates

    for certificates in ((leaf, authority), (root, authority, leaf), (authority, root, leaf, leaf)):
        assert verdict(milan.report(), SnpEndorsements(certificates)).kind == "snp"


def test_a_chain_with_a_certificate_missing_is_refused(refusal: Refuse, milan: Vendor) -> None:
    leaf, authority, root = milan.endorsements().certificates

    for certificates in ((), (leaf,), (leaf, root), (authority, root)):
        assert refusal(milan.report(), SnpEndorsements(certificates)) is Refusal.ENDORSEMENTS_MISSING


def test_certificates_of_two_chains_are_refused(refusal: Refuse, milan: Vendor) -> None:
    certificates = milan.endorsements().certificates
    genoa, vlek = milan.of(product=SnpProduct.GENOA), milan.of(kind=SigningKey.VLEK)

    for extra in (leaf_of(milan.of(chip="chip-2")), authority_of(vlek), root_of(genoa)):
        assert refusal(milan.report(), SnpEndorsements((*certificates, extra))) is Refusal.ENDORSEMENTS_MISMATCH


@pytest.mark.parametrize("other", [SnpProduct.GENOA, SnpProduct.TURIN])
def test_endorsements_of_another_line_are_refused(refusal: Refuse, milan: Vendor, other: SnpProduct) -> None:
    vendor = milan.of(product=other)

    # The same keys throughout: the signature holds, and only names, layouts and identity tell the lines apart.
    assert refusal(milan.report(), vendor.endorsements()) is Refusal.ENDORSEMENTS_MISMATCH
    assert refusal(milan.report(), milan.endorsements(root=root_of(vendor))) is Refusal.CHAIN
    assert refusal(milan.report(), milan.endorsements(leaf=leaf_of(vendor))) is Refusal.CHAIN
    assert (
        refusal(
            milan.report(),
            milan.endorsements(
                leaf=milan.leaf(issuer=vendor.authority_name), authority=authority_of(vendor), root=root_of(vendor)
            ),
        )
        is Refusal.ENDORSEMENTS_MISMATCH
    )


def test_an_authority_of_one_kind_issues_no_key_of_the_other(refusal: Refuse, milan: Vendor) -> None:
    vlek = milan.of(kind=SigningKey.VLEK)
    leaf = milan.leaf(issuer=vlek.authority_name)

    assert (
        refusal(milan.report(), milan.endorsements(leaf=leaf, authority=authority_of(vlek)))
        is Refusal.ENDORSEMENTS_MISMATCH
    )


# --- how it is signed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["leaf", "authority", "root"])
def test_a_flipped_bit_in_any_byte_of_a_certificate_is_refused(milan: Vendor, which: str) -> None:
    given = dict(zip(("leaf", "authority", "root"), milan.endorsements().certificates, strict=True))
    tries = ({**given, which: damaged} for damaged in one_bit_a_byte(given[which]))

    assert accepted(milan.report(), (tuple(one.values()) for one in tries)) == []


@pytest.mark.slow
@pytest.mark.parametrize("which", ["leaf", "authority"])
def test_any_flipped_bit_of_a_certificate_is_refused(milan: Vendor, which: str) -> None:
    given = dict(zip(("leaf", "authority", "root"), milan.endorsements().certificates, strict=True))
    good = given[which]
    bits = (
        good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :] for bit in range(8 * len(good))
    )

    assert accepted(milan.report(), (tuple({**given, which: damaged}.values()) for damaged in bits)) == []


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_certificate_cut_off_or_with_bytes_behind_it_is_refused(refusal: Refuse, milan: Vendor, which: int) -> None:
    certificates = list(milan.endorsements().certificates)
    good = certificates[which]
    for damaged in (*(good[:length] for length in range(len(good))), good + b"\0", good + good):
        certificates[which] = damaged
        assert refusal(milan.report(), SnpEndorsements(tuple(certificates))) is Refusal.MALFORMED


STRANGE_SIGNATURES: dict[str, dict[str, Any]] = {
    "PKCS 1 v1.5": {"pss": None},
    "a shorter salt": {"pss": padding.PSS(padding.MGF1(hashes.SHA384()), 32)},
    "SHA-256": {"pss": padding.PSS(padding.MGF1(hashes.SHA256()), 32), "digest": hashes.SHA256()},
    "SHA-512": {"pss": padding.PSS(padding.MGF1(hashes.SHA512()), 48), "digest": hashes.SHA512()},
    "another mask": {"pss": padding.PSS(padding.MGF1(hashes.SHA256()), 48)},
    "ECDSA": {"pss": None, "signer": ec.generate_private_key(ec.SECP384R1())},
}


@pytest.mark.parametrize("changes", STRANGE_SIGNATURES.values(), ids=STRANGE_SIGNATURES)
def test_a_certificate_signed_in_another_way_is_refused(
    refusal: Refuse, milan: Vendor, changes: dict[str, Any]
) -> None:
    assert refusal(milan.report(), milan.endorsements(leaf=milan.leaf(**changes))) is Refusal.CHAIN
    assert refusal(milan.report(), milan.endorsements(authority=milan.authority(**changes))) is Refusal.CHAIN


@pytest.mark.parametrize("algorithm", [PSS_SHORT, PSS_LONG])
def test_both_of_the_vendors_ways_to_write_its_algorithm_are_read(
    verdict: Verdict, milan: Vendor, algorithm: bytes
) -> None:
    authority = resigned(authority_of(milan), milan.root_key, inside=algorithm, outside=algorithm)

    assert verdict(milan.report(), milan.endorsements(authority=authority)).kind == "snp"


@pytest.mark.parametrize("inside", [PSS_SHORT, PSS_LONG, PSS_SHA512])
@pytest.mark.parametrize("outside", [PSS_SHORT, PSS_LONG, PSS_SHA512])
def test_an_algorithm_other_than_the_one_that_signed_is_refused(
    refusal: Refuse, milan: Vendor, inside: bytes, outside: bytes
) -> None:
    if inside == outside != PSS_SHA512:
        return
    authority = resigned(authority_of(milan), milan.root_key, inside=inside, outside=outside)
    listed = resigned(milan.revocation_list(), milan.root_key, inside=inside, outside=outside)

    assert refusal(milan.report(), milan.endorsements(authority=authority)) is Refusal.CHAIN
    assert refusal(milan.report(), milan.endorsements(lists=(listed,))) in (Refusal.CHAIN, Refusal.MALFORMED)


def test_a_shorter_authority_key_is_refused(refusal: Refuse, milan: Vendor) -> None:
    short = rsa_key("short", 2048)
    endorsements = milan.endorsements(authority=milan.authority(key=short.public_key()), leaf=milan.leaf(signer=short))

    assert refusal(milan.report(), endorsements) is Refusal.CHAIN


WRONG_SIGNERS: dict[str, dict[str, str]] = {
    "the key by the root": {"leaf": "ours root"},
    "the key by a stranger": {"leaf": "a stranger root"},
    "the authority by itself": {"authority": "ours authority"},
    "the authority by a stranger": {"authority": "a stranger root"},
}


@pytest.mark.parametrize("signers", WRONG_SIGNERS.values(), ids=WRONG_SIGNERS)
def test_a_link_signed_by_another_key_is_refused(refusal: Refuse, milan: Vendor, signers: dict[str, str]) -> None:
    changes = {which: getattr(milan, which)(signer=rsa_key(name)) for which, name in signers.items()}

    assert refusal(milan.report(), milan.endorsements(**changes)) is Refusal.CHAIN


def test_a_key_issued_in_another_authoritys_name_is_refused(refusal: Refuse, milan: Vendor) -> None:
    leaf = milan.leaf(issuer="SEV-Naples")

    assert refusal(milan.report(), milan.endorsements(leaf=leaf)) is Refusal.CHAIN


@pytest.mark.parametrize("changes", [{"authority": 1}, {"authority": None}, {"key_cert_sign": False}])
def test_an_authority_that_may_not_sign_keys_or_may_sign_authorities_is_refused(
    refusal: Refuse, milan: Vendor, changes: dict[str, Any]
) -> None:
    assert refusal(milan.report(), milan.endorsements(authority=milan.authority(**changes))) is Refusal.CHAIN


def test_a_processors_key_issues_no_keys(refusal: Refuse, milan: Vendor) -> None:
    forged = milan.of(chip="forged")
    leaf, authority, _ = milan.endorsements().certificates
    below = forged.leaf(issuer="SEV-VCEK", signer=rsa_key("forged"))

    assert refusal(forged.report(), SnpEndorsements((below, leaf, authority))) is Refusal.ENDORSEMENTS_MISMATCH
    assert refusal(forged.report(), SnpEndorsements((below, leaf))) is Refusal.ENDORSEMENTS_MISSING


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()).public_key(), rsa_key("short", 2048).public_key()],
    ids=["P-256", "RSA"],
)
def test_a_key_that_is_not_p384_is_refused(refusal: Refuse, milan: Vendor, key: Any) -> None:
    assert refusal(milan.report(), milan.endorsements(leaf=milan.leaf(key=key))) is Refusal.CHAIN


def test_a_kind_of_key_that_no_processor_has_is_refused(refusal: Refuse, milan: Vendor) -> None:
    leaf = milan.leaf(key=ed25519.Ed25519PrivateKey.generate().public_key())

    assert refusal(milan.report(), milan.endorsements(leaf=leaf)) is Refusal.CHAIN


@pytest.mark.parametrize("kind", list(SigningKey))
def test_a_key_under_the_name_of_the_other_kind_is_refused(refusal: Refuse, milan: Vendor, kind: SigningKey) -> None:
    vendor = milan.of(kind=kind)
    for name in {"SEV-VCEK", "SEV-VLEK", "SEV-PEK", ""} - {f"SEV-{kind}"}:
        leaf = vendor.leaf(subject=name or "-")
        assert refusal(vendor.report(), vendor.endorsements(leaf=leaf)) is Refusal.ENDORSEMENTS_MISMATCH


def test_a_signature_that_claims_unused_bits_is_refused(refusal: Refuse, milan: Vendor) -> None:
    """Parsers take one whose last bit is said not to count, where that bit happens to be zero."""
    made = (milan.authority() for _ in range(100))
    der = next(one for one in made if one[-1] % 2 == 0)
    other = der[:-513] + b"\1" + der[-512:]
    assert der[-513] == 0
    assert x509.load_der_x509_certificate(other).signature == der[-512:]

    assert refusal(milan.report(), milan.endorsements(authority=other)) is Refusal.CHAIN


def test_a_chip_id_stands_bare_or_in_an_octet_string_and_in_no_other_form(
    verdict: Verdict, refusal: Refuse, milan: Vendor
) -> None:
    chip = CHIP[SnpProduct.MILAN]
    wrapped = milan.leaf(extensions={"4": tlv(0x04, chip)})
    assert verdict(milan.report(), milan.endorsements(leaf=wrapped)).platform_id == chip.hex()
    for other in (tlv(0x0C, chip), tlv(0x04, chip) + b"\0", tlv(0x04, chip[:-1]), tlv(0x04, chip + b"\0"), chip[:-1]):
        leaf = milan.leaf(extensions={"4": other})
        assert refusal(milan.report(), milan.endorsements(leaf=leaf)) in (
            Refusal.ENDORSEMENTS_MISMATCH,
            Refusal.MALFORMED,
        )


def test_a_critical_extension_that_is_not_understood_is_refused(refusal: Refuse, milan: Vendor) -> None:
    extra = (x509.NameConstraints([x509.DNSName("example.org")], None), True)

    assert refusal(milan.report(), milan.endorsements(authority=milan.authority(extra=extra))) is Refusal.CHAIN


# --- when ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["leaf", "authority"])
def test_each_window_is_open_from_its_first_to_its_last_second(
    verdict: Verdict, refusal: Refuse, milan: Vendor, which: str
) -> None:
    start, end = NOW - 100, NOW + 100
    endorsements = milan.endorsements(**{which: getattr(milan, which)(window=(start, end))})

    assert verdict(milan.report(), endorsements, now=start).kind == "snp"
    assert verdict(milan.report(), endorsements, now=end).claims["certificate_expires_at"] == end
    assert refusal(milan.report(), endorsements, now=start - 1) is Refusal.NOT_VALID_NOW
    assert refusal(milan.report(), endorsements, now=end + 1) is Refusal.NOT_VALID_NOW


def test_the_roots_own_window_counts_too(refusal: Refuse, milan: Vendor) -> None:
    long = (NOW - 9 * YEAR, NOW + 9 * YEAR)
    endorsements = milan.endorsements(leaf=milan.leaf(window=long), authority=milan.authority(window=long))

    for now in (NOW - YEAR - 1, NOW + YEAR + 1):
        assert refusal(milan.report(), endorsements, now=now) is Refusal.NOT_VALID_NOW


@pytest.mark.parametrize("now", [0, -1, 2**40])
def test_any_moment_can_be_asked_for(refusal: Refuse, milan: Vendor, now: int) -> None:
    assert refusal(milan.report(), milan.endorsements(), now=now) is Refusal.NOT_VALID_NOW
