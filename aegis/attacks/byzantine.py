"""A simulated hostile site: properly registered, properly signed, and lying about its update.

It trains honestly, spends its budget, and then sends a scaled update past its own airlock, signed with its real key:
an insider, whom no signature reveals. Only the aggregator stands against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coreason_enclave.encoding import sha256_hex
from coreason_enclave.envelope import KeyRing, open_envelope, seal
from coreason_enclave.keys import Signer
from coreason_enclave.orders import UPDATE_TYPE, parse_statement
from coreason_enclave.session import SecureSession
from coreason_enclave.updates import SealedMessage, decode_arrays, encode_arrays

__all__ = ["SimulatedAttacker"]

_LIMIT = 1 << 30


@dataclass(frozen=True)
class SimulatedAttacker:
    """Answers orders with ``factor`` times the honest update (sign flip and scaling for a negative factor)."""

    session: SecureSession
    signer: Signer
    factor: float = -10.0

    def run(self, message: SealedMessage) -> SealedMessage:
        """The honest answer, with its update replaced and signed again."""
        honest = self.session.run(message)
        arrays = {
            name: (self.factor * array).astype(np.float32)
            for name, array in decode_arrays(honest.arrays, limit=_LIMIT).items()
        }
        payload = encode_arrays(arrays)
        own = KeyRing({"self": self.signer.public_hex})
        statement = parse_statement(open_envelope(honest.envelope, UPDATE_TYPE, own).payload)
        forged = statement.model_copy(update={"update_digest": sha256_hex(payload)})
        return SealedMessage(seal(UPDATE_TYPE, forged.canonical(), self.signer), payload)
