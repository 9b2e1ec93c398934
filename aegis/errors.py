"""Everything that the platform can refuse, in one tree.

::

    AegisError                        a message for a person: what was wrong, and what to do
    ├── CarrierUnreachable            SuperLink cannot be reached, or refuses; trying again may work
    ├── CertificateRefused            a certificate request or a certificate authority's file is not acceptable
    ├── GatewayUnreachable            the gateway's control socket does not answer
    ├── GoalOutOfReach                no epsilon in the range gives the accuracy asked for; carries what is reachable
    ├── InvalidEngine                 a DP engine's configuration, task or question that makes no sense
    ├── InvalidJob                    a job file, or a job for this federation, that cannot be run
    ├── LedgerForked                  a site signed two heads of its ledger with one number; the older one is kept
    ├── RequestRefused                a request at the gateway that is not passed on; carries a reason code
    ├── RunFolderError                a run or federation folder is missing, finished, in use or damaged
    ├── RunPaused                     too few updates were admitted, twice: nothing weaker is done in silence
    │   ├── BudgetRefused             the sites that are missing refused for their privacy budget
    │   └── RunAborted                whatever the coordinator runs in ended it; nothing is lost
    ├── TuningStopped                 the ledger's budget ended a search before its answer; carries what was seen
    ├── UpdateRefused                 one site's answer is not admitted; carries the site and a reason code
    ├── VerificationFailed            what a run claims is not what its records show
    └── AggregationError              the updates of one round cannot be combined as asked
        ├── InvalidAggregation        the request itself makes no sense, whatever the sites sent
        └── TooFewUpdates             fewer admitted updates than the rule's guarantee needs

One warning stands beside it: :class:`PrivacySpentByTuning`.
"""

from __future__ import annotations

from collections.abc import Mapping

from coreason_enclave.errors import Reason

__all__ = [
    "AegisError",
    "AggregationError",
    "BudgetRefused",
    "CertificateRefused",
    "GatewayUnreachable",
    "GoalOutOfReach",
    "InvalidAggregation",
    "InvalidEngine",
    "InvalidJob",
    "LedgerForked",
    "PrivacySpentByTuning",
    "RequestRefused",
    "RunAborted",
    "RunEnded",
    "RunFolderError",
    "RunPaused",
    "TooFewUpdates",
    "TransportUnavailable",
    "TuningStopped",
    "UpdateRefused",
    "VerificationFailed",
]


class AegisError(Exception):
    """Root of the tree."""


class TransportUnavailable(AegisError):
    """A message could not be handed over or fetched now; trying again may work. Nothing about a site is implied."""


class RunEnded(TransportUnavailable):
    """SuperLink has ended the Flower run: its messages are lost, and a new run has to be started."""


class CertificateRefused(AegisError):
    """A certificate request, or a file of the federation's certificate authority, is not acceptable."""


class GatewayUnreachable(AegisError):
    """The gateway's control socket does not answer: it is not running, or is just being started again."""


class GoalOutOfReach(AegisError):
    """No epsilon in the range gives the accuracy asked for.

    Args:
        message: the goal, and what is reachable.
        reachable: the best median accuracy that was seen.
        at_epsilon: where it was seen.
    """

    def __init__(self, message: str, *, reachable: float, at_epsilon: float) -> None:
        super().__init__(message)
        self.reachable = reachable
        self.at_epsilon = at_epsilon


class InvalidEngine(AegisError):
    """A DP engine's configuration, its task or a question to it makes no sense: the message names the field."""


class InvalidJob(AegisError):
    """The job file, or the job for this federation, cannot be run: the message names the field."""


class RequestRefused(AegisError):
    """A request at the gateway that is not passed on. Only the reason code is told to whoever asked."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RunFolderError(AegisError):
    """A run or federation folder is missing, finished, in use or damaged."""


class RunPaused(AegisError):
    """The run stopped at a round that cannot be completed; running the same command again continues there."""


class TuningStopped(AegisError):
    """The ledger affords no further trial, and the search has no answer yet. What ran stays charged.

    Args:
        message: what was seen so far.
        best_epsilon: the smallest epsilon seen to meet the goal, not shown to be the smallest; None if none did.
    """

    def __init__(self, message: str, *, best_epsilon: float | None) -> None:
        super().__init__(message)
        self.best_epsilon = best_epsilon


class BudgetRefused(RunPaused):
    """Every site that is missing refused for its privacy budget: running again changes nothing."""


class RunAborted(RunPaused):
    """Whatever the coordinator runs in ended it, or went away; running the same command again continues."""


class UpdateRefused(AegisError):
    """One site's answer is not admitted; the round goes on without it."""

    def __init__(self, site_id: str, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.site_id = site_id
        self.reason = reason


class LedgerForked(AegisError):
    """A site signed two heads of its ledger with one number and different hashes."""

    reason = Reason.LEDGER_FORKED


class VerificationFailed(AegisError):
    """What a run claims is not what its own records show."""


class AggregationError(AegisError):
    """The updates of one round cannot be combined as asked. The model is unchanged."""


class InvalidAggregation(AggregationError):
    """The request itself makes no sense, whatever the sites sent: correct the call or the job."""


class TooFewUpdates(AggregationError):
    """Fewer updates survived screening than the rule needs for its guarantee.

    Args:
        message: what was wrong and what to do.
        needed: the fewest admitted updates the rule works with.
        admitted: how many there were.
        quarantined: why the others were left out, by site name; the values are stable reason codes.
    """

    def __init__(self, message: str, *, needed: int, admitted: int, quarantined: Mapping[str, str]) -> None:
        super().__init__(message)
        self.needed = needed
        self.admitted = admitted
        self.quarantined = quarantined


class PrivacySpentByTuning(UserWarning):
    """A search trains many times on the same rows: each trial spends privacy that the answer does not include."""
