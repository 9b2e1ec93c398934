"""Transports messages as FLARE tasks, one task per message and client; a mailbox holds results and wakes the waiter.

- FLARE authenticates the client behind a result. The transport never reads a sender from the result itself.
- A task stands until its client answers, its time runs out, or the same site gets a newer request.
- If a client asks again without an answer, as a restarted site does, FLARE hands out the same task again.
- If the gate before FLARE's cells (:mod:`.cell_gate`) refuses a client's message, the refusal counts as the client's
  answer: an unusable reply.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext

from aegis.errors import RunAborted
from aegis.rounds import InboundMessage, OutboundMessage, TransportFailed
from aegis.runtimes.nvflare.protocol import content_of, to_shareable
from coreason_enclave.errors import EnvelopeError

_STRANGER: Final = 0
"""Node id of a sender outside the participants."""


class TaskSender(Protocol):
    """The part of FLARE's ``Controller`` that the transport uses."""

    def send(self, task: Task, fl_ctx: FLContext, targets: list[str]) -> None:
        """Offer the task to the one client in ``targets`` at its next poll."""
        ...

    def cancel_task(self, task: Task) -> None:
        """Withdraw the task from all clients."""
        ...


@dataclass
class _Standing:
    """A client's open task, which the client holds or may fetch until it answers."""

    task: Task
    message_id: str
    ttl_s: float
    answered: bool = False


@dataclass(frozen=True)
class _StoredReply:
    """A received reply, kept until the coordinator pulls it or its lifetime ends."""

    inbound: InboundMessage
    forgotten_at: float


class FlareTransport:
    """A transport over FLARE tasks; see :class:`~aegis.rounds.transport.Transport`.

    Args:
        controller: schedules tasks. fl_ctx: context of the workflow.
        nodes: node ids, above zero, by FLARE client name.
        aborted: returns True if FLARE wants the workflow to end. clock: monotonic seconds.
        expect: called with the size of each message in bytes, because answers will have the same size.

    Raises:
        RunAborted: from push, pull and wait, once FLARE wants the workflow to end.
    """

    def __init__(
        self,
        controller: TaskSender,
        fl_ctx: FLContext,
        nodes: Mapping[str, int],
        *,
        aborted: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        expect: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._expect = expect
        self._controller, self._fl_ctx, self._nodes = controller, fl_ctx, dict(nodes)
        self._aborted, self._clock = aborted, clock
        self._numbers = itertools.count(1)
        self._standing: dict[str, _Standing] = {}
        self._strikes: dict[str, str] = {}
        self._mailbox: dict[str, _StoredReply] = {}
        self._lock, self._reply_arrived = threading.Lock(), threading.Event()

    def push(self, outbound_messages: Sequence[OutboundMessage]) -> Sequence[str | None]:
        """See :class:`~aegis.rounds.transport.Transport`."""
        self._require_running()
        self._forget()
        try:
            return [self._push(outbound) for outbound in outbound_messages]
        except (TypeError, ValueError, RuntimeError) as error:
            raise TransportFailed(type(error).__name__) from error

    def pull(self, message_ids: Collection[str]) -> Sequence[InboundMessage]:
        """See :class:`~aegis.rounds.transport.Transport`."""
        self._require_running()
        with self._lock:
            self._reply_arrived.clear()  # under the lock: a reply after this look sets the event again
            kept = [self._mailbox.pop(message_id, None) for message_id in message_ids]
        return [each.inbound for each in kept if each is not None]

    def wait(self, seconds: float) -> None:
        """See :class:`~aegis.rounds.transport.Transport`."""
        self._reply_arrived.wait(seconds)
        self._require_running()

    def struck(self, site: str, why: str) -> None:
        """Count a refusal by the gate as ``site``'s answer to its open or next message. Callable from any thread."""
        with self._lock:
            standing = self._standing.get(site)
            if standing is None or standing.answered:
                self._strikes.setdefault(site, why)
                return
            self._refuse_reply(site, standing, why)

    def _require_running(self) -> None:
        if self._aborted():
            raise RunAborted("NVIDIA FLARE ended the job: repeat the command to continue the run")

    def _push(self, outbound: OutboundMessage) -> str:
        message_id = f"flare-{next(self._numbers)}"
        self._expect(sum(map(len, outbound.message.to_fields().values())))
        task = Task(
            name=outbound.request_kind.value,
            data=to_shareable(outbound.message),
            timeout=max(1, math.ceil(outbound.ttl_s)),  # FLARE counts whole seconds, and zero means for ever
            result_received_cb=self._receiver(message_id, outbound.ttl_s),
        )
        before = self._standing.get(outbound.site)
        if before is not None:  # FLARE would hand out the old task first, and its request is closed
            self._controller.cancel_task(before.task)
        self._controller.send(task, self._fl_ctx, targets=[outbound.site])
        with self._lock:
            self._standing[outbound.site] = standing = _Standing(task, message_id, outbound.ttl_s)
            why = self._strikes.pop(outbound.site, None)
            if why is not None:
                self._refuse_reply(outbound.site, standing, why)
        return message_id

    def _refuse_reply(self, site: str, standing: _Standing, why: str) -> None:
        """Store an error as the site's answer. Call with the lock held.

        Leaves the task in place until the next task replaces it, because FLARE's own lock is busy here.
        """
        standing.answered = True
        content = EnvelopeError(f"FLARE's client of {site} {why}")
        self._store_reply(
            InboundMessage(standing.message_id, self._nodes.get(site, _STRANGER), content), standing.ttl_s
        )

    def _receiver(self, message_id: str, ttl_s: float) -> Callable[..., None]:
        def receive(client_task: ClientTask, fl_ctx: FLContext) -> None:
            del fl_ctx
            self._receive(message_id, client_task.client.name, client_task.result, ttl_s)
            client_task.result = None  # FLARE would otherwise keep the result until the task's cleanup

        return receive

    def _receive(self, message_id: str, client: str, result: Any, ttl_s: float) -> None:
        inbound = InboundMessage(message_id, self._nodes.get(client, _STRANGER), content_of(result))
        with self._lock:
            standing = self._standing.get(client)
            if standing is not None and standing.message_id == message_id:
                standing.answered = True
            self._store_reply(inbound, ttl_s)

    def _store_reply(self, inbound: InboundMessage, ttl_s: float) -> None:
        """Store a reply. Call with the lock held; only the first answer to a message counts."""
        self._mailbox.setdefault(inbound.message_id, _StoredReply(inbound, self._clock() + ttl_s))
        self._reply_arrived.set()

    def _forget(self) -> None:
        now = self._clock()
        with self._lock:
            self._mailbox = {key: kept for key, kept in self._mailbox.items() if kept.forgotten_at > now}
