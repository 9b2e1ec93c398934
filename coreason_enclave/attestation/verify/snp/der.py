"""Minimal DER reader: finds the signed bytes and the algorithm before a library reads certificates and lists."""

from __future__ import annotations

from dataclasses import dataclass

from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

INTEGER, BIT_STRING, SEQUENCE = 0x02, 0x03, 0x30

# rsassaPss with SHA-384, MGF1 over SHA-384 and a salt of 48 bytes. AMD spells the default trailer out (ARK, ASK, older
# VCEK) or leaves it out (newer VCEK), and uses no other encoding.
_PSS_PARAMETERS = (
    "a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
)
_PSS_SHA384 = (
    bytes.fromhex("304106092a864886f70d01010a3034" + _PSS_PARAMETERS),
    bytes.fromhex("304606092a864886f70d01010a3039" + _PSS_PARAMETERS + "a303020101"),
)
_SIGNATURE_BYTES = 512


@dataclass(frozen=True)
class Element:
    """A DER element: tag, content, and the whole encoding of both."""

    tag: int
    content: bytes
    whole: bytes


@dataclass(frozen=True)
class SignedDer:
    """X.509's ``SIGNED``.

    Attributes:
        body: The bytes under the signature.
        fields: The elements inside the body.
    """

    body: bytes
    fields: tuple[Element, ...]
    algorithm: bytes
    signature: bytes


def read_element(data: bytes, start: int = 0) -> Element:
    """Return the element at ``start``; raises :class:`VerificationRefused` for an indefinite or non-minimal length."""
    if len(data) < start + 2 or data[start] & 0x1F == 0x1F:
        raise _malformed("the data ends too early or has a long tag")
    at, length = start + 2, data[start + 1]
    if length >= 0x80:
        count = length & 0x7F
        octets = data[at : at + count]
        at, length = at + count, int.from_bytes(octets)
        if not 1 <= count <= 3 or len(octets) != count or length < 0x80 or octets[0] == 0:
            raise _malformed("a length is indefinite, not minimal or too large")
    if len(data) < at + length:
        raise _malformed("the data ends too early")
    return Element(data[start], data[at : at + length], data[start : at + length])


def elements(content: bytes) -> tuple[Element, ...]:
    """Return all elements of a constructed content, which they must fill without a gap."""
    parsed: list[Element] = []
    at = 0
    while at < len(content):
        parsed.append(read_element(content, at))
        at += len(parsed[-1].whole)
    return tuple(parsed)


def small_integer(encoded: bytes) -> int:
    """Return the value of an INTEGER from 0 to 255 that fills ``encoded``; raises :class:`VerificationRefused`."""
    value = read_element(encoded)
    number = int.from_bytes(value.content)
    minimal = bytes([number]) if number < 0x80 else number.to_bytes(2) if number <= 0xFF else b""
    if value.tag != INTEGER or value.whole != encoded or not value.content or value.content != minimal:
        raise _malformed("a number is not an INTEGER from 0 to 255")
    return number


def split_signed(der: bytes) -> SignedDer:
    """Split a certificate or revocation list without trailing bytes; raises :class:`VerificationRefused`.

    Refuses with ``chain`` any signature but AMD's kind: 4096-bit RSASSA-PSS with SHA-384.
    """
    outer = read_element(der)
    parts = elements(outer.content)
    if outer.tag != SEQUENCE or outer.whole != der or len(parts) != 3 or parts[0].tag != SEQUENCE:
        raise _malformed("the data is not exactly one certificate or revocation list")
    body, algorithm, signature = parts
    if algorithm.whole not in _PSS_SHA384 or signature.tag != BIT_STRING:
        raise VerificationRefused(Refusal.CHAIN, "an endorsement is not signed with RSASSA-PSS and SHA-384, like AMD's")
    if len(signature.content) != 1 + _SIGNATURE_BYTES or signature.content[0] != 0:
        raise VerificationRefused(Refusal.CHAIN, "an endorsement's signature is not that of a 4096-bit RSA key")
    return SignedDer(body.whole, elements(body.content), algorithm.whole, signature.content[1:])


def _malformed(what: str) -> VerificationRefused:
    return VerificationRefused(Refusal.MALFORMED, f"an endorsement is not valid DER: {what}")
