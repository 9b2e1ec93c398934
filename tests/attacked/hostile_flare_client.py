"""A FLARE client whose code is its owner's: on every training task it does what ``AEGIS_HOSTILE_ORDERS`` says.

The file that it names holds the name of one of :data:`ATTACKS` or :data:`ANSWERS`. Everything else of the process is
FLARE's own: its kit, certificate, registration and token, so that FLARE's server takes it for the site that it is.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ServerCommandNames
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.fuel.common.exit_codes import ProcessExitCode
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey, MessageType
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.byte_receiver import RxTask
from nvflare.fuel.f3.streaming.stream_const import STREAM_CHANNEL, STREAM_ERROR_TOPIC, StreamHeaderKey
from nvflare.fuel.utils.fobs import lobs
from nvflare.private.admin_defs import Message as AdminMessage
from nvflare.private.admin_defs import ok_reply
from nvflare.private.defs import ERROR_MSG_PREFIX, CellMessageHeaderKeys, JobFailureMsgKey
from nvflare.private.fed.client.admin import FedAdminAgent

from coreason_enclave.errors import Reason
from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.federation.nvflare.messages import refusal

__all__ = ["ANSWERS", "ATTACKS", "ORDERS", "turn_hostile"]

ORDERS: Final = "AEGIS_HOSTILE_ORDERS"
_VICTIM: Final = "clinic-1"
_AFTER_S: Final = 3.0
"""An attack that is answered by nothing has had this long before the task is."""


class _Hostile:
    """One task of a hostile client: FLARE's cell, and where everybody is."""

    def __init__(self, executor: CoreasonExecutor, fl_ctx: FLContext) -> None:
        self.executor, self.fl_ctx = executor, fl_ctx
        self.cell = fl_ctx.get_engine().get_cell()
        self.job_id = str(fl_ctx.get_job_id())
        self.servers_job, self.victims_job = f"server.{self.job_id}", f"{_VICTIM}.{self.job_id}"

    def stream(self, channel: str, topic: str, to: str, payload: Any) -> None:
        """As FLARE itself sends requests to a job."""
        self.cell.fire_and_forget(channel=channel, topic=topic, targets=to, message=Message(payload=payload))

    def send(self, channel: str, topic: str, to: str, payload: Any, headers: dict[str, Any] | None = None) -> None:
        """A plain message of the cell below."""
        message = Message(dict(headers or {}), payload)
        self.cell.core_cell.fire_and_forget(channel=channel, topic=topic, targets=to, message=message)

    def submit(self, encoded: bytes) -> None:
        """A result that is said to be FLARE's serialisation of something."""
        message = Message({StreamHeaderKey.PAYLOAD_ENCODING: "fobs"}, encoded)
        to = {"channel": CellChannel.SERVER_COMMAND, "topic": ServerCommandNames.SUBMIT_UPDATE}
        self.cell.send_request(**to, target=self.servers_job, request=message, timeout=20.0)


def _section(main: Any) -> bytes:
    body = msgpack.packb(main)
    return lobs.HEADER_STRUCT.pack(lobs.MARKER_MAIN, 0, len(body)) + body


def _object(name: str, decomposer: str, data: Any) -> dict[str, Any]:
    return {"__fobs_type__": name, "__fobs_data__": data, "__fobs_dc__": decomposer}


def _pickled_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    return file.getvalue()


_SHAREABLE = ("nvflare.apis.shareable.Shareable", "nvflare.fuel.utils.fobs.decomposer.DictDecomposer")
_ARRAY = ("numpy.ndarray", "nvflare.app_common.decomposers.numpy_decomposers.NumpyArrayDecomposer")
_CLASS = ("subprocess.Popen", "nvflare.fuel.utils.fobs.decomposer.DataClassDecomposer")
_FATAL = EventType.FATAL_SYSTEM_ERROR


def _bulk(client: _Hostile) -> None:
    headers = {MessageHeaderKey.TOPIC: "fed.event", MessageHeaderKey.CHANNEL: CellChannel.AUX_COMMUNICATION}
    inner = {"headers": headers, "payload": Shareable()}
    item = {"target": client.servers_job, "channel": "server_command", "topic": "abort", "message": inner}
    client.send(CellChannel.CELLNET, "bulk", client.servers_job, [item])


def _disguised(client: _Hostile) -> None:
    """As the victim: the connection is one's own, the origin another's."""
    headers = {MessageHeaderKey.MSG_TYPE: MessageType.REQ, MessageHeaderKey.ORIGIN: client.victims_job}
    core = client.cell.core_cell
    message = Message({**headers, MessageHeaderKey.DESTINATION: client.servers_job}, None)
    message.add_headers({MessageHeaderKey.CHANNEL: STREAM_CHANNEL, MessageHeaderKey.TOPIC: STREAM_ERROR_TOPIC})
    core._send_to_endpoint(core.agents["server"].endpoint, message)


def _all_others(client: _Hostile) -> None:
    client.send(CellChannel.CLIENT_MAIN, "train.abort", _VICTIM, _admin("train.abort", client.job_id))
    client.send(CellChannel.CLIENT_MAIN, "train.shutdown", _VICTIM, _admin("train.shutdown", client.job_id))
    client.send(CellChannel.CLIENT_COMMAND, "abort", client.victims_job, Shareable())
    client.stream(CellChannel.AUX_COMMUNICATION, "__end_run__", client.victims_job, _with_peer(client))
    client.send("_net_manager", "stop_cell", client.victims_job, None)
    client.send("_net_manager", "stop_cell", _VICTIM, None)


