"""Single vendor statements (items), each with the name under which bundles, caches and services find the item.

::

    dcap/<sgx|tdx>-<FMSPC>-<platform|processor>.json    Intel's collateral, as dcap-qvl and PCCS clients write it
    snp/<product>/vcek/<chip id>-<reported TCB>.der     the certificate of one chip's key (TCB_VERSION as in the report)
    snp/<product>/vlek/<reported TCB>.der               the certificate of a cloud provider's key
    snp/<product>/<vcek|vlek>_chain.pem                 ASK (or ASVK) and ARK
    snp/<product>/<vcek|vlek>.crl                       the revocation list of that line
    nvidia/manifests/<manifest id>.xml                  a signed reference integrity manifest
    nvidia/ocsp/<SHA-256 of the certificate>.der        the responder's answer about one certificate

Hex digits are in lower case throughout.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from coreason_enclave.attestation.verify import (
    Chain,
    Refusal,
    VerificationRefused,
    canonical_base64,
    load_der,
    refusing,
)
from coreason_enclave.attestation.verify.dcap import read_collateral
from coreason_enclave.attestation.verify.snp import (
    LINES,
    SigningKey,
    SnpEndorsements,
    SnpProduct,
    read_certificate,
    read_key_claims,
    readable,
)
from coreason_enclave.crypto import (
    load_ocsp_response,
    load_pem_certificates,
    load_revocation_list,
    parse_json,
    sha256_hex,
)
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.system import unix_seconds

MAX_ITEM_BYTES = 1 << 20
"""Maximum size of an item, in bytes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Item(ABC):
    """A single statement of a vendor."""

    @abstractmethod
    def _parts(self) -> tuple[str, ...]:
        """Return the folders and the file name of :attr:`name`."""

    @abstractmethod
    def is_current(self, content: bytes, now: int) -> bool:
        """Return True if all of ``content`` states validity at ``now`` (Unix seconds).

        Reads without trust; the verifier checks the signature.

        Raises:
            VerificationRefused: The content is unreadable, or about another object.
        """

    @property
    def name(self) -> str:
        """The path below the folder of a bundle or cache; raises :class:`VerificationRefused` for an unsafe path.

        The parts come from unverified evidence.
        """
        parts = self._parts()
        if not all(_NAME.fullmatch(part) for part in parts):
            raise VerificationRefused(Refusal.MALFORMED, "the report does not identify its platform")
        return "/".join(parts)


@dataclass(frozen=True)
class DcapCollateral(Item):
    """Intel's collateral for one kind of processor package.

    Attributes:
        tee: ``sgx`` or ``tdx``.
        authority: ``platform`` or ``processor``.
    """

    tee: str
    fmspc: str
    authority: str

    def _parts(self) -> tuple[str, ...]:
        return "dcap", f"{self.tee}-{self.fmspc}-{self.authority}.json"

    def is_current(self, content: bytes, now: int) -> bool:
        """See :meth:`Item.is_current`."""
        collateral = read_collateral(content, _claimed_root(content))
        stated = str(collateral.tcb_info.get("id")).lower(), str(collateral.tcb_info.get("fmspc")).lower()
        if stated != (self.tee, self.fmspc):
            raise _about_another(self)
        try:
            collateral.refuse_outside_validity((), now)
        except VerificationRefused as error:
            if error.refusal is Refusal.NOT_VALID_NOW:
                return False
            raise
        return True


@dataclass(frozen=True)
class SnpKeyCertificate(Item):
    """The certificate of the key that signed a report.

    Attributes:
        tcb: Reported TCB_VERSION in the report's layout, hex.
        chip_id: Chip id in the spelling of KDS, hex; None for a VLEK.
    """

    product: SnpProduct
    tcb: str
    chip_id: str | None

    def _parts(self) -> tuple[str, ...]:
        if self.chip_id is None:
            return "snp", self.product.value, "vlek", f"{self.tcb}.der"
        return "snp", self.product.value, "vcek", f"{self.chip_id}-{self.tcb}.der"

    def is_current(self, content: bytes, now: int) -> bool:
        """See :meth:`Item.is_current`."""
        certificate = read_certificate(content)
        claims = read_key_claims(certificate, self.product)
        chip_id = None if self.chip_id is None else bytes.fromhex(self.chip_id).ljust(64, b"\0")
        if (claims.tcb.hex(), claims.chip_id) != (self.tcb, chip_id):
            raise _about_another(self)
        if not LINES[self.product].has_name(claims.product_name):
            raise _about_another(self)
        return certificate.not_before <= now <= certificate.not_after


