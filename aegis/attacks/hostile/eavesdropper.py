"""What an omniscient attacker knows: every site's update of a round, before it answers itself.

A simulation's privilege, in one process. It also keeps what each site sent, so that other aggregators can be given the
very same updates.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aegis.attacks.hostile.insider import Revealing
from coreason_enclave.crypto.envelope import unverified_payload
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.wire.documents import parse_order
from coreason_enclave.wire.updates import Arrays, SealedMessage

__all__ = ["Overheard", "Tapped", "round_of"]


def round_of(order: SealedMessage) -> int:
    """The round that an order is for, by its own word; the session verifies it."""
    return parse_order(unverified_payload(order.envelope)).round_number


class Overheard:
    """Every site's answers, by round. Threads of one process share an instance.

    Args:
        honest: the sites whose updates an omniscient attacker waits for.
        patience_s: how long it waits for them, in seconds.
    """

    def __init__(self, honest: Iterable[str], *, patience_s: float = 60.0) -> None:
        self._honest = frozenset(honest)
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Arrays | None]] = {}

    def listen(self, site_id: str, handler: Revealing) -> Tapped:
        """``handler``, with every answer noted under ``site_id``."""
        return Tapped(site_id, handler, self)

    def note(self, round_number: int, site_id: str, update: Arrays | None) -> None:
        """One site's answer; None where it refused."""
        with self._changed:
            self._answers.setdefault(round_number, {})[site_id] = update
            self._changed.notify_all()

    def honest_updates(self, round_number: int) -> list[Arrays]:
        """The honest sites' updates of a round by site name, once each of these sites has answered or refused.

        Raises:
            EnclaveError: they did not within the patience, or all of them refused.
        """

        with self._changed:
            if not self._changed.wait_for(lambda: self._all_in(round_number), timeout=self._patience_s):
                raise EnclaveError("the honest sites have not answered", reason=Reason.INTERNAL)
            answers = self._answers[round_number]
            updates = [update for site in sorted(self._honest) if (update := answers[site]) is not None]
        if not updates:
            raise EnclaveError("no honest site has sent an update", reason=Reason.INTERNAL)
        return updates

    def _all_in(self, round_number: int) -> bool:
        return self._honest <= self._answers.get(round_number, {}).keys()

    def rounds(self) -> Mapping[int, Mapping[str, Arrays]]:
        """What was sent, by round and site name, both ascending; refusals left out."""
        with self._changed:
            return {
                number: {site: update for site, update in sorted(answers.items()) if update is not None}
                for number, answers in sorted(self._answers.items())
            }


@dataclass(frozen=True)
class Tapped:
    """Answers as ``handler`` does; what it sent is noted."""

    site_id: str
    handler: Revealing
    overheard: Overheard

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Passed on."""
        return self.handler.enrol(message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Passed on."""
        return self.handler.attest(message)

    def witness(self, message: SealedMessage) -> SealedMessage:
        """Passed on."""
        return self.handler.witness(message)

    def run(self, message: SealedMessage) -> SealedMessage:
        """Passed on, and noted."""
        number = round_of(message)
        try:
            answer, update = self.handler.revealed(message)
        except BaseException:
            self.overheard.note(number, self.site_id, None)
            raise
        self.overheard.note(number, self.site_id, update)
        return answer