def _admin(topic: str, job_id: str) -> AdminMessage:
    message = AdminMessage(topic=topic, body="")
    message.set_header("job_id", job_id)
    return message


def _with_peer(client: _Hostile) -> Shareable:
    shareable = Shareable()
    shareable.set_peer_props(client.fl_ctx.get_all_public_props())
    return shareable


def _status(client: _Hostile) -> None:
    headers = {CellMessageHeaderKeys.JOB_ID: client.job_id}
    client.send(CellChannel.SERVER_PARENT_LISTENER, "update_run_status", "server", {"execution_error": True}, headers)
    other = {CellMessageHeaderKeys.JOB_ID: "no-such-job"}
    client.send(CellChannel.SERVER_PARENT_LISTENER, "heartbeat", "server", {}, other)


def _reports(client: _Hostile) -> None:
    for code in (ProcessExitCode.EXCEPTION, ProcessExitCode.UNSAFE_COMPONENT):
        report = {JobFailureMsgKey.JOB_ID: client.job_id, JobFailureMsgKey.CODE: code, JobFailureMsgKey.REASON: "none"}
        client.send(CellChannel.SERVER_MAIN, "report_job_failure", "server", report)


def _too_large(client: _Hostile) -> None:
    """Every answer that the job has streamed to this client lately was too large for it, it says."""
    for (origin, number), task in list(RxTask.rx_task_map.items()):
        if origin == client.servers_job:
            headers = {StreamHeaderKey.ERROR_TYPE: "BlobSizeError", StreamHeaderKey.ERROR_MSG: "too large"}
            headers |= {StreamHeaderKey.CHANNEL: task.channel, StreamHeaderKey.TOPIC: task.topic}
            headers |= {StreamHeaderKey.STREAM_REQ_ID: task.headers.get(StreamHeaderKey.STREAM_REQ_ID)}
            headers |= {StreamHeaderKey.STREAM_ID: number}
            client.send(STREAM_CHANNEL, STREAM_ERROR_TOPIC, client.servers_job, None, headers)


ATTACKS: Final[Mapping[str, Callable[[_Hostile], Any]]] = {
    "a fatal event": lambda client: client.executor.fire_fed_event(_FATAL, Shareable(), client.fl_ctx),
    "a report that the job failed": _reports,
    "bytes that are no serialisation": lambda client: client.submit(b"\x64\x00" + b"\xff" * 64),
    "an object outside the allow-list": lambda client: client.submit(
        _section(_object(*_SHAREABLE, {"DXO": _object(*_CLASS, {"args": ["true"]})}))
    ),
    "an array of pickled objects": lambda client: client.submit(
        _section(_object(*_SHAREABLE, {"DXO": _object(*_ARRAY, _pickled_array())}))
    ),
    "an error that ends a sender": _too_large,
    "an abort": lambda client: client.stream(
        CellChannel.SERVER_COMMAND, "abort", client.servers_job, _with_peer(client)
    ),
    "a plain abort": lambda client: client.send(CellChannel.SERVER_COMMAND, "abort", client.servers_job, Shareable()),
    "a stop of the server's cells": lambda client: [
        client.send("_net_manager", topic, to, None)
        for topic in ("stop_cell", "stop")
        for to in ("server", client.servers_job)
    ],
    "a status of the job": _status,
    "a bulk message": _bulk,
    "another site's name": _disguised,
    "orders to another site": _all_others,
}


ANSWERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "answers that are none": lambda topic: {"no": "answer"},
    "resources that are none": lambda topic: ok_reply(body="lots") if topic == "scheduler.check_resource" else None,
    "a part that cannot start": lambda topic: (
        ok_reply(body=f"{ERROR_MSG_PREFIX}: no") if topic == "train.start_job" else None
    ),
}
"""What the client's parent process answers FLARE's administration by topic; None: what FLARE itself would."""


def turn_hostile() -> None:
    """Have this process attack as ordered: on every training task, or when FLARE's administration asks it."""
    _turn_executor()
    _turn_administration()


def _ordered() -> str:
    return Path(os.environ[ORDERS]).read_text().strip()


def _turn_administration() -> None:
    honest = FedAdminAgent._dispatch_request

    def dispatch(self: FedAdminAgent, request: Message) -> Message:
        answer = ANSWERS.get(_ordered(), lambda _: None)(request.payload.topic)
        return honest(self, request) if answer is None else Message({}, answer)

    FedAdminAgent._dispatch_request = dispatch


def _turn_executor() -> None:
    """Attack on every training task, and answer it by a refusal afterwards."""
    honest = CoreasonExecutor.execute

    def execute(self: CoreasonExecutor, task_name: str, shareable: Shareable, fl_ctx: FLContext, signal: Any) -> Any:
        attack = ATTACKS.get(_ordered())
        if task_name != "train" or attack is None:
            return honest(self, task_name, shareable, fl_ctx, signal)
        try:
            attack(_Hostile(self, fl_ctx))
        except Exception as error:  # noqa: BLE001 - told in the client's log, for whoever reads why an attack failed
            self.log_error(fl_ctx, f"the attack failed by itself: {type(error).__name__}: {error}", fire_event=False)
        time.sleep(_AFTER_S)
        return refusal(Reason.NORM_EXCEEDED)

    CoreasonExecutor.execute = execute  # type: ignore[method-assign]
