"""Simulated hostile sites: properly registered, properly signed, and lying about their update.

They enrol, train honestly and spend their budget, and then send something else past their own airlock, signed with
their real key: insiders, whom no signature reveals. Only the aggregator stands against them.
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis.attacks.forging import Forge, scaled
from aegis.attacks.overhearing import OrderHandler, Overheard, round_of
from coreason_enclave.encoding import sha256_hex
from coreason_enclave.envelope import KeyRing, open_envelope, seal
from coreason_enclave.keys import Signer
from coreason_enclave.orders import UPDATE_TYPE, parse_statement
from coreason_enclave.updates import Arrays, SealedMessage, decode_arrays, encode_arrays

__all__ = ["SimulatedAttacker", "SimulatedForger"]

_LIMIT = 1 << 30


@dataclass(frozen=True)
class SimulatedAttacker:
    """Answers orders with ``factor`` times the honest update (sign flip and scaling for a negative factor)."""

    session: OrderHandler
    signer: Signer
    factor: float = -10.0

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Enrols like anybody else."""
        return self.session.enrol(message)

    def run(self, message: SealedMessage) -> SealedMessage:
        """The honest answer, with its update replaced and signed again."""
        honest = self.session.run(message)
        return _signed_again(honest, scaled(_arrays(honest), self.factor), self.signer)


@dataclass(frozen=True)
class SimulatedForger:
    """Answers orders with what ``forge`` makes of its own update and of those that it overheard.

    ``overheard`` gives an omniscient attacker the other sites' updates of the round; left out, it sees none.
    """

    session: OrderHandler
    signer: Signer
    forge: Forge
    overheard: Overheard | None = None

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Enrols like anybody else."""
        return self.session.enrol(message)

    def run(self, message: SealedMessage) -> SealedMessage:
        """The honest answer, with its update forged and signed again."""
        honest = self.session.run(message)
        others = [] if self.overheard is None else self.overheard.honest_updates(round_of(message))
        return _signed_again(honest, self.forge(_arrays(honest), others), self.signer)


def _arrays(message: SealedMessage) -> Arrays:
    return decode_arrays(message.arrays, limit=_LIMIT)


def _signed_again(honest: SealedMessage, arrays: Arrays, signer: Signer) -> SealedMessage:
    payload = encode_arrays(arrays)
    own = KeyRing({"self": signer.public_hex})
    statement = parse_statement(open_envelope(honest.envelope, UPDATE_TYPE, own).payload)
    forged = statement.model_copy(update={"update_digest": sha256_hex(payload)})
    return SealedMessage(seal(UPDATE_TYPE, forged.canonical(), signer), payload)
