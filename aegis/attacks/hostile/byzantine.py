"""Simulated Byzantine sites: registered, attested and signing correctly, but lying about their update.

A Byzantine site enrols, trains honestly and spends its budget. Then it sends a different update past its own airlock,
signed with its real key. No signature reveals such an insider; only a robust aggregator defends against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis.attacks.hostile.eavesdropper import Overheard, round_of
from aegis.attacks.hostile.forged_evidence import Forge, scaled
from aegis.attacks.hostile.insider import Insider, ReplacesUpdates
from coreason_enclave.session import SecureSession
from coreason_enclave.wire import Arrays, Handler, SealedMessage


@dataclass(frozen=True)
class SimulatedForger(ReplacesUpdates):
    """A hostile site: replies to orders with an update forged from its own and from overheard updates.

    ``overheard`` gives an omniscient attacker the other sites' updates of the round. Without it, the attacker sees only
    its own update.
    """

    session: SecureSession
    forge: Forge
    overheard: Overheard | None = None

    def honest(self) -> Handler:
        """Return the session."""
        return self.session

    def run(self, message: SealedMessage) -> SealedMessage:
        """Return the honest reply with a forged update, signed again."""
        return self.revealed(message)[0]

    def revealed(self, message: SealedMessage) -> tuple[SealedMessage, Arrays]:
        """See :class:`~aegis.attacks.hostile.insider.Revealing`."""

        def forge(own: Arrays) -> Arrays:
            others = [] if self.overheard is None else self.overheard.honest_updates(round_of(message))
            return self.forge(own, others)

        return Insider(self.session).forged(message, forge)


class SimulatedAttacker(SimulatedForger):
    """A hostile site: replies with ``factor`` times its honest update (negative: sign flip and scaling)."""

    def __init__(self, session: SecureSession, factor: float = -10.0) -> None:
        super().__init__(session, lambda own, _: scaled(own, factor))
