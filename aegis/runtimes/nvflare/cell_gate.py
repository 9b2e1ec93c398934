"""The gate before the cells of FLARE's server and of its jobs: a component that FLARE builds before it opens a cell.

``resources.json`` of the server's kit names it (:mod:`.guards`). FLARE has hooks for what it does when a message is in,
and none for the time before its own decoding, which a client can have end a process. The gate therefore takes the place
of six of FLARE's own functions, for the processes that it is built in:

::

    CoreCell.start                       adds the check of every incoming message, before the first can come in
    Adapter.call                         looks a streamed request through, and decodes it, before FLARE does
    FedAdminServer.send_requests         sites' answers to FLARE's administration, without those that it could not read
    job_runner.check_client_replies      a site that cannot start its part of a job ends nothing but that part
    FederatedServer.process_job_failure  a site's report of its own job's end ends nothing but that site's part
    WFCommServer._job_policy_violated    sites that are away are the coordinator's matter, who pauses where it must

What is refused is dropped, and told by the name of who sent it. In the server's parent process it is told to the cells
of the jobs that run, whose coordinators set the site aside.
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

__all__ = ["CellGate", "do_without", "is_guarded"]

_NOTICES: Final = "aegis_gate"
_NOTICE_EVERY_S: Final = 1.0
_OUTCOMES_S: Final = 30.0
"""How long FLARE keeps a finished job open for the word of a site's client; by itself 15 minutes."""
_ENDED: Final = 0
"""A job process's exit status that says nothing against it."""

_installed, _needless = threading.Event(), threading.Event()


def is_guarded() -> bool:
    """Whether this process has the gate, or needs none."""
    return _installed.is_set() or _needless.is_set()


def do_without() -> None:
    """Say that this process needs no gate: a simulator, all of whose processes are of the one who started it."""
    _needless.set()


class CellGate(FLComponent):  # type: ignore[misc]  # FLARE ships no types
    """Installs the gate in the process that builds it, once."""

    def __init__(self) -> None:
        super().__init__()
        if not _installed.is_set():
            _install()
            _installed.set()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """When the server's parent process starts, set FLARE's own accounts right.

        - A job that is listed as running has no process any more: the server was killed. FLARE would list it for ever.
        - A silent site does not hold a finished job open.
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
    FederatedServer.process_job_failure = lambda server, request: report(server, _bearable(request))
    WFCommServer._job_policy_violated = lambda _: False


def _checked(cell: Any) -> Callable[[Message], Message | None]:
    """A filter of a cell's incoming messages; FLARE drops a message for which it returns something."""

    def check(message: Message) -> Message | None:
        found = refused(message)
        if found is not None:
            OFFENCES.report(found.sender, found.why)
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
    """FLARE keeps a stream's chunks in memory until the last is in."""
    if message.get_header(MessageHeaderKey.TOPIC) != STREAM_DATA_TOPIC:
        return
    number, kind = (message.get_header(key) for key in (StreamHeaderKey.STREAM_ID, StreamHeaderKey.DATA_TYPE))
    size = len(message.payload or b"")
    if not isinstance(number, (int, str)):
        raise NotPlain("a stream without a number")
    if not STREAMS.take(site, number, size, is_last=kind == StreamDataType.FINAL):
        raise NotPlain("more bytes than a message of this job has")


def _require_plain_message(message: Message, encoding: str) -> None:
    """Look a message's payload through, and make it whole, where FLARE would decode it next."""
    if message.get_header(encoding) != Encoding.FOBS:
        return
    payload = message.payload.get_list() if isinstance(message.payload, BufferList) else message.payload
    message.payload = b"".join(payload) if isinstance(payload, list) else bytes(payload or b"")
    require_plain(message.payload)


class _Decoded:
    """A stream's future whose result FLARE finds decoded already."""

    def __init__(self, message: Message) -> None:
        self.headers, self._payload = message.headers, message.payload

    def result(self) -> Any:
        """The payload."""
        return self._payload


