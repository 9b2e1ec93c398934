"""Parse unverified XML: no entities, no document type, no network, one encoding, bounded size.

NVIDIA's manifests are plain ASCII without comments or references. A manifest with either is refused before a parser
sees the bytes.
"""

from __future__ import annotations

import re

from lxml import etree

from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

MAX_BYTES = 256 * 1024
MAX_NAMESPACES = 32
"""Maximum number of namespace declarations. NVIDIA's manifests have six.

The work of canonical XML grows with the square of the number.
"""

_DECLARATION = re.compile(
    rb"""<\?xml version=(?:"1\.0"|'1\.0')(?: encoding=(?:"(?:UTF-8|utf-8)"|'(?:UTF-8|utf-8)'))?\s*\?>\s*"""
)
_FORBIDDEN = (
    (b"<!", "a document type, comment or CDATA section"),
    (b"<?", "a processing instruction"),
    (b"&", "a reference"),
)


def parse_untrusted(data: bytes) -> tuple[bytes, etree._Element]:
    """Return the document without its XML declaration, and its root; raises :class:`VerificationRefused`."""
    if len(data) > MAX_BYTES:
        raise VerificationRefused(Refusal.OVERSIZED, f"a manifest of {len(data)} bytes is larger than {MAX_BYTES}")
    declaration = _DECLARATION.match(data)
    body = data[declaration.end() :] if declaration else data
    if not body.isascii() or b"\0" in body or not body.startswith(b"<"):
        raise VerificationRefused(Refusal.MALFORMED, "a manifest is not an XML document in ASCII")
    for text, name in _FORBIDDEN:
        if text in body:
            raise VerificationRefused(Refusal.MALFORMED, f"a manifest contains {name}")
    if body.count(b"xmlns") > MAX_NAMESPACES:
        raise VerificationRefused(Refusal.OVERSIZED, f"a manifest declares more than {MAX_NAMESPACES} namespaces")
    try:
        return body, etree.fromstring(body, parser=hardened_parser())
    except etree.XMLSyntaxError as error:
        raise VerificationRefused(Refusal.MALFORMED, f"a manifest is not well-formed XML: {error}") from None


def hardened_parser() -> etree.XMLParser:
    """Return a parser that resolves, fetches, repairs and drops nothing."""
    return etree.XMLParser(
        encoding="ascii",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        remove_blank_text=False,
        remove_comments=False,
        remove_pis=False,
        collect_ids=False,
    )
