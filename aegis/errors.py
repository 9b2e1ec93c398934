"""Everything that the platform can refuse, in one tree.

::

    AegisError                        a message for a person: what was wrong, and what to do
    ├── InvalidJob                    a job file, or a job for this federation, that cannot be run
    ├── RunFolderError                a run or federation folder is missing, finished, in use or damaged
    ├── RunPaused                     too few updates were admitted, twice: nothing weaker is done in silence
    ├── UpdateRefused                 one site's answer is not admitted; carries the site and a reason code
    ├── VerificationFailed            what a run claims is not what its records show
    └── AggregationError              the updates of one round cannot be combined as asked
        ├── InvalidAggregation        the request itself makes no sense, whatever the sites sent
        └── TooFewUpdates             fewer admitted updates than the rule's guarantee needs
"""

from __future__ import annotations

from collections.abc import Mapping

from coreason_enclave.errors import Reason

__all__ = [
    "AegisError",
    "AggregationError",
    "InvalidAggregation",
    "InvalidJob",
    "RunFolderError",
    "RunPaused",
    "TooFewUpdates",
    "UpdateRefused",
    "VerificationFailed",
]


class AegisError(Exception):
    """Root of the tree."""


class InvalidJob(AegisError):
    """The job file, or the job for this federation, cannot be run: the message names the field."""


class RunFolderError(AegisError):
    """A run or federation folder is missing, finished, in use or damaged."""


class RunPaused(AegisError):
    """The run stopped at a round that cannot be completed; running the same command again continues there."""


class UpdateRefused(AegisError):
    """One site's answer is not admitted; the round goes on without it."""

    def __init__(self, site_id: str, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.site_id = site_id
        self.reason = reason


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
