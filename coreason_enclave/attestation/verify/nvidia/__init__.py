"""Verify evidence of NVIDIA H100 GPUs: an SPDM report, its certificates up to the pinned root, and signed manifests.

Enters: evidence, endorsements, a platform policy, a time and a nonce. Leaves: a verdict per GPU, or a refusal.
Never: reads a clock or the network; accepts two reports from one device as two GPUs.

>>> from coreason_enclave.attestation.verify.verdict import VerificationRefused
>>> try:
...     verify_nvidia(b"", NvidiaEndorsements(), NvidiaPlatformPolicy(), 1780000000, nonce=None)
... except VerificationRefused as error:
...     print(error.refusal)
malformed
"""

from __future__ import annotations

from coreason_enclave.attestation.verify.nvidia.endorsements import NvidiaEndorsements
from coreason_enclave.attestation.verify.nvidia.gpu_evidence import NvidiaEvidence, parse_nvidia_evidence
from coreason_enclave.attestation.verify.nvidia.gpu_policy import NvidiaPlatformPolicy
from coreason_enclave.attestation.verify.nvidia.gpu_verifier import NvidiaVerifier
from coreason_enclave.attestation.verify.nvidia.opaque import GpuMode
from coreason_enclave.attestation.verify.nvidia.revocation import (
    NvidiaRevocation,
    RevocationStatement,
    RevocationStatus,
)
from coreason_enclave.attestation.verify.nvidia.roots import NvidiaRoots, pinned_roots

__all__ = [
    "GpuMode",
    "NvidiaEndorsements",
    "NvidiaEvidence",
    "NvidiaPlatformPolicy",
    "NvidiaRevocation",
    "NvidiaRoots",
    "NvidiaVerifier",
    "RevocationStatement",
    "RevocationStatus",
    "parse_nvidia_evidence",
    "verify_nvidia",
    "verify_nvidia_list",
]

_PINNED = NvidiaVerifier(pinned_roots())
verify_nvidia = _PINNED.verify
"""Verify the evidence of one GPU under NVIDIA's pinned roots: see :meth:`NvidiaVerifier.verify`."""
verify_nvidia_list = _PINNED.verify_all
"""Verify the evidence of several GPUs under NVIDIA's pinned roots: see :meth:`NvidiaVerifier.verify_all`."""
