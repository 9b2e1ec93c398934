"""Simulated hostile sites: properly registered, properly attested, properly signed, and lying about their update.

They enrol, train honestly and spend their budget, and then send something else past their own airlock, signed with
their real key: insiders, whom no signature reveals. Only the aggregator stands against them.
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis.attacks.hostile.eavesdropper import Overheard, round_of
from aegis.attacks.hostile.forged_evidence import Forge, scaled
from aegis.attacks.hostile.insider import Insider
from coreason_enclave.session.secure_session import SecureSession
from coreason_enclave.wire.updates import Arrays, SealedMessage

__all__ = ["SimulatedAttacker", "SimulatedForger"]


@dataclass(frozen=True)
class SimulatedForger:
    """Answers orders with what ``forge`` makes of its own update and of those that it overheard.

    ``overheard`` gives an omniscient attacker the other sites' updates of the round; left out, it sees none.
    """

    session: SecureSession
    forge: Forge
    overheard: Overheard | None = None

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Enrols like anybody else."""
        return self.session.enrol(message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Proves itself like anybody else."""
        return self.session.attest(message)

    def witness(self, message: SealedMessage) -> SealedMessage:
        """Witnesses like anybody else."""
        return self.session.witness(message)

    def run(self, message: SealedMessage) -> SealedMessage:
        """The honest answer, with its update forged and signed again."""
        return self.revealed(message)[0]

    def revealed(self, message: SealedMessage) -> tuple[SealedMessage, Arrays]:
        """See :class:`~aegis.attacks.hostile.insider.Revealing`."""

        def forge(own: Arrays) -> Arrays:
            others = [] if self.overheard is None else self.overheard.honest_updates(round_of(message))
            return self.forge(own, others)

        return Insider(self.session).forged(message, forge)


class SimulatedAttacker(SimulatedForger):
    """Answers orders with ``factor`` times the honest update (sign flip and scaling for a negative factor)."""

    def __init__(self, session: SecureSession, factor: float = -10.0) -> None:
        super().__init__(session, lambda own, _: scaled(own, factor))
