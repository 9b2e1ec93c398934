"""Somebody who owns a site's process: sees its update before it is encrypted, and can send another in its place.

No signature reveals such a one, and no attestation where the measured code lets it in: the aggregator has to stand
against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.envelope import KeyRing, open_envelope, seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.session.secure_session import SecureSession
from coreason_enclave.wire.documents import UPDATE_TYPE, RoundOrder, parse_statement
from coreason_enclave.wire.updates import Arrays, SealedMessage, decode_arrays, encode_arrays

__all__ = ["Insider", "Revealing"]

_LIMIT = 1 << 30


class Revealing(Protocol):
    """What answers for a site, and says what it sent."""

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Answer an invitation."""
        ...

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Answer a challenge."""
        ...

    def witness(self, message: SealedMessage) -> SealedMessage:
        """Answer an announcement."""
        ...

    def revealed(self, message: SealedMessage) -> tuple[SealedMessage, Arrays]:
        """Answer an order; the answer, and the update in it."""
        ...


@dataclass(frozen=True)
class Insider:
    """Answers with a session's own answers, whose updates it sees."""

    session: SecureSession

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Enrols like anybody else."""
        return self.session.enrol(message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Proves itself like anybody else."""
        return self.session.attest(message)

    def witness(self, message: SealedMessage) -> SealedMessage:
        """Witnesses like anybody else."""
        return self.session.witness(message)

    def revealed(self, message: SealedMessage) -> tuple[SealedMessage, Arrays]:
        """See :class:`Revealing`."""
        return self.forged(message, lambda honest: honest)

    def forged(self, message: SealedMessage, forge: Callable[[Arrays], Arrays]) -> tuple[SealedMessage, Arrays]:
        """The honest answer, with its update replaced by what ``forge`` makes of it, signed and encrypted again."""
        tap = _Tap(self.session.handshake)
        honest = replace(self.session, handshake=cast(Any, tap)).run(message)
        own = decode_arrays(tap.payload, limit=_LIMIT)
        sent = forge(own)
        if sent is own:
            return honest, own
        payload = encode_arrays(sent)
        envelope = _signed_again(honest, payload, self.session.signer)
        return SealedMessage(envelope, self.session.handshake.encrypt_update(tap.order, envelope, payload)), sent


class _Tap:
    """A site's handshake that keeps what it encrypts."""

    def __init__(self, handshake: Any) -> None:
        self._handshake = handshake
        self.payload = b""
        self.order: RoundOrder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handshake, name)

    def encrypt_update(self, order: RoundOrder, envelope: bytes, payload: bytes) -> bytes:
        self.order, self.payload = order, payload
        concealed: bytes = self._handshake.encrypt_update(order, envelope, payload)
        return concealed


def _signed_again(honest: SealedMessage, payload: bytes, signer: Signer) -> bytes:
    own = KeyRing({"self": signer.public_hex})
    statement = parse_statement(open_envelope(honest.envelope, UPDATE_TYPE, own).payload)
    forged = statement.model_copy(update={"update_digest": sha256_hex(payload)})
    return seal(UPDATE_TYPE, forged.canonical(), signer)
