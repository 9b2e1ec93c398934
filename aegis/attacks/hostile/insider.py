"""An insider in a site's process: sees the site's update before encryption, and can replace it.

No signature reveals an insider. Attestation does not reveal one either if the measured code admits the insider. Only a
robust aggregator defends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from coreason_enclave.crypto import KeyRing, Signer, open_envelope, seal, sha256_hex
from coreason_enclave.session import SecureSession
from coreason_enclave.wire import (
    UPDATE_TYPE,
    Aborted,
    Arrays,
    Handler,
    RequestKind,
    RoundOrder,
    SealedMessage,
    UpdateStatement,
    decode_arrays,
    encode_arrays,
    never,
)

_LIMIT = 1 << 30


class Revealing(Handler, Protocol):
    """A site's handler that also reveals the update in its reply."""

    def revealed(self, message: SealedMessage) -> tuple[SealedMessage, Arrays]:
        """Reply to an order; return the reply and its update."""
        ...


class ReplacesUpdates(ABC):
    """Base of an attacker: answers orders by ``run``, and passes every other request on as an honest site does."""

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        """See :class:`~coreason_enclave.wire.handler.Handler`."""
        if kind is RequestKind.TRAIN:
            return self.run(message)
        return self.honest().handle(kind, message, aborted=aborted)

    @abstractmethod
    def honest(self) -> Handler:
        """Return the handler behind the attacker."""

    @abstractmethod
    def run(self, message: SealedMessage) -> SealedMessage:
        """Answer an order."""


@dataclass(frozen=True)
class Insider(ReplacesUpdates):
    """Passes on a session's own replies, and sees their updates."""

    session: SecureSession

    def honest(self) -> Handler:
        """Return the session."""
        return self.session

    def run(self, message: SealedMessage) -> SealedMessage:
        """Answer an order as an honest site does."""
        return self.revealed(message)[0]

    def revealed(self, message: SealedMessage) -> tuple[SealedMessage, Arrays]:
        """See :class:`Revealing`."""
        return self.forged(message, lambda honest: honest)

    def forged(self, message: SealedMessage, forge: Callable[[Arrays], Arrays]) -> tuple[SealedMessage, Arrays]:
        """Return the honest reply with its update replaced by ``forge(update)``, signed and encrypted again."""
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
    """A site's handshake that keeps a copy of each encrypted update."""

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
    statement = UpdateStatement.from_payload(open_envelope(honest.envelope, UPDATE_TYPE, own).payload)
    forged = statement.model_copy(update={"update_digest": sha256_hex(payload)})
    return seal(UPDATE_TYPE, forged.canonical(), signer)
