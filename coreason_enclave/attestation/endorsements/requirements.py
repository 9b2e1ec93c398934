"""Determine which endorsements a report needs, from the unverified report.

The result only selects items to fetch; no verdict relies on the result.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509

from coreason_enclave.attestation.endorsements.collateral import (
    DcapCollateral,
    NvidiaManifest,
    NvidiaOcsp,
    SnpKeyCertificate,
    manifest_chain,
)
from coreason_enclave.attestation.evidence import CpuReport, GpuReport
from coreason_enclave.attestation.verify import Chain, Refusal, VerificationRefused, load_pem_chain
from coreason_enclave.attestation.verify.dcap import parse_quote, platform_of
from coreason_enclave.attestation.verify.nvidia import Field, OpaqueData
from coreason_enclave.attestation.verify.nvidia import parse_report as parse_spdm_report
from coreason_enclave.attestation.verify.snp import (
    LINES,
    SigningKey,
    SnpEndorsements,
    SnpProduct,
    SnpReport,
    read_certificate,
)
from coreason_enclave.crypto import load_pem_certificates

_PRODUCT_OF_MANIFESTS = "GH100"


def collateral_of(quote: bytes) -> DcapCollateral:
    """Return the collateral for the platform of an SGX or TDX quote; raises :class:`VerificationRefused`."""
    parsed = parse_quote(quote)
    fmspc, _ = platform_of(parsed)
    try:
        issuer = load_pem_certificates(parsed.pck_chain)[0].issuer.rfc4514_string()
    except (ValueError, IndexError) as error:
        raise VerificationRefused(Refusal.CHAIN, "the quote's certificates cannot be read") from error
    return DcapCollateral(parsed.kind, fmspc.lower(), "processor" if "PCK Processor CA" in issuer else "platform")


@dataclass(frozen=True)
class HostCertificates:
    """The certificates (DER) in a host's certificate table, sorted into those of keys and those of authorities."""

    leaves: tuple[bytes, ...]
    authorities: tuple[bytes, ...]

    def leaf(self, wanted: SnpKeyCertificate, now: int) -> bytes | None:
        """Return the wanted certificate, or None if absent, for example after an update of the firmware."""
        for der in self.leaves:
            try:
                if wanted.is_current(der, now):
                    return der
            except VerificationRefused:
                continue
        return None


def certificates_of(report: CpuReport) -> HostCertificates:
    """Return the certificates delivered with a SEV-SNP report; raises :class:`VerificationRefused`."""
    certificates = SnpEndorsements.from_files(base64.b64decode(text) for text in report.certificates).certificates
    authorities = tuple(der for der in certificates if read_certificate(der).is_authority)
    return HostCertificates(tuple(der for der in certificates if der not in authorities), authorities)


def key_certificates_of(report: SnpReport) -> Iterator[SnpKeyCertificate]:
    """Yield candidates for the certificate of the report's signing key: several if the report does not name its line.

    Raises:
        VerificationRefused: ``endorsements_missing``: no known product line fits the report.
    """
    tcb = report.raw_tcbs["reported"]
    lines = [product for product in SnpProduct if _may_be_of(product, report, tcb)]
    if not lines:
        message = f"no known product line has CPU {report.cpuid} and a TCB {tcb.hex()}"
        raise VerificationRefused(Refusal.ENDORSEMENTS_MISSING, message)
    for product in lines:
        chip = report.chip_id[: LINES[product].chip_id_bytes].hex() if report.signing_key is SigningKey.VCEK else None
        yield SnpKeyCertificate(product, tcb.hex(), chip)


def _may_be_of(product: SnpProduct, report: SnpReport, tcb: bytes) -> bool:
    layout = LINES[product].tcb_layout
    has_layout = not any(level and not name for name, level in zip(layout, tcb, strict=True))
    return has_layout and (report.cpuid is None or LINES[product].has_cpu(*report.cpuid[:2]))


def manifests_of(gpu: GpuReport) -> tuple[NvidiaManifest, NvidiaManifest]:
    """Return the manifests of a GPU's driver and VBIOS, with the ids of NVIDIA's verifiers (nvtrust)."""
    opaque = parse_spdm_report(gpu.report_bytes()).opaque
    board = "_".join(_short_text(opaque, number) for number in (Field.PROJECT, Field.PROJECT_SKU, Field.CHIP_SKU))
    return (
        NvidiaManifest(f"NV_GPU_DRIVER_{_PRODUCT_OF_MANIFESTS}_{opaque.driver_version}"),
        NvidiaManifest(f"NV_GPU_VBIOS_{board}_{opaque.vbios_version.replace('.', '')}"),
    )


def _short_text(opaque: OpaqueData, number: int) -> str:
    return (opaque.text(number) or "").upper()


def answers_of(gpu: GpuReport, manifests: Sequence[bytes]) -> Iterator[NvidiaOcsp]:
    """Yield the certificates to ask the vendor's responder about.

    Excluded: roots, and a GPU's leaf, which the GPU's own boot ROM issues.
    """
    yield from _pairs(load_pem_chain(gpu.chain_bytes(), "a GPU's chain")[1:])
    seen: set[x509.Certificate] = set()
    for manifest in manifests:
        for requirement in _pairs(manifest_chain(manifest)):
            if requirement.certificate not in seen:
                seen.add(requirement.certificate)
                yield requirement


def _pairs(chain: Chain) -> Iterator[NvidiaOcsp]:
    for certificate, issuer in pairwise(chain):
        yield NvidiaOcsp(certificate, issuer)
