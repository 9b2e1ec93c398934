"""Every byte of a quote and of its collateral counts, and so does whom it all belongs to.

The library takes another root certificate, so these quotes are whole ones under a root of our own.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from coreason_enclave.attestation.verify.dcap import DcapEndorsements, DcapPlatformPolicy, verify_sgx, verify_tdx
from coreason_enclave.attestation.verify.dcap.collateral import MAX_COLLATERAL_BYTES
from coreason_enclave.attestation.verify.dcap.quote import MAX_QUOTE_BYTES, parse_quote
from coreason_enclave.attestation.verify.verdict import VerificationRefused
from tests.coreason_enclave.attestation.dcap.hierarchy import HELLO, NOW, Intel, Pck, crl, issue, sgx_report, td_report

Verdict = Callable[..., str]


def quotes(sgx: Intel, tdx: Intel) -> Iterator[tuple[Intel, bytes]]:
    yield sgx, sgx.quote()
    yield tdx, tdx.quote()
    yield tdx, tdx.quote(version=5)
    yield tdx, tdx.quote(td_report(version_15=True), version=5)


def flips(data: bytes, *, every_bit: bool) -> Iterator[bytes]:
    """Each bit of each byte, or one bit of every seventh byte: a sample of every field."""
    for at in range(0, len(data), 1 if every_bit else 7):
        for bit in range(8) if every_bit else (at % 8,):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def assert_every_flip_is_refused(world: Intel, quote: bytes, *, every_bit: bool) -> None:
    endorsements = world.endorsements()
    world.verifier.verify(world.kind, quote, endorsements, DcapPlatformPolicy(), NOW)
    for flipped in flips(quote, every_bit=every_bit):
        with pytest.raises(VerificationRefused):
            world.verifier.verify(world.kind, flipped, endorsements, DcapPlatformPolicy(), NOW)


def test_quotes_of_every_version_are_authentic_as_they_were_made(sgx: Intel, tdx: Intel, verdict: Verdict) -> None:
    for world, quote in quotes(sgx, tdx):
        assert verdict(world, quote=quote, report_data=HELLO) == "authentic"


def test_flipped_bits_all_over_an_sgx_quote_are_refused(sgx: Intel) -> None:
    assert_every_flip_is_refused(sgx, sgx.quote(), every_bit=False)


def test_flipped_bits_all_over_a_tdx_quote_are_refused(tdx: Intel) -> None:
    assert_every_flip_is_refused(tdx, tdx.quote(td_report(version_15=True), version=5), every_bit=False)


@pytest.mark.slow
@pytest.mark.parametrize("which", range(4), ids=["sgx", "tdx-v4", "tdx-v5", "tdx-1.5"])
def test_every_flipped_bit_of_every_quote_is_refused(sgx: Intel, tdx: Intel, which: int) -> None:
    world, quote = list(quotes(sgx, tdx))[which]
    assert_every_flip_is_refused(world, quote, every_bit=True)


def test_flipped_bits_all_over_the_collateral_are_refused(tdx: Intel, verdict: Verdict) -> None:
    assert_damaged_collateral_is_refused(tdx, verdict, every_bit=False)


@pytest.mark.slow
def test_every_flipped_bit_of_the_collateral_is_refused(tdx: Intel, verdict: Verdict) -> None:
    assert_damaged_collateral_is_refused(tdx, verdict, every_bit=True)


def assert_damaged_collateral_is_refused(tdx: Intel, verdict: Verdict, *, every_bit: bool) -> None:
    document, quote = tdx.document(), tdx.quote()
    for name, value in document.items():
        binary = name.endswith(("_crl", "_signature"))
        for flipped in flips(bytes.fromhex(value) if binary else value.encode(), every_bit=every_bit):
            said = flipped.hex() if binary else flipped.decode("latin-1")
            endorsements = DcapEndorsements(json.dumps({**document, name: said}).encode())
            assert verdict(tdx, quote=quote, endorsements=endorsements) != "authentic", name


def test_a_quote_cut_anywhere_or_with_anything_behind_it_is_refused(sgx: Intel, tdx: Intel, verdict: Verdict) -> None:
    for world, quote in quotes(sgx, tdx):
        endorsements = world.endorsements()
        for end in range(len(quote)):
            assert verdict(world, quote=quote[:end], endorsements=endorsements) == "malformed"
        for tail in (b"\n", bytes(70) + b"\1", quote):
            assert verdict(world, quote=quote + tail, endorsements=endorsements) == "malformed"


def test_certificate_text_in_another_spelling_is_refused(sgx: Intel, verdict: Verdict) -> None:
    text = sgx.party("pck").pem + sgx.party("ca").pem + sgx.root.pem
    body = text.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n\n", 1)
    for spelling in (
        text + "\n",
        text[:-1],
        text.replace("\n", "\r\n"),
        "note\n" + text,
        text + text,
        body,
        "\n" + text,
    ):
        assert verdict(sgx, quote=sgx.quote(chain=spelling)) in {"malformed", "chain"}
    assert verdict(sgx, quote=sgx.quote(chain=text)) == "authentic"


def test_what_is_too_large_is_refused_unread(sgx: Intel, verdict: Verdict) -> None:
    assert verdict(sgx, quote=bytes(MAX_QUOTE_BYTES + 1)) == "oversized"
    assert verdict(sgx, endorsements=DcapEndorsements(b" " * (MAX_COLLATERAL_BYTES + 1))) == "oversized"


def test_a_quote_of_the_other_kind_is_refused(sgx: Intel, tdx: Intel, verdict: Verdict) -> None:
    assert verdict(sgx, kind="tdx") == "wrong_kind"
    assert verdict(tdx, kind="sgx") == "wrong_kind"


def test_other_report_data_than_asked_for_is_refused(sgx: Intel, verdict: Verdict) -> None:
    assert verdict(sgx, report_data=HELLO) == "authentic"
    for wrong in (bytes(64), HELLO[:-1], HELLO + b"\0", b"", HELLO[:32]):
        assert verdict(sgx, report_data=wrong) == "report_data"


def test_a_hierarchy_with_intels_names_but_other_keys_is_refused_by_the_product(sgx: Intel, tdx: Intel) -> None:
    for world, verify in ((sgx, verify_sgx), (tdx, verify_tdx)):
        with pytest.raises(VerificationRefused) as refused:
            verify(world.quote(), world.endorsements(), DcapPlatformPolicy(), NOW)
        assert refused.value.refusal.value == "chain"


def test_a_chain_and_collateral_of_another_root_are_refused(sgx: Intel, verdict: Verdict) -> None:
    other = Intel(kind="sgx")
    assert verdict(sgx, quote=other.quote()) == "chain"
    assert verdict(sgx, endorsements=other.endorsements()) == "chain"
    grafted = other.party("pck").pem + other.party("ca").pem + sgx.root.pem
    assert verdict(sgx, quote=other.quote(chain=grafted)) == "chain"


def test_the_report_of_one_platform_under_the_certificate_of_another_is_refused(sgx: Intel, verdict: Verdict) -> None:
    twin = sgx.changed(pck_says=Pck(ppid=bytes(16)))
    chain = twin.party("pck").pem + twin.party("ca").pem + twin.root.pem
    assert verdict(twin) == "authentic"
    assert verdict(sgx, quote=sgx.quote(chain=chain)) == "signature"


def test_a_body_under_the_signature_of_another_is_refused(sgx: Intel, verdict: Verdict) -> None:
    one, other = sgx.quote(), sgx.quote(sgx_report(report_data=bytes(64)))
    assert verdict(sgx, quote=one[:432] + other[432:]) == "signature"


def test_a_quoting_enclave_that_is_not_intels_is_refused(sgx: Intel, verdict: Verdict) -> None:
    """The report that certifies the attestation key has to be that of Intel's quoting enclave, and not in debug."""
    public_says = sgx.quote()[432 + 4 + 128 + 320 : 432 + 4 + 128 + 384]
    for qe in (
        sgx_report(attributes=0x15, report_data=public_says, signer=bytes(32), svn=8),
        sgx_report(attributes=0x17, report_data=public_says, signer=bytes(range(32)), svn=8),
    ):
        assert verdict(sgx, quote=sgx.quote(qe=qe)) in {"chain", "debug"}
    unbound = sgx_report(attributes=0x15, report_data=bytes(64), signer=bytes(range(32)), svn=8)
    assert verdict(sgx, quote=sgx.quote(qe=unbound)) == "signature"