def _streamed(call: Any, adapter: Any, future: Any, args: Any, kwargs: Any) -> None:
    """A streamed request of a site: one that cannot be decoded is refused, and FLARE's own code never sees it."""
    origin = future.headers.get(MessageHeaderKey.ORIGIN)
    if not isinstance(origin, str) or origin == SERVER or origin.startswith(f"{SERVER}."):
        call(adapter, future, *args, **kwargs)
        return
    message = Message(future.headers, future.result())
    try:
        _require_plain_message(message, StreamHeaderKey.PAYLOAD_ENCODING)
        decode_payload(message, StreamHeaderKey.PAYLOAD_ENCODING, fobs_ctx=adapter.cell.get_fobs_context())
        _require_kind(message)
    except Exception as error:  # noqa: BLE001 - FOBS raises many kinds over what is plain and yet none of its objects
        why = str(error) if isinstance(error, NotPlain) else f"what cannot be decoded ({type(error).__name__})"
        OFFENCES.report(_site(origin), f"sends {why}")
        _answer(adapter, future.headers)
        return
    call(adapter, _Decoded(message), *args, **kwargs)


def _require_kind(message: Message) -> None:
    """What is for a job's workflow, or for its components, is a shareable; FLARE takes that for granted."""
    channel = message.get_header(StreamHeaderKey.CHANNEL)
    if channel in (CellChannel.SERVER_COMMAND, CellChannel.AUX_COMMUNICATION) and not isinstance(
        message.payload, Shareable
    ):
        raise NotPlain("what is no shareable")


def _answer(adapter: Any, headers: dict[str, Any]) -> None:
    """Tell the sender that its request was refused, so that it need not wait."""
    adapter._send_response(
        make_reply(ReturnCode.INVALID_REQUEST),
        headers.get(StreamHeaderKey.STREAM_REQ_ID, ""),
        headers.get(MessageHeaderKey.REQ_ID, ""),
        headers.get(StreamHeaderKey.CHANNEL),
        headers.get(StreamHeaderKey.TOPIC),
        headers.get(MessageHeaderKey.ORIGIN),
        headers.get(MessageHeaderKey.SECURE, False),
    )


def _bearable(request: Message) -> Message:
    """A site's report that its part of a job failed, as FLARE takes one of a part that ended well."""
    if isinstance(request.payload, dict) and request.payload.get(JobFailureMsgKey.CODE) != _ENDED:
        site = _site(str(request.get_header(MessageHeaderKey.ORIGIN)))
        logging.getLogger(__name__).warning("the job's process at %s failed: the job goes on without it", site)
        request.payload[JobFailureMsgKey.CODE] = _ENDED
    return request


def _site(cell: str) -> str:
    return cell.split(".", 1)[0]


class _Notices:
    """Offences that the parent process noticed, told to the jobs' cells that are connected to it."""

    def __init__(self, cell: Any) -> None:
        self._cell, self._lock = cell, threading.Lock()
        self._told: dict[str, float] = {}

    def tell(self, site: str, why: str) -> None:
        """Tell every job, once a second for each site at most."""
        with self._lock:
            now = time.monotonic()
            if now - self._told.get(site, -_NOTICE_EVERY_S) < _NOTICE_EVERY_S:
                return
            self._told[site] = now
        jobs = [name for name in list(self._cell.agents) if name.startswith(f"{SERVER}.")]
        if jobs:
            notice = Message(payload={"site": site, "why": why})
            self._cell.fire_and_forget(_NOTICES, "offence", jobs, notice, optional=True)


def _noticed(request: Message) -> None:
    """A notice of the parent process: no site's message reaches this channel."""
    if request.get_header(MessageHeaderKey.MSG_TYPE) == MessageType.REQ and isinstance(request.payload, dict):
        OFFENCES.report(str(request.payload.get("site")), str(request.payload.get("why")))
