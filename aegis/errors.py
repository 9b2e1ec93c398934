"""Every error that the platform raises, in one tree.

One root lets a command line catch any refusal and print its message.

::

    AegisError                        root; the message tells a person what failed and what to do
    ├── TransportUnavailable          the transport cannot be reached or refuses; a retry may work
    │   └── RunEnded                  SuperLink ended the Flower run; start a new run
    ├── CertificateRefused            a certificate request or a certificate authority's file fails its checks
    ├── GatewayUnreachable            the gateway's control socket does not answer
    ├── GoalOutOfReach                no epsilon in the range reaches the accuracy goal; carries the best accuracy seen
    ├── InvalidEngine                 a DP engine's configuration, task or query makes no sense
    ├── InvalidJob                    a job file, or a job for this federation, cannot run
    ├── InvalidStudy                  a study's files or options cannot be used
    ├── LedgerForked                  a site signed two ledger heads with one number; the older head stays stored
    ├── RequestRefused                the gateway does not forward a request; carries a reason code
    ├── RunFolderError                a run or federation folder is missing, finished, in use or damaged
    ├── RunPaused                     too few updates were admitted, twice; the run never weakens its rules silently
    │   ├── RunRefused                too few sites can ever answer, until a person changes something
    │   │   └── BudgetRefused         every missing site refused for its privacy budget
    │   └── RunAborted                the runtime that hosts the coordinator ended the run; no state is lost
    ├── TuningStopped                 the ledger's budget ended a search before its answer; carries the best epsilon
    ├── UpdateRefused                 the coordinator does not admit a site's reply; carries the site and a reason code
    ├── VerificationFailed            a run's claims contradict the run's own records
    └── AggregationError              the updates of one round cannot be combined as requested
        ├── InvalidAggregation        the request itself makes no sense, whatever the sites sent
        └── TooFewUpdates             fewer admitted updates than the rule's guarantee needs

The module also defines one warning: :class:`PrivacySpentByTuning`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from coreason_enclave.errors import Reason


class AegisError(Exception):
    """Base class of all platform errors."""


class TransportUnavailable(AegisError):
    """The transport could not send or fetch a message now. A retry may work. Implies no fault of any site."""


class RunEnded(TransportUnavailable):
    """SuperLink has ended the Flower run. The run's messages are lost; the caller has to start a new run."""


class CertificateRefused(AegisError):
    """A certificate request, or a file of the federation's certificate authority, fails its checks."""


class GatewayUnreachable(AegisError):
    """The gateway's control socket does not answer: the gateway is down or restarting."""


class GoalOutOfReach(AegisError):
    """No epsilon in the range gives the requested accuracy.

    Args:
        message: the goal and the reachable accuracy.
        reachable: best median accuracy observed.
        at_epsilon: epsilon at which ``reachable`` was observed.
    """

    def __init__(self, message: str, *, reachable: float, at_epsilon: float) -> None:
        super().__init__(message)
        self.reachable = reachable
        self.at_epsilon = at_epsilon


class InvalidEngine(AegisError):
    """A DP engine's configuration, task or query makes no sense. The message names the field."""


class InvalidJob(AegisError):
    """The job file, or the job for this federation, cannot run. The message names the field."""


class InvalidStudy(AegisError):
    """A study's files or options cannot be used. The message names the file, what is wrong and what to do."""


class RequestRefused(AegisError):
    """The gateway does not forward a request. The caller receives the reason code only, never the message."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RunFolderError(AegisError):
    """A run or federation folder is missing, finished, in use or damaged."""


class RunPaused(AegisError):
    """The run stopped at a round that cannot be completed. Running the same command again continues from this round.

    Attributes:
        reasons: reason code of each site that did not take part, where the coordinator knows one.
    """

    reasons: Mapping[str, str] = MappingProxyType({})


class TuningStopped(AegisError):
    """The ledger affords no further trial, and the search has no answer yet. Finished trials stay charged.

    Args:
        message: the observations so far.
        best_epsilon: smallest epsilon observed to meet the goal, not proved minimal; None if no epsilon met the goal.
    """

    def __init__(self, message: str, *, best_epsilon: float | None) -> None:
        super().__init__(message)
        self.best_epsilon = best_epsilon


class RunRefused(RunPaused):
    """So many sites refused for reasons that no waiting removes that the rest cannot complete the round.

    The state stays: once a person has removed the cause, the same command continues the run.
    """


class BudgetRefused(RunRefused):
    """Every missing site refused for its privacy budget. Running the command again changes nothing."""


class RunAborted(RunPaused):
    """The runtime that hosts the coordinator ended the run or vanished. The same command continues the run."""


class UpdateRefused(AegisError):
    """The coordinator does not admit a site's reply. The round continues without the site."""

    def __init__(self, site_id: str, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.site_id = site_id
        self.reason = reason


class LedgerForked(AegisError):
    """A site signed two ledger heads with one number and different hashes."""

    reason = Reason.LEDGER_FORKED


class VerificationFailed(AegisError):
    """A run's claims contradict the run's own records."""


class AggregationError(AegisError):
    """The updates of one round cannot be combined as requested. The model is unchanged."""


class InvalidAggregation(AggregationError):
    """The request itself makes no sense, whatever the sites sent. Correct the call or the job."""


class TooFewUpdates(AggregationError):
    """Fewer updates survived screening than the rule needs for its guarantee.

    Args:
        message: the fault and the remedy.
        needed: minimum number of admitted updates for the rule.
        admitted: number of admitted updates.
        quarantined: stable reason code of each excluded site, by site name.
    """

    def __init__(self, message: str, *, needed: int, admitted: int, quarantined: Mapping[str, str]) -> None:
        super().__init__(message)
        self.needed = needed
        self.admitted = admitted
        self.quarantined = quarantined


class PrivacySpentByTuning(UserWarning):
    """A search trains many times on the same rows: each trial spends privacy that the answer does not include."""
