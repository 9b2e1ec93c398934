"""Verify a manifest's XML signature, in the single form that NVIDIA uses (XML Signature 1.1, enveloped).

An XML signature lets its author choose the signed part, the transforms and the place of the key. Each choice has been
an attack (McIntosh and Austel, 2005; Somorovsky et al., 2012). This module leaves no choice:

- The signature is the last child of the root.
- The signature covers the whole document, in one canonical form, with one algorithm.
- The certificates lead to the pinned root.
- Content comes only from the hashed bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from coreason_enclave.attestation.verify.nvidia_chain import (
    Chain,
    canonical_base64,
    load_der,
    public_key,
    verify_path,
)
from coreason_enclave.attestation.verify.rim.xml import hardened_parser, parse_untrusted
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.system import as_datetime

_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_XML = "{http://www.w3.org/XML/1998/namespace}"
_C14N = {"Algorithm": "http://www.w3.org/2006/12/xml-c14n11"}
_WHITE = " \t\r\n"
_CERTIFICATES = range(2, 9)


@dataclass(frozen=True)
class _Form:
    """The only accepted form of an element. ``text``: the element holds text and no children."""

    name: str
    attributes: tuple[tuple[str, str], ...] = ()
    children: tuple[_Form, ...] = ()
    text: bool = False


def _algorithm(name: str, uri: str) -> _Form:
    return _Form(name, (("Algorithm", uri),))


_TRANSFORMS = (
    _algorithm("Transform", "http://www.w3.org/2000/09/xmldsig#enveloped-signature"),
    _algorithm("Transform", _C14N["Algorithm"]),
)
_REFERENCE = (
    _Form("Transforms", children=_TRANSFORMS),
    _algorithm("DigestMethod", "http://www.w3.org/2001/04/xmldsig-more#sha384"),
    _Form("DigestValue", text=True),
)
_SIGNED_INFO = (
    _algorithm("CanonicalizationMethod", _C14N["Algorithm"]),
    _algorithm("SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"),
    _Form("Reference", (("URI", ""),), _REFERENCE),
)


def _signature_form(certificates: int) -> _Form:
    key_info = _Form("X509Data", children=(_Form("X509Certificate", text=True),) * certificates)
    children = (
        _Form("SignedInfo", children=_SIGNED_INFO),
        _Form("SignatureValue", text=True),
        _Form("KeyInfo", children=(key_info,)),
    )
    return _Form("Signature", children=children)


@dataclass(frozen=True)
class Signed:
    """A verified document.

    Attributes:
        content: The root element as signed, without the signature.
        chain: The signer's certificates.
    """

    content: etree._Element
    chain: Chain


def open_signed(data: bytes, root: x509.Certificate, now: int) -> Signed:
    """Verify a signed document and return its signed part.

    Raises:
        VerificationRefused: ``oversized``, ``malformed``, ``chain``, ``not_valid_now`` or ``signature``.
    """
    body, document = parse_untrusted(data)
    chain = _certificates(_only_signature(document))
    verify_path(chain, root, now, "a reference manifest")
    return Signed(_verify(body, chain[0], now), chain)


def _only_signature(document: etree._Element) -> etree._Element:
    """Return the only signature, in its place and form; refuse any part of another signature."""
    signature = document[-1] if len(document) else None
    if signature is None or signature.tag != f"{_DS}Signature":
        raise VerificationRefused(Refusal.MALFORMED, "a manifest does not end with its signature")
    _check_form(signature, _signature_form(len(signature.findall(f"{_DS}KeyInfo/{_DS}X509Data/{_DS}X509Certificate"))))
    inside = set(signature.iter())
    for element in document.iter():
        if element not in inside and str(element.tag).startswith(_DS):
            raise VerificationRefused(Refusal.MALFORMED, "a manifest contains parts of a second signature")
        if any(name.startswith(_XML) for name in element.keys()):  # noqa: SIM118 - an element's keys, not a mapping's
            raise VerificationRefused(Refusal.MALFORMED, "a manifest uses xml: attributes")
    return signature


def _check_form(element: etree._Element, form: _Form) -> None:
    same = (
        element.tag == _DS + form.name
        and dict(element.attrib) == dict(form.attributes)
        and [child.tag for child in element] == [_DS + child.name for child in form.children]
        and (form.text or not (element.text or "").strip(_WHITE))
        and not (element.tail or "").strip(_WHITE)
    )
    if not same:
        raise VerificationRefused(Refusal.MALFORMED, f"the signature of a manifest: unexpected {form.name}")
    for child, expected in zip(element, form.children, strict=True):
        _check_form(child, expected)


def _certificates(signature: etree._Element) -> Chain:
    texts = _texts(signature, f"{_DS}KeyInfo/{_DS}X509Data/{_DS}X509Certificate")
    if len(texts) not in _CERTIFICATES:
        raise VerificationRefused(Refusal.CHAIN, f"a manifest contains {len(texts)} certificates")
    for path, length in ((f"{_DS}SignatureValue", 96), (f"{_DS}SignedInfo/{_DS}Reference/{_DS}DigestValue", 48)):
        (text,) = _texts(signature, path)
        if len(canonical_base64(text, "the signature of a manifest")) != length:
            raise VerificationRefused(Refusal.MALFORMED, "the signature of a manifest has the wrong length")
    return tuple(load_der(canonical_base64(text, "a manifest's certificate"), "a manifest's") for text in texts)


def _texts(signature: etree._Element, path: str) -> Sequence[bytes]:
    return [(element.text or "").encode() for element in signature.findall(path)]


def _verify(body: bytes, leaf: x509.Certificate, now: int) -> etree._Element:
    configuration = SignatureConfiguration(
        location="./",
        expect_references=1,
        signature_methods=frozenset({SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({DigestAlgorithm.SHA384}),
        verification_time=as_datetime(now),  # verify_path has checked the leaf's window
    )
    try:
        result = XMLVerifier().verify(body, x509_cert=leaf, parser=hardened_parser(), expect_config=configuration)
    except (SignXMLException, InvalidSignature, etree.LxmlError, ValueError) as error:
        raise VerificationRefused(Refusal.SIGNATURE, f"the signature of a manifest: {error}") from error
    if isinstance(result, list) or result.signed_xml is None or result.signature_key != _pem(leaf):
        raise VerificationRefused(Refusal.SIGNATURE, "the signature of a manifest covers other content")
    return result.signed_xml


def _pem(leaf: x509.Certificate) -> bytes:
    return public_key(leaf, "a manifest's leaf").public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
