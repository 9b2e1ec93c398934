"""The site as a Flower ``ClientApp``: a sealed message in, a sealed answer or a reason code out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from coreason_enclave.errors import EnclaveError
from coreason_enclave.wire.updates import WIRE_RECORD, SealedMessage

__all__ = ["REFUSED", "OrderHandler", "client_app"]

REFUSED = 1000
"""Flower error code of every refusal. The error's ``reason`` holds the reason code, a value of :class:`Reason`."""


class OrderHandler(Protocol):
    """Answers coordinators' messages, as :class:`~coreason_enclave.session.secure_session.SecureSession` does."""

    def run(self, message: SealedMessage) -> SealedMessage:
        """Answer an order with an update. Raises :class:`EnclaveError` to refuse."""
        ...

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Answer an invitation with an enrolment. Raises :class:`EnclaveError` to refuse."""
        ...

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Answer a challenge with evidence. Raises :class:`EnclaveError` to refuse."""
        ...

    def witness(self, message: SealedMessage) -> SealedMessage:
        """Answer an announcement with a statement. Raises :class:`EnclaveError` to refuse."""
        ...


def client_app(handler: OrderHandler) -> ClientApp:
    """Return a ``ClientApp`` that passes each message to ``handler``. Details of a refusal stay at the site."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context  # the site keeps its state in its ledger, never in Flower's context
        return _answered(message, handler.run)

    @app.query("enrol")
    def enrol(message: Message, context: Context) -> Message:
        del context
        return _answered(message, handler.enrol)

    @app.query("attest")
    def attest(message: Message, context: Context) -> Message:
        del context
        return _answered(message, handler.attest)

    @app.query("witness")
    def witness(message: Message, context: Context) -> Message:
        del context
        return _answered(message, handler.witness)

    return app


def _answered(message: Message, act: Callable[[SealedMessage], SealedMessage]) -> Message:
    try:
        sealed = act(SealedMessage.from_fields(message.content.config_records.get(WIRE_RECORD)))
    except EnclaveError as refusal:
        return Message(error=Error(code=REFUSED, reason=refusal.reason.value), reply_to=message)
    return Message(content=RecordDict({WIRE_RECORD: ConfigRecord({**sealed.to_fields()})}), reply_to=message)
