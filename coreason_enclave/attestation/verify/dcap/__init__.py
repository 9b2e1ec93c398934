"""Intel SGX and TDX quotes (DCAP): from an enclave's or a trust domain's report to Intel's root, offline.

The cryptography is that of ``dcap-qvl``, under a policy of its own that admits no status this package has not allowed;
around it stand an exact parser of the quote, the windows and the revocation lists of the collateral, and the platform
policy. :func:`verify_sgx` and :func:`verify_tdx` trust Intel's root alone.
"""

from coreason_enclave.attestation.verify.dcap.collateral import DcapEndorsements
from coreason_enclave.attestation.verify.dcap.quote_verifier import DcapVerifier, verify_sgx, verify_tdx
from coreason_enclave.attestation.verify.dcap.tcb_policy import DcapPlatformPolicy

__all__ = ["DcapEndorsements", "DcapPlatformPolicy", "DcapVerifier", "verify_sgx", "verify_tdx"]
