"""The site as a Flower ``ClientApp``: a sealed order in, a sealed update or a reason code out."""

from __future__ import annotations

from typing import Protocol

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from coreason_enclave.errors import EnclaveError
from coreason_enclave.updates import WIRE_RECORD, SealedMessage

__all__ = ["REFUSED", "OrderHandler", "client_app"]

REFUSED = 1000
"""Flower error code of every refusal; which one is the error's ``reason``, one of :class:`Reason`."""


class OrderHandler(Protocol):
    """Answers a sealed order; :class:`~coreason_enclave.session.SecureSession` does."""

    def run(self, message: SealedMessage) -> SealedMessage:
        """Raises :class:`EnclaveError` to refuse."""
        ...


def client_app(handler: OrderHandler) -> ClientApp:
    """A ``ClientApp`` that hands each training message to ``handler``. Details of a refusal stay at the site."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context  # the site's state is its ledger, never Flower's
        try:
            sealed = handler.run(SealedMessage.from_fields(message.content.config_records.get(WIRE_RECORD)))
        except EnclaveError as refusal:
            return Message(error=Error(code=REFUSED, reason=refusal.reason.value), reply_to=message)
        return Message(content=RecordDict({WIRE_RECORD: ConfigRecord({**sealed.to_fields()})}), reply_to=message)

    return app