@dataclass(frozen=True)
class SnpAuthorities(Item):
    """ASK (or ASVK) and ARK of a product line."""

    product: SnpProduct
    key: SigningKey

    def _parts(self) -> tuple[str, ...]:
        return "snp", self.product.value, f"{self.key.value.lower()}_chain.pem"

    def is_current(self, content: bytes, now: int) -> bool:
        """See :meth:`Item.is_current`."""
        read = [read_certificate(der) for der in SnpEndorsements.from_files([content]).certificates]
        if not read or not all(one.is_authority for one in read):
            raise _about_another(self)
        return all(one.not_before <= now <= one.not_after for one in read)


@dataclass(frozen=True)
class SnpRevocationList(Item):
    """AMD's revocation list of a product line."""

    product: SnpProduct
    key: SigningKey

    def _parts(self) -> tuple[str, ...]:
        return "snp", self.product.value, f"{self.key.value.lower()}.crl"

    def is_current(self, content: bytes, now: int) -> bool:
        """See :meth:`Item.is_current`."""
        lists = SnpEndorsements.from_files([content]).revocation_lists
        if len(lists) != 1:
            raise _about_another(self)
        with readable("a revocation list"):
            crl = load_revocation_list(lists[0])
            return _within(now, crl.last_update_utc, crl.next_update_utc)


@dataclass(frozen=True)
class NvidiaManifest(Item):
    """A reference integrity manifest under NVIDIA's id, such as ``NV_GPU_DRIVER_GH100_550.144.03``."""

    manifest_id: str

    def _parts(self) -> tuple[str, ...]:
        return "nvidia", "manifests", f"{self.manifest_id}.xml"

    def is_current(self, content: bytes, now: int) -> bool:
        """See :meth:`Item.is_current`."""
        chain = manifest_chain(content)
        return all(_within(now, one.not_valid_before_utc, one.not_valid_after_utc) for one in chain)


@dataclass(frozen=True)
class NvidiaOcsp(Item):
    """The responder's answer about ``certificate``, issued by ``issuer``."""

    certificate: x509.Certificate
    issuer: x509.Certificate

    def _parts(self) -> tuple[str, ...]:
        return "nvidia", "ocsp", f"{sha256_hex(self.certificate.public_bytes(Encoding.DER))}.der"

    def is_current(self, content: bytes, now: int) -> bool:
        """See :meth:`Item.is_current`."""
        with refusing(Refusal.MALFORMED, "not an OCSP answer"):
            answer = load_ocsp_response(content)
            if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
                raise ValueError(answer.response_status.name)
            responses = [one for one in answer.responses if one.serial_number == self.certificate.serial_number]
            if not responses:
                raise _about_another(self)
            return all(_within(now, one.this_update_utc, one.next_update_utc) for one in responses)


def manifest_chain(content: bytes) -> Chain:
    """Return the certificates in a manifest, leaf first. Verifies no signature.

    Raises:
        VerificationRefused: The manifest is unreadable, or the XML library is missing.
    """
    try:
        from coreason_enclave.attestation.verify.rim import parse_untrusted
    except ImportError as error:
        message = f"reading manifests needs {error.name}: install the extra 'attestation'"
        raise VerificationRefused(Refusal.LIBRARY_MISSING, message) from error
    _, document = parse_untrusted(content)
    certificates = document.iter("{http://www.w3.org/2000/09/xmldsig#}X509Certificate")
    texts = [(element.text or "").encode() for element in certificates]
    if len(texts) not in _MANIFEST_CERTIFICATES:
        raise VerificationRefused(Refusal.CHAIN, f"a manifest contains {len(texts)} certificates")
    return tuple(load_der(canonical_base64(text, "a manifest's certificate"), "a manifest's") for text in texts)


_MANIFEST_CERTIFICATES = range(2, 9)


def _claimed_root(content: bytes) -> bytes:
    """Return the root (DER) at the end of the collateral's own chain: good enough for reading, never for trust."""
    try:
        text = parse_json(content)["pck_crl_issuer_chain"]
        return load_pem_certificates(text.encode())[-1].public_bytes(Encoding.DER)
    except (EnvelopeError, KeyError, AttributeError, ValueError, IndexError) as error:
        raise VerificationRefused(Refusal.MALFORMED, "the DCAP collateral is unusable") from error


def _within(now: int, first: datetime, last: datetime | None) -> bool:
    return last is not None and unix_seconds(first) <= now <= unix_seconds(last)


def _about_another(item: Item) -> VerificationRefused:
    message = f"the file found as {item.name} has other content, or belongs to another platform"
    return VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, message)
