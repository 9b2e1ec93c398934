"""The port behind every carrier at a site: sealed bytes in, sealed bytes out, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coreason_enclave.wire.updates import SealedMessage

__all__ = ["Aborted", "Handler", "never"]

Aborted = Callable[[], bool]
"""Asked between two steps: shall the training be given up?"""


def never() -> bool:
    """Nobody gives up."""
    return False


class Handler(Protocol):
    """Answers sealed orders, invitations and challenges. Raises :class:`EnclaveError` to refuse.

    The session does, and so does whatever stands between it and a carrier.
    """

    def run(self, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage:
        """Answer an order with an update. Given up between two steps, it is asked again later and spends nothing
        anew."""
        ...

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Answer an invitation with an enrolment."""
        ...

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Answer a challenge with evidence."""
        ...

    def witness(self, message: SealedMessage) -> SealedMessage:
        """Answer the announcement that a run has ended with what this site holds of its log."""
        ...

    def validate(self, message: SealedMessage) -> None:
        """Evaluate an order's model on the site's own rows, for the site's own eyes: there is no answer."""
        ...

    def submit(self, message: SealedMessage) -> SealedMessage:
        """Answer an order with the update that was released for it before; never computes one."""
        ...
