"""Verify evidence of NVIDIA H100 GPUs: an SPDM report, its certificates up to the pinned root, and signed manifests.

Enters: evidence, endorsements, a platform policy, a time and a nonce. Leaves: a verdict per GPU, or a refusal.
Never: reads a clock or the network; accepts two reports from one device as two GPUs.

>>> from coreason_enclave.attestation.verify import VerificationRefused
>>> from coreason_enclave.attestation.verify.nvidia import NvidiaEndorsements, NvidiaPlatformPolicy, verify_nvidia
>>> try:
...     verify_nvidia(b"", NvidiaEndorsements(), NvidiaPlatformPolicy(), 1780000000, nonce=None)
... except VerificationRefused as error:
...     print(error.refusal)
malformed
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
