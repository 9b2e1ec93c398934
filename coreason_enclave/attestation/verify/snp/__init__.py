"""Verify AMD SEV-SNP reports: signed by a genuine AMD processor, on a platform in good state.

Enters: a report, endorsements, a platform policy and a time. Leaves: a verdict with its open checks, or a refusal.
Never: reads a clock or the network; trusts a root other than AMD's pinned roots (:func:`verify_snp`).

Supported: reports of versions 2, 3 and 5 from Milan, Genoa and Turin processors, signed by the chip's own key (VCEK) or
by a key loaded for a cloud provider (VLEK). Formats: AMD 56860 (SEV-SNP firmware ABI) for the report, AMD 57230 (VCEK
certificate and KDS interface) for the certificates.

>>> from coreason_enclave.attestation.verify.snp import SnpProduct, SnpTcbFloor, decode_tcb
>>> raw = bytes.fromhex("04000000000016d1")
>>> milan = decode_tcb(SnpProduct.MILAN, raw)
>>> milan.as_claim()
{'boot_loader': 4, 'tee': 0, 'snp': 22, 'microcode': 209}
>>> SnpTcbFloor(boot_loader=4, tee=0, snp=23, microcode=209).is_met_by(milan)
False
>>> decode_tcb(SnpProduct.TURIN, raw)  # another line has another layout
Traceback (most recent call last):
coreason_enclave.attestation.verify.verdict.VerificationRefused: a TCB version 04000000000016d1 has reserved bytes ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
