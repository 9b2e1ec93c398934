"""Endorsements of a SEV-SNP report: the signing key's certificate, the certificates above it, revocation lists."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from coreason_enclave.attestation.verify.snp.der import INTEGER, split_signed
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

_MAX_FILE_BYTES = 256 * 1024
_MAX_CERTIFICATE_BYTES = 8 * 1024
_MAX_LIST_BYTES = 64 * 1024
_MAX_FILES = 8

_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----([A-Za-z0-9+/=\s]*)-----END \1-----\s*")


@dataclass(frozen=True)
class SnpEndorsements:
    """DER certificates (VCEK or VLEK, ASK or ASVK, optionally the ARK) in any order, and DER revocation lists."""

    certificates: tuple[bytes, ...]
    revocation_lists: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        for items, limit in ((self.certificates, _MAX_CERTIFICATE_BYTES), (self.revocation_lists, _MAX_LIST_BYTES)):
            if len(items) > _MAX_FILES or any(len(der) > limit for der in items):
                raise VerificationRefused(Refusal.OVERSIZED, "more or larger endorsements than SEV-SNP uses")

    @classmethod
    def from_files(cls, files: Iterable[bytes]) -> SnpEndorsements:
        """Sort the contents of files, each DER or PEM with one or more blocks; raises :class:`VerificationRefused`.

        A repeated certificate counts once.
        """
        items = dict.fromkeys(der for content in files for der in _unwrap(content))
        lists = {der for der in items if _is_list(der)}
        return cls(tuple(der for der in items if der not in lists), tuple(der for der in items if der in lists))


def _unwrap(content: bytes) -> list[bytes]:
    if len(content) > _MAX_FILE_BYTES:
        raise VerificationRefused(Refusal.OVERSIZED, f"{len(content)} bytes are not an endorsement of SEV-SNP")
    text = content.strip()
    if not text.startswith(b"-----BEGIN"):
        return [content]
    blocks = list(_PEM.finditer(text))
    if sum(len(block[0]) for block in blocks) != len(text):
        raise VerificationRefused(Refusal.MALFORMED, "PEM with something other than certificates and revocation lists")
    try:
        return [base64.b64decode(b"".join(block[2].split()), validate=True) for block in blocks]
    except binascii.Error as error:
        raise VerificationRefused(Refusal.MALFORMED, "PEM that is not base64") from error


def _is_list(der: bytes) -> bool:
    """Return True for a revocation list: its body begins with a bare INTEGER, a certificate's with a tagged version."""
    return [field.tag for field in split_signed(der).fields[:1]] == [INTEGER]