def test_a_platforms_own_key_cannot_sign_tcb_info(sgx: Intel, verdict: Verdict) -> None:
    pck, ca = sgx.party("pck"), sgx.party("ca")
    signature = pck.sign(sgx.tcb_info().encode()).hex()
    for chain in (pck.pem + ca.pem + sgx.root.pem, pck.pem + sgx.root.pem, pck.pem + ca.pem):
        forged = sgx.endorsements(tcb_info_signature=signature, tcb_info_issuer_chain=chain)
        assert verdict(sgx, endorsements=forged) == "chain"


def test_a_revocation_list_by_anyone_but_its_issuer_is_refused(sgx: Intel, verdict: Verdict) -> None:
    stranger = issue("PCK Platform CA", sgx.root, depth=0)
    assert verdict(sgx, endorsements=sgx.endorsements(pck_crl=crl(stranger).hex())) == "chain"
    impostor = issue("Root CA", None, depth=1)
    assert verdict(sgx, endorsements=sgx.endorsements(root_ca_crl=crl(impostor).hex())) == "chain"


def test_a_signature_that_claims_unused_bits_is_refused(sgx: Intel, verdict: Verdict) -> None:
    """DER's count of unused bits stands before the signature, outside of what is signed, and some readers allow it."""
    ca, text = next(
        (ca, ca.der) for ca in iter(lambda: issue("PCK Platform CA", sgx.root, depth=0), None) if not ca.der[-1] & 1
    )
    at = len(text) - len(ca.certificate.signature) - 1
    odd = x509.load_der_x509_certificate(text[:at] + b"\1" + text[at + 1 :]).public_bytes(Encoding.PEM).decode()
    world = sgx.changed(made={**sgx.made, "ca": ca}, pck_says=Pck(ppid=b"\7" * 16))
    assert verdict(world) == "authentic"
    assert verdict(world, endorsements=world.endorsements(pck_crl_issuer_chain=odd + sgx.root.pem)) == "chain"
    assert verdict(world, quote=world.quote(chain=world.party("pck").pem + odd + sgx.root.pem)) == "chain"


