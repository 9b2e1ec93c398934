"""What a verification says: one finding for each thing that was looked at, and for each that was not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from aegis.errors import VerificationFailed

__all__ = [
    "Answer",
    "Answers",
    "Check",
    "Finding",
    "Reference",
    "Report",
    "Verdict",
    "fails",
    "holds",
    "require",
    "stays_open",
]


class Check(IntEnum):
    """The checks in the order in which they are made; the value is the exit code of a failure. Never re-used."""

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
    CONTENT = 29

    @property
    def label(self) -> str:
        """The name in tables and JSON."""
        return self.name.lower()

    @property
    def question(self) -> str:
        """What the check asks."""
        return _QUESTIONS[self]


_QUESTIONS = {
    Check.FILES: "is everything there that a finished run leaves?",
    Check.AUDIT: "does the audit log's hash chain hold?",
    Check.CHECKPOINT: "is the log the one whose head the coordinator signed?",
    Check.JOB: "is job.yaml the job that was run?",
    Check.ROUNDS: "do state, metrics and outcome tell the rounds that the log tells?",
    Check.MODEL: "is model.safetensors the model that the log says was released?",
    Check.LEDGERS: "does each site's ledger verify, and hold every head that the coordinator saw?",
    Check.EVENTS: "is every admitted update paid for in its site's ledger, as the very event that it claimed?",
    Check.EPSILON: "is every stated epsilon what the admitted events compose to?",
    Check.LABELS: "are simulated attestation and injected noise called what they are?",
    Check.SIGNATURES: "did each site sign its admitted updates, and what the log says of them?",
    Check.CLIENT_PRIVACY: "is every round of a job with client_privacy paid for in the coordinator's own ledger?",
    Check.CONTENT: "did each site's rows stay the same within the job, or is every change named and allowed?",
}


class Verdict(StrEnum):
    """``HOLDS`` and ``FAILS`` answer a question; ``NOT_CHECKED`` says that it stays open, and why."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """One answer. ``subject`` is the check's label, or what no check can establish."""

    subject: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class Report:
    """All findings about one run folder, in the order of the checks.

    Attributes:
        failed: the checks that failed; the first one gives :attr:`exit_code`.
        notices: what a reader has to know before any number, such as that attestation was simulated.
    """

    findings: tuple[Finding, ...]
    failed: tuple[Check, ...]
    notices: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed. What was not checked stays open all the same."""
        return not self.failed

    @property
    def exit_code(self) -> int:
        """0, or the value of the first check that failed."""
        return int(self.failed[0]) if self.failed else 0


@dataclass(frozen=True)
class Reference:
    """What the caller knows from elsewhere, and a run folder cannot vouch for itself.

    Attributes:
        coordinator_key: Ed25519, hex; None takes the run folder's own word for it.
        checkpoint: an older signed head of the same log, kept outside the run folder.
    """

    coordinator_key: str | None = None
    checkpoint: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """One answer of a check."""

    verdict: Verdict
    detail: str


Answers = Iterator[Answer]


def holds(detail: str) -> Answer:
    """The question is answered with yes."""
    return Answer(Verdict.HOLDS, detail)


def fails(detail: str) -> Answer:
    """The question is answered with no."""
    return Answer(Verdict.FAILS, detail)


def stays_open(detail: str) -> Answer:
    """The question cannot be answered here."""
    return Answer(Verdict.NOT_CHECKED, detail)


def require(condition: bool, message: str) -> None:
    """End a check with :class:`VerificationFailed` unless ``condition`` holds."""
    if not condition:
        raise VerificationFailed(message)
