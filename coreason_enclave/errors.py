"""Every error that the site agent and the shared modules raise, in one tree.

::

    EnclaveError                         carries a stable ``reason`` and a message for a person
    ├── ConfigurationError               a policy, key, registration or option is missing or unusable
    ├── JobRejected                      the site will not run this order (signature, policy, expiry, conflict)
    ├── EnvelopeError                    the bytes hold no authentic envelope of the expected type
    ├── AttestationError                 the site cannot produce evidence, or evidence fails its appraisal
    ├── DatasetRejected                  the dataset's id, path or content is not acceptable
    ├── DataLeakageError                 private content was about to leave the site
    ├── TrainingAborted                  a caller asked for the training to stop
    └── PrivacyError
        ├── PrivacyBudgetExceededError   the next step or reservation is not affordable
        ├── AccountingError              accounting can state no guarantee for these numbers
        ├── UnsafeTrainingError          the loop, loader or model would void the guarantee
        └── LedgerError                  the ledger refuses
            ├── LedgerCorrupted          the ledger's chain does not verify: all operations refuse
            └── LedgerConflict           the ledger already holds a different record for the same request

Messages go to the site's own log and may name files and columns. Only :attr:`EnclaveError.reason` may cross the wire: a
hostile coordinator could use detailed refusals to probe private data.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Stable codes shared by refusals, audit entries and every runtime's error mapping. Never re-used or renamed."""

    # configuration and orders
    CONFIGURATION = "configuration"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    UNKNOWN_SIGNER = "unknown_signer"
    BAD_SIGNATURE = "bad_signature"
    WRONG_PAYLOAD_TYPE = "wrong_payload_type"
    WRONG_DIGEST = "wrong_digest"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    NOT_ADDRESSED_TO_ME = "not_addressed_to_me"
    WRONG_PROFILE = "wrong_profile"
    POLICY = "policy"
    UNSUPPORTED = "unsupported"
    # attestation
    ATTESTATION_UNAVAILABLE = "attestation_unavailable"
    ATTESTATION_INVALID = "attestation_invalid"
    ATTESTATION_UNACCEPTABLE = "attestation_unacceptable"
    ATTESTATION_REQUIRED = "attestation_required"
    UNDECRYPTABLE = "undecryptable"
    # data
    DATASET_UNKNOWN = "dataset_unknown"
    DATASET_PATH = "dataset_path"
    DATASET_SCHEMA = "dataset_schema"
    # release
    LEAKAGE = "leakage"
    NO_PRIVACY_EVENT = "no_privacy_event"
    NORM_EXCEEDED = "norm_exceeded"
    # privacy
    BUDGET_EXCEEDED = "budget_exceeded"
    ACCOUNTING = "accounting"
    UNSAFE_TRAINING = "unsafe_training"
    LINEAGE_UNKNOWN = "lineage_unknown"
    LEDGER = "ledger"
    LEDGER_CORRUPTED = "ledger_corrupted"
    LEDGER_ROLLED_BACK = "ledger_rolled_back"
    LEDGER_FORKED = "ledger_forked"
    ROUND_CONFLICT = "round_conflict"
    CONTENT_CHANGED = "content_changed"
    JOB_KEY_CHANGED = "job_key_changed"
    # the cohort
    ROLL_CALL = "roll_call"
    # the coordinator's log
    LOG_UNPROVEN = "log_unproven"
    LOG_FORKED = "log_forked"
    # admission at the coordinator
    UNKNOWN_SITE = "unknown_site"
    REVOKED = "revoked"
    WRONG_ROUND = "wrong_round"
    WRONG_NONCE = "wrong_nonce"
    REPLAYED = "replayed"
    LATE = "late"
    QUARANTINED = "quarantined"
    EVENT_EXCEEDS_PLAN = "event_exceeds_plan"
    WRONG_SHAPES = "wrong_shapes"
    NON_FINITE = "non_finite"
    NO_REPLY = "no_reply"
    TRANSPORT = "transport"
    # life of a run
    ABORTED = "aborted"
    INTERNAL = "internal"


class EnclaveError(Exception):
    """Root of the tree.

    Args:
        message: the problem and its remedy; stays at the site.
        reason: the stable code; each subclass has a default.
    """

    default_reason = Reason.INTERNAL

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.reason = self.default_reason if reason is None else reason


class ConfigurationError(EnclaveError):
    """A policy, key, registration or option is missing or unusable."""

    default_reason = Reason.CONFIGURATION


class JobRejected(EnclaveError):
    """The site will not run this order."""

    default_reason = Reason.POLICY


class EnvelopeError(EnclaveError):
    """The bytes hold no authentic envelope of the expected type."""

    default_reason = Reason.MALFORMED


class AttestationError(EnclaveError):
    """The site cannot produce evidence, or evidence fails its appraisal."""

    default_reason = Reason.ATTESTATION_UNACCEPTABLE


class DatasetRejected(EnclaveError):
    """The dataset's id, path or content is not acceptable."""

    default_reason = Reason.DATASET_SCHEMA


class DataLeakageError(EnclaveError):
    """Private content was about to leave the site."""

    default_reason = Reason.LEAKAGE


class TrainingAborted(EnclaveError):
    """A caller asked for the training to stop; completed steps stay accounted."""

    default_reason = Reason.ABORTED


class PrivacyError(EnclaveError):
    """Root of all errors that concern the guarantee itself."""

    default_reason = Reason.UNSAFE_TRAINING


class PrivacyBudgetExceededError(PrivacyError):
    """The caps do not afford the next step or the requested reservation. No part of it has run."""

    default_reason = Reason.BUDGET_EXCEEDED


class AccountingError(PrivacyError):
    """Accounting can state no honest guarantee for these numbers."""

    default_reason = Reason.ACCOUNTING


class UnsafeTrainingError(PrivacyError):
    """The training loop, its loader or its model would void the guarantee."""

    default_reason = Reason.UNSAFE_TRAINING


class LedgerError(PrivacyError):
    """The privacy ledger refuses."""

    default_reason = Reason.LEDGER


class LedgerCorrupted(LedgerError):
    """The ledger's chain does not verify; all operations refuse until a person has inspected the ledger."""

    default_reason = Reason.LEDGER_CORRUPTED


class LedgerConflict(LedgerError):
    """The ledger already holds a different record, such as another computation for the same (job, round)."""

    default_reason = Reason.ROUND_CONFLICT
