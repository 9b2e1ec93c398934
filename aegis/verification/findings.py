"""The result of a verification: one finding for each checked question, and for each open question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from aegis.errors import VerificationFailed
from coreason_enclave.wire import WitnessStatement

INCOMPLETE = 30
"""The exit code of a run that cannot be verified."""


class Check(IntEnum):
    """The checks in order. The value is the exit code of a failure, and is never reused."""

    FILES = 10
    AUDIT = 11
    CHECKPOINT = 12
    JOB = 13
    ROUNDS = 14
    MODEL = 15
    LEDGERS = 16
    EVENTS = 17
    EPSILON = 18
    LABELS = 19
    SIGNATURES = 20
    CLIENT_PRIVACY = 21
    WITNESS = 22
    AGGREGATION = 24
    UTILITY = 25
    MANIFEST = 26
    CONTENT = 29

    @property
    def label(self) -> str:
        """The name in tables and JSON."""
        return self.name.lower()

    @property
    def question(self) -> str:
        """The question that the check answers."""
        return _QUESTIONS[self]


_QUESTIONS = {
    Check.FILES: "does the folder hold every file of a finished run?",
    Check.AUDIT: "does the audit log's hash chain hold?",
    Check.CHECKPOINT: "did the coordinator sign the head of this log?",
    Check.JOB: "is job.yaml the job that ran?",
    Check.ROUNDS: "do state, metrics and outcome agree with the log about every round?",
    Check.MODEL: "is model.safetensors the average of the rounds' models, and the model that the log released?",
    Check.AGGREGATION: "does each round's model follow, to the last bit, from the updates that the sites signed?",
    Check.UTILITY: "does each model reach the stated metrics on the evaluation set?",
    Check.LEDGERS: "does each site's ledger verify, signed by its site and complete up to the heads in the log?",
    Check.EVENTS: "does each site's ledger charge every admitted update, with the event that the update states?",
    Check.EPSILON: "does every stated epsilon equal the composition of the admitted events?",
    Check.LABELS: "are simulated attestation and injected noise labelled as such?",
    Check.SIGNATURES: "did each site sign its admitted updates, and does the log agree with the signed statements?",
    Check.MANIFEST: "does a signature cover every file of the folder, unchanged, and is no signed file missing?",
    Check.CLIENT_PRIVACY: "does the coordinator's ledger charge every round of a job with client_privacy?",
    Check.WITNESS: "did the sites receive this very log during the run?",
    Check.CONTENT: "did each site's rows stay the same during the job, or is every change recorded and allowed?",
}


class Verdict(StrEnum):
    """The answer to a question.

    - ``HOLDS``, ``FAILS``: yes, no.
    - ``MISSING``: the answer needs a record that someone else keeps.
    - ``NOT_CHECKED``: no record of a run can answer, or an earlier check that the answer needs has failed.
    """

    HOLDS = "holds"
    FAILS = "fails"
    MISSING = "missing"
    NOT_CHECKED = "not checked"


class Conclusion(StrEnum):
    """The verdict over a whole run."""

    VERIFIED = "verified"
    NOT_VERIFIED = "not verified"
    CANNOT_BE_VERIFIED = "cannot be verified"


@dataclass(frozen=True)
class Finding:
    """One answer. ``subject`` names the check, or a fact beyond all checks."""

    subject: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class VerificationReport:
    """All findings about one run folder, in the order of the checks.

    Attributes:
        failed: the checks that failed; the first one gives :attr:`exit_code`.
        notices: facts to read before any number, for example simulated attestation.
        files: every file of the folder, by its path; True if a signature covers the file.
    """

    findings: tuple[Finding, ...]
    failed: tuple[Check, ...]
    notices: tuple[str, ...]
    files: Mapping[str, bool] = field(default_factory=dict)

    @property
    def conclusion(self) -> Conclusion:
        """Not verified if a check failed; otherwise verified, unless a check lacks a record."""
        if self.failed:
            return Conclusion.NOT_VERIFIED
        return Conclusion.CANNOT_BE_VERIFIED if self.missing else Conclusion.VERIFIED

    @property
    def missing(self) -> tuple[str, ...]:
        """Descriptions of the missing records."""
        return tuple(finding.detail for finding in self.findings if finding.verdict is Verdict.MISSING)

    @property
    def ok(self) -> bool:
        """True if the run is verified. Findings with ``NOT_CHECKED`` remain open even then."""
        return self.conclusion is Conclusion.VERIFIED

    @property
    def exit_code(self) -> int:
        """0, the value of the first check that failed, or :data:`INCOMPLETE`."""
        if self.failed:
            return int(self.failed[0])
        return 0 if self.ok else INCOMPLETE


@dataclass(frozen=True)
class Reference:
    """The caller's knowledge from outside the run folder, which a run folder cannot prove about itself.

    Attributes:
        coordinator_key: Ed25519, hex; None trusts the key in the run folder.
        checkpoint: an older signed head of the same log, kept outside the run folder.
        participants: Ed25519 keys (hex) of sites, by site id.
        witnesses: statements of sites about the logs they received.
    """

    coordinator_key: str | None = None
    checkpoint: bytes | None = None
    participants: Mapping[str, str] = field(default_factory=dict)
    witnesses: tuple[WitnessStatement, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One answer of a check."""

    verdict: Verdict
    detail: str


Answers = Iterator[Answer]


def holds(detail: str) -> Answer:
    """Return the answer yes."""
    return Answer(Verdict.HOLDS, detail)


def fails(detail: str) -> Answer:
    """Return the answer no."""
    return Answer(Verdict.FAILS, detail)


def is_missing(detail: str) -> Answer:
    """Return an open answer that needs a record outside the folder; ``detail`` names the record and its keeper."""
    return Answer(Verdict.MISSING, detail)


def stays_open(detail: str) -> Answer:
    """Return an open answer, to a question that cannot be settled here."""
    return Answer(Verdict.NOT_CHECKED, detail)


def require(condition: bool, message: str) -> None:
    """End a check with :class:`VerificationFailed` unless ``condition`` holds."""
    if not condition:
        raise VerificationFailed(message)