def test_a_negative_serial_number_is_refused(sgx: Intel, verdict: Verdict) -> None:
    pck = sgx.party("pck")
    serial = pck.certificate.serial_number
    positive = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    negative = bytes([positive[0] | 0x80]) + positive[1:]
    der = pck.der.replace(positive, negative, 1)
    leaf = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
    assert verdict(sgx, quote=sgx.quote(chain=leaf + sgx.party("ca").pem + sgx.root.pem)) == "chain"


def test_collateral_for_another_platform_or_tee_is_refused(sgx: Intel, tdx: Intel, verdict: Verdict) -> None:
    elsewhere = sgx.changed(pck_says=Pck(fmspc=bytes(6)))
    assert verdict(sgx, endorsements=elsewhere.endorsements()) == "endorsements_mismatch"
    other_tee = sgx.changed(kind="tdx")
    assert verdict(sgx, endorsements=other_tee.endorsements()) == "endorsements_mismatch"
    assert verdict(sgx, quote=sgx.changed(pck_says=Pck(pce_id=b"\1\0")).quote()) == "endorsements_mismatch"
    processor = issue("PCK Processor CA", sgx.root, depth=0)
    assert verdict(sgx, endorsements=sgx.endorsements(pck_crl=crl(processor).hex())) == "endorsements_mismatch"
    assert verdict(tdx, quote=tdx.quote(), endorsements=DcapEndorsements()) == "endorsements_missing"


def test_collateral_that_brings_other_platform_certificates_is_refused(sgx: Intel, verdict: Verdict) -> None:
    own = sgx.party("pck").pem + sgx.party("ca").pem + sgx.root.pem
    assert verdict(sgx, endorsements=sgx.endorsements(pck_certificate_chain=own)) == "authentic"
    twin = sgx.changed(pck_says=Pck(ppid=bytes(16)))
    other = twin.party("pck").pem + twin.party("ca").pem + twin.root.pem
    assert verdict(sgx, endorsements=sgx.endorsements(pck_certificate_chain=other)) == "endorsements_mismatch"


def test_header_and_lengths_have_one_form(tdx: Intel, verdict: Verdict) -> None:
    quote = tdx.quote()
    signed = 48 + 584
    cases = {
        "version 3 of a TDX quote": (0, b"\3\0"),
        "another attestation key type": (2, b"\3\0"),
        "reserved bytes": (8, b"\1\0\0\0"),
        "another vendor": (12, bytes(16)),
        "a signature shorter than it is": (signed, b"\1\0\0\0"),
        "a signature of four gigabytes": (signed, b"\xff\xff\xff\xff"),
        "certification data of another type": (signed + 4 + 128, b"\5\0"),
    }
    for what, (at, value) in cases.items():
        assert verdict(tdx, quote=quote[:at] + value + quote[at + len(value) :]) == "malformed", what


def test_a_version_that_its_tee_does_not_have_is_malformed(sgx: Intel, tdx: Intel, verdict: Verdict) -> None:
    for world, version in ((sgx, 2), (sgx, 4), (tdx, 3), (tdx, 6)):
        assert verdict(world, quote=world.quote(version=version)) == "malformed"


def test_a_body_says_its_type_and_size_in_one_way(tdx: Intel, verdict: Verdict) -> None:
    genuine = tdx.quote(version=5)
    assert struct.unpack("<HI", genuine[48:54]) == (2, 584)
    for kind, size in ((1, 384), (2, 648), (3, 584), (3, 648), (0, 0), (2, 0), (2, (1 << 32) - 1)):
        changed = genuine[:48] + struct.pack("<HI", kind, size) + genuine[54:]
        with pytest.raises(VerificationRefused) as refused:
            parse_quote(changed)
        assert (refused.value.refusal, verdict(tdx, quote=changed)) == ("malformed", "malformed")


@pytest.mark.parametrize("size", [0, 16, 33])
def test_the_quoting_enclaves_authentication_data_have_one_length(sgx: Intel, size: int) -> None:
    genuine, usual = sgx.quote(), struct.pack("<H", 32) + bytes(range(32))
    at, (length,) = genuine.index(usual), struct.unpack("<I", genuine[432:436])
    assert parse_quote(genuine).kind == "sgx"
    other = struct.pack("<H", size) + bytes(size)
    changed = genuine[:432] + struct.pack("<I", length + size - 32) + genuine[436:at] + other + genuine[at + 34 :]
    with pytest.raises(VerificationRefused, match="authentication data has to be 32 bytes"):
        parse_quote(changed)
