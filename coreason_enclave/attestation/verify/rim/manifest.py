"""Read a manifest: a software identity tag (ISO/IEC 19770-2) with the measurements of one driver or firmware.

Format: TCG PC Client Reference Integrity Manifest, as NVIDIA fills it in: one ``Resource`` per measurement, with one or
more valid SHA-384 values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography import x509
from lxml import etree

from coreason_enclave.attestation.verify.nvidia_chain import Chain
from coreason_enclave.attestation.verify.rim.signature import open_signed
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

_ISO = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_SHA384 = "{http://www.w3.org/2001/04/xmlenc#sha384}"
_PLAIN = frozenset({"type", "index", "active", "alternatives", "name", "size"})
_HASH = re.compile(r"[0-9a-f]{96}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MEASUREMENTS = 64


@dataclass(frozen=True)
class Manifest:
    """A verified manifest.

    Attributes:
        tag_id: The manifest's own name.
        product: The chip, such as ``GH100``.
        version: Version of the described driver or firmware.
        measurements: Number (0 to 63) to the valid values, 48 bytes each; an unlisted measurement may have any value.
        chain: The signer's certificates, leaf first.
    """

    tag_id: str
    product: str
    version: str
    measurements: Mapping[int, frozenset[bytes]]
    chain: Chain


def verify_manifest_under(root: x509.Certificate, data: bytes, now: int) -> Manifest:
    """Read a manifest whose signature leads to ``root`` and is valid at ``now`` (Unix seconds).

    The product trusts only the pinned root, through
    :class:`~coreason_enclave.attestation.verify.nvidia.NvidiaVerifier`.

    Raises:
        VerificationRefused: ``oversized``, ``malformed``, ``chain``, ``not_valid_now`` or ``signature``.
    """
    signed = open_signed(data, root, now)
    tag = signed.content
    names = [child.tag for child in tag]
    if tag.tag != f"{_ISO}SoftwareIdentity" or names != [_ISO + name for name in ("Entity", "Meta", "Payload")]:
        raise _malformed("the document is not a software identity tag with Entity, Meta and Payload")
    _, meta, payload = tag
    measurements = dict(_measurements(payload))
    if not measurements:
        raise _malformed("the manifest lists no measurement, so that any report would match")
    return Manifest(
        tag_id=_attribute(tag, "tagId"),
        product=_attribute(meta, "product"),
        version=_attribute(meta, "colloquialVersion"),
        measurements=measurements,
        chain=signed.chain,
    )


def _measurements(payload: etree._Element) -> Iterator[tuple[int, frozenset[bytes]]]:
    seen: set[int] = set()
    for resource in payload:
        if resource.tag != f"{_ISO}Resource" or resource.get("type") != "Measurement" or len(resource):
            raise _malformed("the payload contains an element that is not a measurement")
        index = _number(resource, "index")
        if index in seen or index >= _MEASUREMENTS:
            raise _malformed(f"measurement {index} occurs twice, or is out of range")
        seen.add(index)
        values = _values(resource)
        if resource.get("active") not in ("True", "False"):
            raise _malformed(f"measurement {index} is neither active nor inactive")
        if resource.get("active") == "True":
            yield index, values


def _values(resource: etree._Element) -> frozenset[bytes]:
    count = _number(resource, "alternatives")
    hashes = [f"{_SHA384}Hash{number}" for number in range(count)]
    texts = [resource.get(name) or "" for name in hashes]
    if set(resource.keys()) != _PLAIN | set(hashes) or _number(resource, "size") != 48 or not texts:
        raise _malformed("a measurement has other attributes than its values")
    if not all(_HASH.fullmatch(text) for text in texts):
        raise _malformed("a measurement has a value that is not 96 lower-case hex digits")
    return frozenset(bytes.fromhex(text) for text in texts)


def _number(resource: etree._Element, name: str) -> int:
    text = resource.get(name) or ""
    if not _NUMBER.fullmatch(text):
        raise _malformed(f"{name} is not a number")
    return int(text)


def _attribute(element: etree._Element, name: str) -> str:
    text = element.get(name) or ""
    if not _WORD.fullmatch(text):
        raise _malformed(f"{name} is missing or not a word")
    return text


def _malformed(message: str) -> VerificationRefused:
    return VerificationRefused(Refusal.MALFORMED, f"a reference manifest: {message}")
