"""The gate before the cells of FLARE's server and jobs: a component that FLARE builds before it opens a cell.

FLARE offers hooks for received messages, but no hook before its own decoding, where a client can end a process. In the
processes that build the gate, the gate therefore replaces six of FLARE's own functions. ``resources.json`` of the
server's kit names the gate (:mod:`.site_guards`).

::

    CoreCell.start                       installs the check of incoming messages before the first message can arrive
    Adapter.call                         checks and decodes a streamed request before FLARE does
    FedAdminServer.send_requests         drops unreadable site answers to FLARE's administration
    job_runner.check_client_replies      a site that cannot start its part of a job ends only its own part
    FederatedServer.process_job_failure  a site's report of its own job's end ends only its own part
    WFCommServer._job_policy_violated    absent sites never end the job: the coordinator pauses the run if necessary

The gate drops a refused message and reports the sender's name. The server's parent process forwards each report to the
cells of the running jobs, whose coordinators quarantine the site.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable
from nvflare.fuel.f3.cellnet.cell import Adapter
from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.f3.cellnet.defs import CellChannel, Encoding, MessageHeaderKey, MessageType, ReturnCode
from nvflare.fuel.f3.cellnet.utils import decode_payload, make_reply
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.stream_const import STREAM_DATA_TOPIC, StreamDataType, StreamHeaderKey
from nvflare.fuel.utils.buffer_list import BufferList
from nvflare.private.defs import JobFailureMsgKey
from nvflare.private.fed.server import job_runner
from nvflare.private.fed.server.admin import FedAdminServer
from nvflare.private.fed.server.fed_server import FederatedServer

from aegis.runtimes.nvflare.admin_answers import note_failures, without_unreadable
from aegis.runtimes.nvflare.cell_rules import SERVER, disarm, refused, sender_of
from aegis.runtimes.nvflare.plain_payloads import NotPlain, require_plain
from aegis.runtimes.nvflare.stream_budget import STREAMS
from aegis.runtimes.nvflare.violations import OFFENCES

_NOTICES: Final = "aegis_gate"
_NOTICE_EVERY_S: Final = 1.0
_OUTCOMES_S: Final = 30.0
"""Seconds for which FLARE keeps a finished job open for a site's client; FLARE's default is 15 minutes."""
_ENDED: Final = 0
"""Exit status of a job process that ended well."""

_installed, _needless = threading.Event(), threading.Event()


def is_guarded() -> bool:
    """Return True if this process has the gate, or needs none."""
    return _installed.is_set() or _needless.is_set()


def do_without() -> None:
    """Declare that this process needs no gate: a simulator, whose processes all belong to the user who started it."""
    _needless.set()


class CellGate(FLComponent):  # type: ignore[misc]  # FLARE ships no types
    """A FLARE component that installs the gate once in the process that builds it."""

    def __init__(self) -> None:
        super().__init__()
        if not _installed.is_set():
            _install()
            _installed.set()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Repair FLARE's job records when the server's parent process starts.

        - Jobs listed as running have no process, because the server was killed. FLARE would list these jobs for ever.
        - A silent site must not hold a finished job open.
        """
        if event_type == EventType.SYSTEM_START:
            runner = fl_ctx.get_engine().job_runner
            runner.client_outcome_wait_timeout = _OUTCOMES_S
            runner.update_abnormal_finished_jobs([], fl_ctx)


def _install() -> None:
    start, call = CoreCell.start, Adapter.call
    ask, report = FedAdminServer.send_requests, FederatedServer.process_job_failure

    def started(cell: Any) -> Any:
        cell.add_incoming_filter("*", "*", _checked(cell))
        if cell.get_fqcn() == SERVER:
            OFFENCES.subscribe(_Notices(cell).tell)
        else:
            cell.register_request_cb(_NOTICES, "*", _noticed)
        return start(cell)

    def send_requests(server: Any, *args: Any, **kwargs: Any) -> Any:
        return without_unreadable(ask(server, *args, **kwargs), OFFENCES)

    CoreCell.start = started
    FedAdminServer.send_requests = send_requests
    job_runner.check_client_replies = note_failures
    Adapter.call = lambda adapter, future, *args, **kwargs: _streamed(call, adapter, future, args, kwargs)
    FederatedServer.process_job_failure = lambda server, request: report(server, _without_failure(request))
    WFCommServer._job_policy_violated = lambda _: False


def _checked(cell: Any) -> Callable[[Message], Message | None]:
    """Return a filter for a cell's incoming messages. FLARE drops a message if the filter returns a value."""

    def check(message: Message) -> Message | None:
        refusal = refused(message)
        if refusal is not None:
            OFFENCES.report(refusal.sender, refusal.why)
            return make_reply(ReturnCode.INVALID_REQUEST)
        sender = sender_of(message)
        if sender is None:
            return None
        disarm(message)
        if message.get_header(MessageHeaderKey.DESTINATION) != cell.get_fqcn():
            return None
        try:
            _require_room(message, _site(sender))
            _require_plain_message(message, MessageHeaderKey.PAYLOAD_ENCODING)
        except NotPlain as error:
            OFFENCES.report(_site(sender), f"sends {error}")
            return make_reply(ReturnCode.INVALID_REQUEST)
        return None

    return check


