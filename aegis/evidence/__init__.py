"""Evidence in files: is it authentic (:func:`verify`), is it acceptable (:mod:`.appraisal`), what does it say
(:func:`inspect`)?

Offline, and under the vendors' pinned roots alone: what is needed besides the evidence comes from files, too.
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
