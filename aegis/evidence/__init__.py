"""Judges evidence in files: its authenticity (:func:`verify`), its acceptance by a policy (:mod:`.appraisal`), and its
unverified content (:func:`inspect`).

Enters: files with evidence, endorsements and a policy. Leaves: a verdict, or an unverified description.
Never: uses the network, or trusts a root other than the vendors' pinned roots.

>>> from aegis.evidence import EvidenceKind, VerificationRequest, inspect, verify
>>> from coreason_enclave.attestation.verify.snp import SnpPlatformPolicy
>>> from coreason_enclave.hardware import SimulatedAttester
>>> content = SimulatedAttester().produce(b"context").canonical()
>>> inspect(content).what
'SIMULATED evidence proves nothing; without GPUs'
>>> verdict = verify(VerificationRequest(EvidenceKind.SNP, SnpPlatformPolicy(), now=1_800_000_000), content)
>>> verdict.verdict, verdict.reason.value
('refused', 'wrong_kind')
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
