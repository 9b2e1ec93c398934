"""Manifests: what NVIDIA's one form of signature lets through, and the attacks that other forms would allow."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coreason_enclave.attestation.verify.nvidia_chain import canonical_base64
from coreason_enclave.attestation.verify.rim import Manifest, verify_manifest_under
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from tests.coreason_enclave.attestation.nvidia.hierarchy import (
    C14N,
    DRIVER_PART,
    DS,
    ENVELOPED,
    ISO,
    MEASUREMENTS,
    NOW,
    Key,
    Signing,
    driver_manifest,
    key,
    manifest,
    manifest_certificates,
    manifest_chain,
    resource,
    signed_manifest,
    tag,
)

GOOD = driver_manifest()
BODY = tag(DRIVER_PART)
EVIL = tag({32: (bytes(48),)})
SMALL = manifest({32: (MEASUREMENTS[32],)})


def verify(data: bytes, now: int = NOW) -> Manifest:
    return verify_manifest_under(manifest_chain()[-1], data, now)


def refusal(data: bytes, now: int = NOW) -> Refusal:
    with pytest.raises(VerificationRefused) as refused:
        verify(data, now)
    return refused.value.refusal


def signature_of(data: bytes) -> bytes:
    return data[data.index(b"<ds:Signature ") : data.index(b"</ds:Signature>") + len(b"</ds:Signature>")]


# --- what is accepted ---------------------------------------------------------------------------------------------


def test_a_manifest_says_what_was_signed() -> None:
    good = verify(GOOD)
    assert (good.tag_id, good.product, good.version) == ("8aa5c875", "GH100", "550.144.03")
    assert good.measurements == {number: frozenset(values) for number, values in DRIVER_PART.items()}
    assert good.chain == manifest_chain()


def test_inactive_measurements_are_not_listed() -> None:
    lines = resource(1, (MEASUREMENTS[1],)) + resource(2, (bytes(48),), "False")
    assert verify(signed_manifest(tag({}, payload=lines))).measurements.keys() == {1}


@pytest.mark.parametrize("declaration", ['<?xml version="1.0"?>\n', '<?xml version="1.0" encoding="UTF-8"?>', ""])
def test_an_xml_declaration_changes_nothing(declaration: str) -> None:
    assert verify(declaration.encode() + GOOD) == verify(GOOD)


# --- changes ------------------------------------------------------------------------------------------------------


def _accepted_after(data: bytes, flips: list[tuple[int, int]]) -> list[tuple[int, int]]:
    accepted = []
    for at, bit in flips:
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        try:
            verify(bytes(changed))
        except VerificationRefused:
            continue
        accepted.append((at, bit))
    return accepted


def test_no_byte_of_a_manifest_can_be_changed() -> None:
    """Certificates and signature too; one bit of every second byte, the other one elsewhere."""
    assert _accepted_after(SMALL, [(at, (at // 2) % 8) for at in range(0, len(SMALL), 2)]) == []


@pytest.mark.slow
def test_no_bit_of_a_manifest_can_be_changed() -> None:
    assert _accepted_after(SMALL, [(at, bit) for at in range(len(SMALL)) for bit in range(8)]) == []


def test_a_truncated_manifest_is_malformed() -> None:
    boundaries = [at for at in range(len(SMALL) - 1) if SMALL[at : at + 1] in b'<>" ']
    for at in [*boundaries, len(SMALL) - 2]:
        assert refusal(SMALL[:at]) is Refusal.MALFORMED


@pytest.mark.parametrize("more", [b"x", b"<a/>", SMALL, b"\0", b"<!-- -->", b"<?pi?>"])
def test_nothing_may_follow_or_precede_a_manifest(more: bytes) -> None:
    assert refusal(GOOD + more) is Refusal.MALFORMED
    assert refusal(more + GOOD) is Refusal.MALFORMED


def test_an_oversized_manifest_is_refused_unread() -> None:
    assert refusal(GOOD + b" " * (1 << 18)) is Refusal.OVERSIZED


# --- parsers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prologue",
    [
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
        '<!DOCTYPE a [<!ATTLIST Resource active CDATA "True">]>',
        '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>',
        "<!-- comment -->",
        '<?xml-stylesheet href="file:///etc/passwd"?>',
        '<?xml version="1.1"?>',
        '<?xml version="1.0" encoding="UTF-7"?>',
        '<?xml version="1.0" encoding="UTF-16"?>',
        '<?xml version="1.0" standalone="no"?>',
        "\ufeff",
    ],
)
def test_whatever_a_parser_could_be_fooled_by_is_refused_before_it_reads(prologue: str) -> None:
    assert refusal(prologue.encode() + GOOD) is Refusal.MALFORMED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("GH100", "&#71;H100"),
        ("NVIDIA Corporation", "&amp;"),
        ("NVIDIA Corporation", "NVIDIA Corporati\u00f6n"),
        ("  <ns0:Payload>", "  <!-- --><ns0:Payload>"),
        ("  <ns0:Payload>", "  <![CDATA[ ]]><ns0:Payload>"),
        ("  <ns0:Payload>", "  <?pi?><ns0:Payload>"),
        ("<ns0:Payload>", '<ns0:Payload xml:base="http://127.0.0.1/">'),
        ("<ns0:Payload>", '<ns0:Payload xml:space="preserve">'),
    ],
)
def test_references_comments_and_xml_attributes_are_refused_even_when_signed(old: str, new: str) -> None:
    escaped = "&" in new  # what is signed is what the reference stands for
    data = GOOD.decode().replace(old, new).encode() if escaped else signed_manifest(BODY.replace(old, new))
    assert refusal(data) is Refusal.MALFORMED


def test_a_manifest_nested_without_end_is_malformed() -> None:
    assert refusal(b"<a>" * 50_000) is Refusal.MALFORMED
    assert refusal(b"<a>" * 5_000 + b"</a>" * 5_000) is Refusal.MALFORMED


def test_a_manifest_that_would_take_long_to_canonicalise_is_refused_before() -> None:
    declared = " ".join(f'xmlns:n{number}="urn:{number}"' for number in range(33))
    assert refusal(signed_manifest(BODY.replace("<SoftwareIdentity", f"<SoftwareIdentity {declared}"))) is (
        Refusal.OVERSIZED
    )


def test_utf_16_is_not_read() -> None:
    assert refusal(GOOD.decode().encode("utf-16")) is Refusal.MALFORMED
    assert refusal(GOOD.decode().encode("utf-16-be")) is Refusal.MALFORMED


# --- wrapping: a genuine signature around, beside or inside something else -----------------------------------------


def test_a_genuine_manifest_inside_another_document_is_refused() -> None:
    inner = GOOD.decode().strip()
    end = "</SoftwareIdentity>"
    for outer in (
        f"<a>{inner}</a>",
        f"{EVIL}{inner}{end}",
        f"{EVIL}<ns0:Meta>{inner}</ns0:Meta>{end}",
        f'{EVIL}<ds:Signature xmlns:ds="{DS}"><ds:Object>{inner}</ds:Object></ds:Signature>{end}',
    ):
        assert refusal(outer.encode()) is Refusal.MALFORMED


def test_a_genuine_signature_under_another_document_is_refused() -> None:
    """The classical attack: the signature moves, and what it signed is hidden where only it looks."""
    signature = signature_of(GOOD).decode()
    end = "</SoftwareIdentity>"
    assert refusal(f"{EVIL}{signature}{end}".encode()) is Refusal.SIGNATURE
    hidden = signature.replace("</ds:KeyInfo>", f"</ds:KeyInfo><ds:Object>{BODY}{end}</ds:Object>")
    assert refusal(f"{EVIL}{hidden}{end}".encode()) is Refusal.MALFORMED
    assert refusal(f"{EVIL}<ns0:Payload>{BODY}{signature}{end}</ns0:Payload>{end}".encode()) is Refusal.MALFORMED


def test_a_second_signature_or_a_part_of_one_is_refused() -> None:
    signature = signature_of(GOOD).decode()
    for place in ("<ns0:Payload>", "  <ns0:Meta ", "<ns0:Entity "):
        for extra in (signature, f'<ds:KeyInfo xmlns:ds="{DS}"/>', f'<ds:Object xmlns:ds="{DS}"/>'):
            changed = BODY.replace(place, f"{extra}{place}" if place != "<ns0:Payload>" else f"{place}{extra}")
            assert refusal(signed_manifest(changed)) is Refusal.MALFORMED
    twice = GOOD.decode().replace("<ds:Signature ", f"{signature}<ds:Signature ")
    assert refusal(twice.encode()) is Refusal.MALFORMED


def test_a_signature_anywhere_but_at_the_end_is_refused() -> None:
    signature = signature_of(GOOD)
    rest = GOOD.replace(signature, b"")
    for moved in (
        rest.replace(b"  <ns0:Entity", signature + b"  <ns0:Entity"),
        rest.replace(b"</ns0:Payload>", signature + b"</ns0:Payload>"),
        rest,
    ):
        assert refusal(moved) is Refusal.MALFORMED


def test_text_hidden_in_or_after_the_signature_is_refused() -> None:
    for old, new in (
        (b"</ds:Signature>", b"</ds:Signature>x"),
        (b"</ds:SignedInfo>", b"</ds:SignedInfo>x"),
        (b"<ds:KeyInfo>", b"<ds:KeyInfo>x"),
        (b"<ds:Signature ", b'<ds:Signature Id="a" '),
        (b"<ds:KeyInfo>", b'<ds:KeyInfo Id="a">'),
        (b"<ds:SignatureValue>", b'<ds:SignatureValue Id="a">'),
        (b"<ds:X509Data>", b"<ds:X509Data><ds:X509SubjectName>x</ds:X509SubjectName>"),
    ):
        assert refusal(GOOD.replace(old, new)) is Refusal.MALFORMED


# --- forms of signature that a key of the vendor's could make, and that are refused all the same -------------------

ALTERNATIVES = [
    {"uri": "#payload"},
    {"uri": "http://127.0.0.1:9/other.xml"},
    {"uri": "file:///etc/passwd"},
    {"uri": "#xpointer(/)"},
    {"transforms": ()},
    {"transforms": (ENVELOPED,)},
    {"transforms": (C14N,)},
    {"transforms": (C14N, ENVELOPED)},
    {"transforms": (ENVELOPED, C14N, C14N)},
    {"transforms": (ENVELOPED, "http://www.w3.org/TR/1999/REC-xslt-19991116")},
    {"transforms": (ENVELOPED, "http://www.w3.org/TR/1999/REC-xpath-19991116", C14N)},
    {"transforms": (ENVELOPED, "http://www.w3.org/2002/06/xmldsig-filter2", C14N)},
    {"transforms": (ENVELOPED, "http://www.w3.org/2000/09/xmldsig#base64", C14N)},
    {"transforms": (ENVELOPED, "urn:unknown", C14N)},
    {"transforms": (ENVELOPED, "http://www.w3.org/2001/10/xml-exc-c14n#")},
    {"transforms": (ENVELOPED, f"{C14N}#WithComments")},
    {"canonical": "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"},
    {"canonical": f"{C14N}#WithComments"},
    {"method": "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"},
    {"method": "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha1"},
    {"method": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384"},
    {"method": "http://www.w3.org/2000/09/xmldsig#hmac-sha1"},
    {"digest_method": "http://www.w3.org/2001/04/xmlenc#sha256"},
    {"digest_method": "http://www.w3.org/2000/09/xmldsig#sha1"},
    {"extra": "<ds:Object></ds:Object>"},
    {"key_info": ""},
]


@pytest.mark.parametrize("changed", ALTERNATIVES)
def test_another_form_of_signature_is_refused(changed: dict[str, object]) -> None:
    assert refusal(signed_manifest(BODY, replace(Signing(), **changed))) is Refusal.MALFORMED  # type: ignore[arg-type]


def _hmac_with_the_public_key(_: Key, message: bytes) -> bytes:
    public = manifest_chain()[0].public_bytes(Encoding.PEM)
    return hmac.digest(public, message, "sha384")


def test_a_public_key_is_not_a_shared_secret() -> None:
    method = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha384"
    forged = replace(Signing(), method=method, make_signature=_hmac_with_the_public_key)
    assert refusal(signed_manifest(EVIL, forged)) is Refusal.MALFORMED
    posing = replace(Signing(), make_signature=lambda signer, message: _hmac_with_the_public_key(signer, message) * 2)
    assert refusal(signed_manifest(EVIL, posing)) is Refusal.SIGNATURE


def test_a_key_in_the_document_is_not_believed() -> None:
    der = key("mallory").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    encoded = base64.b64encode(der).decode()
    bare = f'<dsig11:DEREncodedKeyValue xmlns:dsig11="http://www.w3.org/2009/xmldsig11#">{encoded}</dsig11:DEREncodedKeyValue>'
    certificates = "".join(
        f"<ds:X509Certificate>{base64.b64encode(c.public_bytes(Encoding.DER)).decode()}</ds:X509Certificate>"
        for c in manifest_chain()
    )
    for key_info in (bare, f"{bare}<ds:X509Data>{certificates}</ds:X509Data>"):
        forged = replace(Signing(), signer="mallory", key_info=key_info)
        assert refusal(signed_manifest(EVIL, forged)) is Refusal.MALFORMED


def test_a_genuine_chain_does_not_lend_its_trust_to_another_key() -> None:
    assert refusal(signed_manifest(EVIL, replace(Signing(), signer="mallory"))) is Refusal.SIGNATURE
    mallory = replace(manifest_certificates()[0], owner="mallory", signer="mallory").make()
    for certificates in (
        (mallory, *manifest_chain()),
        (mallory, *manifest_chain()[1:]),
        (*manifest_chain(), mallory),
        (mallory,),
        (),
    ):
        forged = replace(Signing(), signer="mallory", certificates=certificates)
        assert refusal(signed_manifest(EVIL, forged)) in (Refusal.CHAIN, Refusal.MALFORMED)


def test_der_in_the_place_of_two_numbers_is_refused() -> None:
    def der(signer: Key, message: bytes) -> bytes:
        return signer.sign(message, ec.ECDSA(hashes.SHA384()))

    assert refusal(signed_manifest(BODY, replace(Signing(), make_signature=der))) is Refusal.MALFORMED


def test_another_hash_under_the_name_of_the_right_one_is_refused() -> None:
    def weak(signer: Key, message: bytes) -> bytes:
        r, s = decode_dss_signature(signer.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(48) + s.to_bytes(48)

    assert refusal(signed_manifest(BODY, replace(Signing(), make_signature=weak))) is Refusal.SIGNATURE


def test_base64_has_one_spelling() -> None:
    text = signature_of(GOOD)
    start = text.index(b"<ds:SignatureValue>") + len(b"<ds:SignatureValue>")
    for changed in (
        text[:start] + b"*" + text[start:],
        text[:start] + b" " + text[start:],
        text[:start] + b"=" + text[start:],
    ):
        assert refusal(GOOD.replace(text, changed)) is Refusal.MALFORMED
    assert canonical_base64(b"QQ=\n=\n", "a letter") == base64.b64decode(b"QR==") == b"A"
    for other in (b"QR==", b"QQ", b"Q Q==", b"QQ==QQ==", b"\xff"):
        with pytest.raises(VerificationRefused):
            canonical_base64(other, "a letter")


# --- certificates -------------------------------------------------------------------------------------------------


def _chain_with(index: int, **changed: object) -> tuple[x509.Certificate, ...]:
    made = list(manifest_chain())
    made[index] = replace(manifest_certificates()[index], **changed).make()  # type: ignore[arg-type]
    return tuple(made)


@pytest.mark.parametrize(
    "certificates",
    [
        _chain_with(3),
        _chain_with(0, signer="mallory"),
        _chain_with(0, ca=True),
        _chain_with(0, signs_documents=False),
        _chain_with(1, ca=False),
        _chain_with(2, path_length=0),
        _chain_with(2, signer="mallory"),
        manifest_chain()[:-1],
        manifest_chain()[::-1],
        (manifest_chain()[0], manifest_chain()[2], manifest_chain()[1], manifest_chain()[3]),
    ],
)
def test_a_chain_that_is_wrong_somewhere_is_refused(certificates: tuple[x509.Certificate, ...]) -> None:
    assert refusal(signed_manifest(BODY, replace(Signing(), certificates=certificates))) is Refusal.CHAIN


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_manifest_is_valid_only_inside_the_window_of_each_certificate(index: int) -> None:
    narrow = signed_manifest(BODY, replace(Signing(), certificates=_chain_with(index, first=NOW - 9, last=NOW + 9)))
    for now in (NOW - 9, NOW, NOW + 9):
        assert verify(narrow, now).product == "GH100"
    for now in (NOW - 10, NOW + 10, 0, -(10**15), 10**15):
        assert refusal(narrow, now) is Refusal.NOT_VALID_NOW


def test_the_verdict_does_not_depend_on_the_clock_of_the_machine() -> None:
    """Long past and far future moments give the answer that they gave, or will give."""
    for moment in (1_000_000_000, 4_000_000_000):
        aged = tuple(replace(part, first=moment - 9, last=moment + 9).make() for part in manifest_certificates())
        data = signed_manifest(BODY, replace(Signing(), certificates=aged))
        assert verify_manifest_under(aged[-1], data, moment).product == "GH100"


# --- content ------------------------------------------------------------------------------------------------------

LINE = resource(1, (MEASUREMENTS[1],))


@pytest.mark.parametrize(
    "payload",
    [
        LINE + LINE,
        LINE + "<ns0:Other/>",
        LINE.replace('"Measurement"', '"MinSvn"'),
        LINE.replace('index="1"', 'index="64"'),
        LINE.replace('index="1"', 'index="-1"'),
        LINE.replace('index="1"', 'index="01"'),
        LINE.replace('index="1"', ""),
        LINE.replace('active="True"', 'active="true"'),
        LINE.replace('size="48"', 'size="32"'),
        LINE.replace('alternatives="1"', 'alternatives="2"'),
        LINE.replace('alternatives="1"', 'alternatives="0"'),
        LINE.replace("ns2:Hash0", "Hash0"),
        LINE.replace('ns2:Hash0="', 'ns2:Hash0="00'),
        LINE.replace(MEASUREMENTS[1].hex(), MEASUREMENTS[1].hex().upper()),
        LINE.replace("/>", ' more="x"/>'),
        LINE.replace("/>", "><ns0:Resource/></ns0:Resource>"),
        LINE + LINE.replace('index="1"', 'index="2"').replace('active="True"', 'active="true"'),
        LINE + '<ns0:Resource type="Measurement" index="2" active="True" alternatives="0" name="x" size="48"/>',
    ],
)
def test_content_that_this_reader_does_not_understand_is_refused_although_signed(payload: str) -> None:
    assert refusal(signed_manifest(tag({}, payload=payload))) is Refusal.MALFORMED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SoftwareIdentity xmlns", "ns0:SoftwareIdentity xmlns"),
        (f'xmlns:ns0="{ISO}"', 'xmlns:ns0="urn:other"'),
        (f'xmlns="{ISO}"', 'xmlns="urn:other"'),
        ("ns0:Meta", "ns0:Mata"),
        (' product="GH100"', ""),
        ('colloquialVersion="550.144.03"', 'colloquialVersion=""'),
        ('tagId="8aa5c875"', 'tagId="a b"'),
        ('<ns0:Entity name="NVIDIA Corporation" role="creator"/>', ""),
    ],
)
def test_a_tag_in_another_form_is_refused_although_signed(old: str, new: str) -> None:
    body = BODY.replace(old, new, 1)
    assert body != BODY
    if new.startswith("ns0:Soft"):
        data = GOOD.replace(b"SoftwareIdentity", b"SoftwareIdentitx")
        assert refusal(data) is Refusal.SIGNATURE
        return
    assert refusal(signed_manifest(body)) is Refusal.MALFORMED


def test_digests_are_of_what_stands_there() -> None:
    assert hashlib.sha384(b"\x20").digest() == MEASUREMENTS[32]
    assert refusal(GOOD.replace(MEASUREMENTS[32].hex().encode(), bytes(48).hex().encode())) is Refusal.SIGNATURE
