"""The knowledge of an omniscient attacker: every site's update of a round, before the attacker replies.

Only a simulation in a single process can grant this knowledge. The module also records each site's update, so that a
test can give the same updates to other aggregators.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aegis.attacks.hostile.insider import ReplacesUpdates, Revealing
from coreason_enclave.crypto import unverified_payload
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.wire import Arrays, Handler, RoundOrder, SealedMessage


def round_of(order: SealedMessage) -> int:
    """Return the round number that an order claims; the session verifies the claim."""
    return RoundOrder.from_payload(unverified_payload(order.envelope)).round_number


class Overheard:
    """Every site's replies, by round. Threads of a process share an instance.

    Args:
        honest: sites whose updates an omniscient attacker waits for.
        patience_s: maximum wait for these updates, in seconds.
    """

    def __init__(self, honest: Iterable[str], *, patience_s: float = 60.0) -> None:
        self._honest = frozenset(honest)
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Arrays | None]] = {}

    def listen(self, site_id: str, handler: Revealing) -> Tapped:
        """Wrap ``handler``, recording every reply under ``site_id``."""
        return Tapped(site_id, handler, self)

    def note(self, round_number: int, site_id: str, update: Arrays | None) -> None:
        """Record a site's update; None for a refusal."""
        with self._changed:
            self._answers.setdefault(round_number, {})[site_id] = update
            self._changed.notify_all()

    def honest_updates(self, round_number: int) -> list[Arrays]:
        """Return the honest sites' updates of a round in order of site name, after each has replied or refused.

        Raises:
            EnclaveError: a site did not reply within ``patience_s``, or all sites refused.
        """

        with self._changed:
            if not self._changed.wait_for(lambda: self._all_in(round_number), timeout=self._patience_s):
                raise EnclaveError("the honest sites have not replied", reason=Reason.INTERNAL)
            answers = self._answers[round_number]
            updates = [update for site in sorted(self._honest) if (update := answers[site]) is not None]
        if not updates:
            raise EnclaveError("no honest site has sent an update", reason=Reason.INTERNAL)
        return updates

    def _all_in(self, round_number: int) -> bool:
        return self._honest <= self._answers.get(round_number, {}).keys()

    def rounds(self) -> Mapping[int, Mapping[str, Arrays]]:
        """Return all recorded updates by round and site name, both ascending, without refusals."""
        with self._changed:
            return {
                number: {site: update for site, update in sorted(answers.items()) if update is not None}
                for number, answers in sorted(self._answers.items())
            }


@dataclass(frozen=True)
class Tapped(ReplacesUpdates):
    """A handler that passes messages on to ``handler`` and records the updates."""

    site_id: str
    handler: Revealing
    overheard: Overheard

    def honest(self) -> Handler:
        """Return the handler that is listened to."""
        return self.handler

    def run(self, message: SealedMessage) -> SealedMessage:
        """Pass the order on and record the update, or None for a refusal."""
        number = round_of(message)
        try:
            answer, update = self.handler.revealed(message)
        except BaseException:
            self.overheard.note(number, self.site_id, None)
            raise
        self.overheard.note(number, self.site_id, update)
        return answer