def _require_room(message: Message, site: str) -> None:
    """Raise :class:`NotPlain` if a stream exceeds the budget: FLARE keeps chunks in memory until the last arrives."""
    if message.get_header(MessageHeaderKey.TOPIC) != STREAM_DATA_TOPIC:
        return
    number, kind = (message.get_header(key) for key in (StreamHeaderKey.STREAM_ID, StreamHeaderKey.DATA_TYPE))
    size = len(message.payload or b"")
    if not isinstance(number, (int, str)):
        raise NotPlain("a stream without a number")
    if not STREAMS.take(site, number, size, is_last=kind == StreamDataType.FINAL):
        raise NotPlain("more bytes than a message of this job has")


def _require_plain_message(message: Message, encoding: str) -> None:
    """Join and check a message's payload if FLARE would decode the payload next."""
    if message.get_header(encoding) != Encoding.FOBS:
        return
    payload = message.payload.get_list() if isinstance(message.payload, BufferList) else message.payload
    message.payload = b"".join(payload) if isinstance(payload, list) else bytes(payload or b"")
    require_plain(message.payload)


class _Decoded:
    """Stands for a stream's future whose result is already decoded."""

    def __init__(self, message: Message) -> None:
        self.headers, self._payload = message.headers, message.payload

    def result(self) -> Any:
        """Return the payload."""
        return self._payload


def _streamed(call: Any, adapter: Any, future: Any, args: Any, kwargs: Any) -> None:
    """Handle a site's streamed request. Refuses an undecodable request before FLARE's own code sees the request."""
    origin = future.headers.get(MessageHeaderKey.ORIGIN)
    if not isinstance(origin, str) or origin == SERVER or origin.startswith(f"{SERVER}."):
        call(adapter, future, *args, **kwargs)
        return
    message = Message(future.headers, future.result())
    try:
        _require_plain_message(message, StreamHeaderKey.PAYLOAD_ENCODING)
        decode_payload(message, StreamHeaderKey.PAYLOAD_ENCODING, fobs_ctx=adapter.cell.get_fobs_context())
        _require_kind(message)
    except Exception as error:  # noqa: BLE001 - FOBS raises many kinds for plain but invalid payloads
        why = str(error) if isinstance(error, NotPlain) else f"an undecodable payload ({type(error).__name__})"
        OFFENCES.report(_site(origin), f"sends {why}")
        _answer(adapter, future.headers)
        return
    call(adapter, _Decoded(message), *args, **kwargs)


def _require_kind(message: Message) -> None:
    """Raise :class:`NotPlain` unless a payload for a job's workflow or components is a shareable, as FLARE assumes."""
    channel = message.get_header(StreamHeaderKey.CHANNEL)
    if channel in (CellChannel.SERVER_COMMAND, CellChannel.AUX_COMMUNICATION) and not isinstance(
        message.payload, Shareable
    ):
        raise NotPlain("a payload that is not a Shareable")


def _answer(adapter: Any, headers: dict[str, Any]) -> None:
    """Send the sender a refusal, so that the sender need not wait."""
    adapter._send_response(
        make_reply(ReturnCode.INVALID_REQUEST),
        headers.get(StreamHeaderKey.STREAM_REQ_ID, ""),
        headers.get(MessageHeaderKey.REQ_ID, ""),
        headers.get(StreamHeaderKey.CHANNEL),
        headers.get(StreamHeaderKey.TOPIC),
        headers.get(MessageHeaderKey.ORIGIN),
        headers.get(MessageHeaderKey.SECURE, False),
    )


def _without_failure(request: Message) -> Message:
    """Rewrite a site's report of a failed job part as the report of a part that ended well."""
    if isinstance(request.payload, dict) and request.payload.get(JobFailureMsgKey.CODE) != _ENDED:
        site = _site(str(request.get_header(MessageHeaderKey.ORIGIN)))
        logging.getLogger(__name__).warning("the job's process at %s failed: the job continues without the site", site)
        request.payload[JobFailureMsgKey.CODE] = _ENDED
    return request


def _site(cell: str) -> str:
    return cell.split(".", 1)[0]


class _Notices:
    """Forwards violations from the parent process to the connected cells of the jobs."""

    def __init__(self, cell: Any) -> None:
        self._cell, self._lock = cell, threading.Lock()
        self._last_notice: dict[str, float] = {}

    def tell(self, site: str, why: str) -> None:
        """Notify every job, at most once a second per site."""
        with self._lock:
            now = time.monotonic()
            if now - self._last_notice.get(site, -_NOTICE_EVERY_S) < _NOTICE_EVERY_S:
                return
            self._last_notice[site] = now
        jobs = [name for name in list(self._cell.agents) if name.startswith(f"{SERVER}.")]
        if jobs:
            notice = Message(payload={"site": site, "why": why})
            self._cell.fire_and_forget(_NOTICES, "strike", jobs, notice, optional=True)


def _noticed(request: Message) -> None:
    """Record a notice from the parent process. The rules keep sites off this channel."""
    if request.get_header(MessageHeaderKey.MSG_TYPE) == MessageType.REQ and isinstance(request.payload, dict):
        OFFENCES.report(str(request.payload.get("site")), str(request.payload.get("why")))
