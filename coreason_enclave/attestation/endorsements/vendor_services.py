"""Fetch endorsements from the vendors' own services.

Written from published interfaces: AMD 57230 (KDS interface), Intel's PCS API version 4, NVIDIA's RIM service and OCSP
responder as nvtrust uses them. Tested against a local server with these formats, never yet against the vendors'
services.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from coreason_enclave.attestation.endorsements.collateral import (
    DcapCollateral,
    Item,
    NvidiaManifest,
    NvidiaOcsp,
    SnpAuthorities,
    SnpKeyCertificate,
    SnpRevocationList,
)
from coreason_enclave.attestation.endorsements.http import HttpPort, HttpReply
from coreason_enclave.attestation.endorsements.sources import ItemwiseSource, missing
from coreason_enclave.attestation.verify import Refusal, VerificationRefused
from coreason_enclave.attestation.verify.snp import decode_tcb
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnvelopeError

_SPL = {"boot_loader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL", "fmc": "fmcSPL"}
_SIGNED_PART = r'\s*\{{\s*"{name}"\s*:\s*(\{{.*\}})\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{{128}})"\s*\}}\s*'


@dataclass(frozen=True)
class Addresses:
    """Base addresses of the services."""

    amd: str = "https://kdsintf.amd.com"
    intel: str = "https://api.trustedservices.intel.com"
    intel_certificates: str = "https://certificates.trustedservices.intel.com"
    nvidia_manifests: str = "https://rim.attestation.nvidia.com"
    nvidia_ocsp: str = "https://ocsp.ndis.nvidia.com"


class FetchedEndorsements(ItemwiseSource):
    """A source that asks the vendors through ``http``."""

    def __init__(self, http: HttpPort, addresses: Addresses | None = None) -> None:
        self._http = http
        self._at = addresses or Addresses()

    def get(self, item: Item, now: int) -> bytes:
        """See :meth:`ItemwiseSource.get`. Unreadable content (an error page, for example) counts as no answer."""
        content = self._fetched(item)
        try:
            item.is_current(content, now)
        except VerificationRefused as error:
            if error.refusal is Refusal.LIBRARY_MISSING:
                raise
            raise _unusable(item, str(error)) from error
        return content

    def _fetched(self, item: Item) -> bytes:
        match item:
            case DcapCollateral():
                return self._collateral(item)
            case SnpKeyCertificate():
                return self._key_certificate(item)
            case SnpAuthorities():
                return self._ask(item, f"{self._at.amd}/{_line(item)}/cert_chain").body
            case SnpRevocationList():
                return self._ask(item, f"{self._at.amd}/{_line(item)}/crl").body
            case NvidiaManifest():
                return self._manifest(item)
            case NvidiaOcsp():
                return self._ocsp(item)
        raise missing(f"no service has {item.name}")

    def _key_certificate(self, item: SnpKeyCertificate) -> bytes:
        if item.chip_id is None:
            raise missing(f"{item.name}: AMD gives a VLEK to the cloud provider alone; the host has to hand it over")
        levels = decode_tcb(item.product, bytes.fromhex(item.tcb)).as_claim()
        query = "&".join(f"{_SPL[name]}={level:02d}" for name, level in levels.items())
        return self._ask(item, f"{self._at.amd}/vcek/v1/{item.product.value}/{item.chip_id}?{query}").body

    def _collateral(self, item: DcapCollateral) -> bytes:
        """Combine Intel's four answers into the single document that verifiers read."""
        api = "{}/{}/certification/v4/{}".format
        pck_crl = self._ask(item, api(self._at.intel, "sgx", f"pckcrl?ca={item.authority}&encoding=der"))
        root_crl = self._ask(item, f"{self._at.intel_certificates}/IntelSGXRootCA.der")
        tcb = self._ask(item, api(self._at.intel, item.tee, f"tcb?fmspc={item.fmspc.upper()}"))
        identity = self._ask(item, api(self._at.intel, item.tee, "qe/identity"))
        tcb_info, tcb_signature = _signed_part(tcb, "tcbInfo", item)
        qe_identity, qe_signature = _signed_part(identity, "enclaveIdentity", item)
        document = {
            "pck_crl_issuer_chain": _issuers(pck_crl, "sgx-pck-crl-issuer-chain", item),
            "root_ca_crl": root_crl.body.hex(),
            "pck_crl": pck_crl.body.hex(),
            "tcb_info_issuer_chain": _issuers(tcb, "tcb-info-issuer-chain", item),
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_signature,
            "qe_identity_issuer_chain": _issuers(identity, "sgx-enclave-identity-issuer-chain", item),
            "qe_identity": qe_identity,
            "qe_identity_signature": qe_signature,
        }
        return json.dumps(document).encode()

    def _manifest(self, item: NvidiaManifest) -> bytes:
        reply = self._ask(item, f"{self._at.nvidia_manifests}/v1/rim/{item.manifest_id}")
        try:
            return base64.b64decode(parse_json(reply.body, limit=len(reply.body))["rim"], validate=True)
        except (EnvelopeError, KeyError, TypeError, ValueError, binascii.Error) as error:
            raise _unusable(item, "not a document with a manifest in it") from error

    def _ocsp(self, item: NvidiaOcsp) -> bytes:
        question = ocsp.OCSPRequestBuilder().add_certificate(item.certificate, item.issuer, hashes.SHA384()).build()
        body = question.public_bytes(Encoding.DER)
        return self._ask(item, self._at.nvidia_ocsp, body=body, content_type="application/ocsp-request").body

    def _ask(self, item: Item, url: str, *, body: bytes | None = None, content_type: str | None = None) -> HttpReply:
        reply = self._http(url, body=body, content_type=content_type)
        if reply.status != 200 or not reply.body:
            raise _unusable(item, f"status {reply.status}, {len(reply.body)} bytes")
        return reply


def _line(item: SnpAuthorities | SnpRevocationList) -> str:
    return f"{item.key.value.lower()}/v1/{item.product.value}"


def _signed_part(reply: HttpReply, name: str, item: Item) -> tuple[str, str]:
    """Return the document exactly as Intel signed it, and the signature (hex). Rewriting would break the signature."""
    try:
        found = re.fullmatch(_SIGNED_PART.format(name=name), reply.body.decode("ascii"), re.DOTALL)
    except UnicodeDecodeError as error:
        raise _unusable(item, f"{name} is not ASCII") from error
    if found is None:
        raise _unusable(item, f"not a signed {name}")
    return found[1], found[2]


def _issuers(reply: HttpReply, header: str, item: Item) -> str:
    if header not in reply.headers:
        raise _unusable(item, f"the header {header} is missing")
    return unquote(reply.headers[header])


def _unusable(item: Item, what: str) -> VerificationRefused:
    return missing(f"the vendor's service gave no usable {item.name}: {what}", unavailable=True)
