"""Encodes sealed messages for FLARE: byte strings in a ``DXO``, and a return code with a reason for a refusal.

FLARE's serialiser (FOBS) carries the bytes unchanged; every other transport carries the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply

from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire import SealedMessage

REASON_HEADER: Final = "aegis_reason"

_CODES: Final[Mapping[str, tuple[Reason, ...]]] = {
    ReturnCode.SERVICE_UNAVAILABLE: (
        Reason.CONFIGURATION,
        Reason.ATTESTATION_UNAVAILABLE,
        Reason.LEDGER,
        Reason.LEDGER_CORRUPTED,
        Reason.LEDGER_ROLLED_BACK,
        Reason.LEDGER_FORKED,
        Reason.DATASET_UNKNOWN,
        Reason.DATASET_PATH,
        Reason.DATASET_SCHEMA,
        Reason.LINEAGE_UNKNOWN,
        Reason.CONTENT_CHANGED,
        Reason.JOB_KEY_CHANGED,
    ),
    ReturnCode.BAD_TASK_DATA: (
        Reason.MALFORMED,
        Reason.OVERSIZED,
        Reason.UNKNOWN_SIGNER,
        Reason.BAD_SIGNATURE,
        Reason.WRONG_PAYLOAD_TYPE,
        Reason.WRONG_DIGEST,
        Reason.EXPIRED,
        Reason.NOT_YET_VALID,
        Reason.NOT_ADDRESSED_TO_ME,
        Reason.WRONG_PROFILE,
        Reason.ATTESTATION_INVALID,
        Reason.ATTESTATION_UNACCEPTABLE,
        Reason.ATTESTATION_REQUIRED,
        Reason.UNDECRYPTABLE,
        Reason.ROLL_CALL,
        Reason.LOG_UNPROVEN,
        Reason.LOG_FORKED,
        Reason.WRONG_ROUND,
        Reason.WRONG_NONCE,
        Reason.REPLAYED,
        Reason.LATE,
        Reason.ROUND_CONFLICT,
    ),
    ReturnCode.TASK_UNSUPPORTED: (Reason.UNSUPPORTED,),
    ReturnCode.BAD_PEER_CONTEXT: (Reason.UNKNOWN_SITE, Reason.REVOKED, Reason.QUARANTINED),
    ReturnCode.BAD_REQUEST_DATA: (Reason.POLICY, Reason.BUDGET_EXCEEDED, Reason.ACCOUNTING),
    ReturnCode.EXECUTION_RESULT_ERROR: (
        Reason.LEAKAGE,
        Reason.NO_PRIVACY_EVENT,
        Reason.NORM_EXCEEDED,
        Reason.UNSAFE_TRAINING,
        Reason.EVENT_EXCEEDS_PLAN,
        Reason.WRONG_SHAPES,
        Reason.NON_FINITE,
    ),
    ReturnCode.TIMEOUT: (Reason.NO_REPLY,),
    ReturnCode.COMMUNICATION_ERROR: (Reason.TRANSPORT,),
    ReturnCode.TASK_ABORTED: (Reason.ABORTED,),
    ReturnCode.EXECUTION_EXCEPTION: (Reason.INTERNAL,),
}

RETURN_CODES: Final[Mapping[Reason, str]] = MappingProxyType(
    {reason: code for code, reasons in _CODES.items() for reason in reasons}
)
"""FLARE's return code for every reason. The map avoids the codes on which FLARE's server ends the whole job: the
coordinator handles a refusing site, and the round continues."""


def message_in(shareable: Shareable) -> SealedMessage:
    """Return the sealed message in a task. Raises :class:`EnvelopeError` for any other content."""
    try:
        carried = from_shareable(shareable)
    except (ValueError, TypeError, AttributeError) as error:
        raise EnvelopeError(f"the task carries no DXO: {error}") from error
    if carried.data_kind != DataKind.APP_DEFINED or not isinstance(carried.data, dict):
        raise EnvelopeError(f"the task carries a DXO of kind {carried.data_kind!r:.80}, not a sealed message")
    return SealedMessage.from_fields(carried.data)


def sealed_reply(message: SealedMessage) -> Shareable:
    """Return a sealed message in FLARE's form, for either direction."""
    return DXO(DataKind.APP_DEFINED, data=dict(message.to_fields())).to_shareable()


def nothing_to_tell() -> Shareable:
    """Return the answer to a validation: an acknowledgement without any number."""
    return DXO(DataKind.METRICS, data={}).to_shareable()


def refusal(reason: Reason) -> Shareable:
    """Return a refusal that holds only a return code and the reason."""
    return make_reply(RETURN_CODES[reason], headers={REASON_HEADER: reason.value})
