"""The site as a Flower ``ClientApp``: a sealed message in, a sealed answer or a reason code out."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from coreason_enclave.errors import EnclaveError
from coreason_enclave.wire import WIRE_RECORD, Handler, RequestKind, SealedMessage

REFUSED = 1000
"""Flower error code of every refusal. The error's ``reason`` holds the reason code, a value of :class:`Reason`."""


def client_app(handler: Handler) -> ClientApp:
    """Return a ``ClientApp`` that passes each message to ``handler``. Details of a refusal stay at the site."""
    app = ClientApp()

    def answering(kind: RequestKind) -> Callable[[Message, Context], Message]:
        def answer(message: Message, context: Context) -> Message:
            del context  # the site keeps its state in its ledger, never in Flower's context
            return _answered(message, kind, handler)

        return answer

    app.train()(answering(RequestKind.TRAIN))
    for kind in (RequestKind.ENROL, RequestKind.ATTEST, RequestKind.WITNESS):
        app.query(kind.value)(answering(kind))
    return app


def _answered(message: Message, kind: RequestKind, handler: Handler) -> Message:
    try:
        sealed = handler.handle(kind, SealedMessage.from_fields(message.content.config_records.get(WIRE_RECORD)))
    except EnclaveError as refusal:
        return Message(error=Error(code=REFUSED, reason=refusal.reason.value), reply_to=message)
    fields = {} if sealed is None else sealed.to_fields()
    return Message(content=RecordDict({WIRE_RECORD: ConfigRecord({**fields})}), reply_to=message)
