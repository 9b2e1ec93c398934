"""Converts a sealed message to a FLARE task's data, and a FLARE result to a site's reply.

- Request and answer: ``DXO(APP_DEFINED, {"envelope", "arrays", "roll_call"})`` of byte strings, which FLARE's own
  serialisation carries unchanged.
- Refusal: a reply with a return code other than ``OK`` and the reason in the header :data:`REASON_HEADER`, and no
  further content.

``coreason_enclave.federation.executor`` implements the site's end.
"""

from __future__ import annotations

from typing import Final

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable

from aegis.rounds import Content, DeliveryFailure, SiteRefusal
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire import SealedMessage

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
"""Return codes that FLARE sends in a site's place, or for a stopping site: a retry may help."""

_NO_ANSWER = frozenset({Reason.TRANSPORT.value, Reason.NO_REPLY.value})
"""Reasons from an executor whose agent is down or died during an order. The coordinator retries, as after silence."""

_REASONS = {reason.value: reason for reason in Reason}


def to_shareable(message: SealedMessage) -> Shareable:
    """Return a message as the data of a task."""
    return DXO(DataKind.APP_DEFINED, data=dict(message.to_fields())).to_shareable()


def content_of(result: Shareable) -> Content | DeliveryFailure:
    """Interpret a result. Never raises, whatever a site sent."""
    code = result.get_return_code(ReturnCode.OK)
    if code == ReturnCode.OK:
        return _sealed(result)
    reason = result.get_header(REASON_HEADER)
    if isinstance(reason, str) and reason in _NO_ANSWER:
        return DeliveryFailure(f"{reason}: FLARE's client did not reach the site's agent")
    if isinstance(reason, str) and reason in _REASONS:
        return SiteRefusal(_REASONS[reason])
    if isinstance(code, str) and code in _NOT_DELIVERED:
        return DeliveryFailure(f"return code {code}")
    return SiteRefusal(Reason.INTERNAL)


def _sealed(result: Shareable) -> SealedMessage | EnvelopeError:
    try:
        data = from_shareable(result).data
        return SealedMessage.from_fields(data if isinstance(data, dict) else None)
    except EnvelopeError as error:
        return error
    except Exception as error:  # noqa: BLE001 - FLARE raises many kinds without a DXO: unusable bytes
        return EnvelopeError(f"the result is not a sealed message: {type(error).__name__}")
