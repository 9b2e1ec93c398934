"""AMD SEV-SNP: is this report signed by a genuine AMD processor, and is that platform in good state?

Reports of versions 2, 3 and 5 from Milan, Genoa and Turin processors, signed by the chip's own key (VCEK) or by one
that was loaded for a cloud provider (VLEK). Formats: AMD 56860 (SEV-SNP firmware ABI) for the report, AMD 57230 (VCEK
certificate and KDS interface) for the certificates.
"""

from __future__ import annotations

from coreason_enclave.attestation.verify.snp.endorsements import SnpEndorsements
from coreason_enclave.attestation.verify.snp.guest_policy import SnpPlatformPolicy, SnpTcbFloor
from coreason_enclave.attestation.verify.snp.products import SnpProduct
from coreason_enclave.attestation.verify.snp.report import SigningKey, SnpReport, parse_report
from coreason_enclave.attestation.verify.snp.report_verifier import SnpVerifier, verify_snp

__all__ = [
    "SigningKey",
    "SnpEndorsements",
    "SnpPlatformPolicy",
    "SnpProduct",
    "SnpReport",
    "SnpTcbFloor",
    "SnpVerifier",
    "parse_report",
    "verify_snp",
]
