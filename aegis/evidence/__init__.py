"""Judges evidence in files: its authenticity (:func:`verify`), its acceptance by a policy (:mod:`.appraisal`), and its
unverified content (:func:`inspect`).

Enters: files with evidence, endorsements and a policy. Leaves: a verdict, or an unverified description.
Never: uses the network, or trusts a root other than the vendors' pinned roots.
"""

from aegis.evidence.evidence_files import EvidenceKind, read_capped, read_evidence
from aegis.evidence.inspection import Inspection, inspect
from aegis.evidence.outcome import EvidenceVerdict
from aegis.evidence.verification import VerificationRequest, verify

__all__ = [
    "EvidenceKind",
    "EvidenceVerdict",
    "Inspection",
    "VerificationRequest",
    "inspect",
    "read_capped",
    "read_evidence",
    "verify",
]
