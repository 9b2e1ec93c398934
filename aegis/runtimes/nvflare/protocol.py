"""A sealed message as a FLARE task's data, and a FLARE result as what came of a site.

A request and an answer are ``DXO(APP_DEFINED, {"envelope", "arrays", "roll_call"})`` of byte strings, which FLARE's own
serialisation carries as they are. A refusal is a reply with another return code than ``OK`` and the reason in the
header :data:`REASON_HEADER`, nothing else. ``coreason_enclave.federation.executor`` is the other end.
"""

from __future__ import annotations

from typing import Final

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable

from aegis.rounds.transport import Content, DeliveryFailure, SiteRefusal
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire.updates import SealedMessage

__all__ = ["REASON_HEADER", "content_of", "to_shareable"]

REASON_HEADER: Final = "aegis_reason"

_NOT_DELIVERED = frozenset(
    {
        ReturnCode.COMMUNICATION_ERROR,
        ReturnCode.TIMEOUT,
        ReturnCode.TASK_ABORTED,
        ReturnCode.EARLY_TERMINATION,
        ReturnCode.SERVER_NOT_READY,
        ReturnCode.SERVICE_UNAVAILABLE,
    }
)
"""What FLARE answers in a site's place, or a site that stops: asking again may mend it."""

_NOBODY_ANSWERED = frozenset({Reason.TRANSPORT.value, Reason.NO_REPLY.value})
"""What an executor says of an agent that does not run, or died over an order: it is asked again, like a silent one."""

_REASONS = {reason.value: reason for reason in Reason}


def to_shareable(message: SealedMessage) -> Shareable:
    """The data of a task."""
    return DXO(DataKind.APP_DEFINED, data=dict(message.to_fields())).to_shareable()


def content_of(result: Shareable) -> Content | DeliveryFailure:
    """What a result means; never raises, whatever a site sent."""
    code = result.get_return_code(ReturnCode.OK)
    if code == ReturnCode.OK:
        return _sealed(result)
    said = result.get_header(REASON_HEADER)
    if isinstance(said, str) and said in _NOBODY_ANSWERED:
        return DeliveryFailure(f"{said}: FLARE's client reached nobody behind it")
    if isinstance(said, str) and said in _REASONS:
        return SiteRefusal(_REASONS[said])
    if isinstance(code, str) and code in _NOT_DELIVERED:
        return DeliveryFailure(f"return code {code}")
    return SiteRefusal(Reason.INTERNAL)


def _sealed(result: Shareable) -> SealedMessage | EnvelopeError:
    try:
        data = from_shareable(result).data
        return SealedMessage.from_fields(data if isinstance(data, dict) else None)
    except EnvelopeError as error:
        return error
    except Exception as error:  # noqa: BLE001 - FLARE raises many kinds over what is no DXO: all mean bytes of no use
        return EnvelopeError(f"the result is no message of ours: {type(error).__name__}")
