"""Messages as FLARE tasks: one for each parcel, for one client; results through a mailbox that wakes whoever waits.

FLARE authenticates which client a result comes from; what the result says of its sender is not read. A task stands
until its client has answered, its time is over, or the same site is asked for something newer. FLARE gives a task again
to a client that asks again without having answered, which is what a site that was restarted does. What the gate before
FLARE's cells refuses of a client (:mod:`.cell_gate`) is that client's answer: bytes of no use.
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
from aegis.rounds.transport import InboundMessage, OutboundMessage, TransportFailed
from aegis.runtimes.nvflare.protocol import content_of, to_shareable
from coreason_enclave.errors import EnvelopeError

__all__ = ["FlareTransport", "TaskSender"]

_STRANGER: Final = 0
"""The node of whoever is none of the participants."""


class TaskSender(Protocol):
    """The part of FLARE's ``Controller`` that is used."""

    def send(self, task: Task, fl_ctx: FLContext, targets: list[str]) -> None:
        """Let the one client in ``targets`` have the task when it asks for one."""
        ...

    def cancel_task(self, task: Task) -> None:
        """Let nobody have it any more."""
        ...


@dataclass
class _Standing:
    """The task that a client has, or may ask for, until it has answered."""

    task: Task
    message_id: str
    ttl_s: float
    answered: bool = False


@dataclass(frozen=True)
class _StoredReply:
    """A delivery until somebody pulls it, or nobody can want it any more."""

    inbound: InboundMessage
    forgotten_at: float


class FlareTransport:
    """Carries over FLARE tasks; see :class:`~aegis.rounds.transport.Carrier`.

    Args:
        controller: schedules tasks. fl_ctx: of the workflow.
        nodes: node ids, above zero, by FLARE client name.
        aborted: whether FLARE wants the workflow to end. clock: monotonic seconds.
        expect: told the size of each message in bytes, which answers will have, too.

    Raises:
        RunAborted: from every method, once FLARE wants the workflow to end.
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
        self._offences: dict[str, str] = {}
        self._mailbox: dict[str, _StoredReply] = {}
        self._lock, self._came = threading.Lock(), threading.Event()

    def push(self, outbound_messages: Sequence[OutboundMessage]) -> Sequence[str | None]:
        """See :class:`~aegis.rounds.transport.Carrier`."""
        self._go_on()
        self._forget()
        try:
            return [self._push(outbound) for outbound in outbound_messages]
        except (TypeError, ValueError, RuntimeError) as error:
            raise TransportFailed(type(error).__name__) from error

    def pull(self, message_ids: Collection[str]) -> Sequence[InboundMessage]:
        """See :class:`~aegis.rounds.transport.Carrier`."""
        self._go_on()
        with self._lock:
            self._came.clear()  # under the lock: what comes in after this look sets it again
            kept = [self._mailbox.pop(message_id, None) for message_id in message_ids]
        return [each.inbound for each in kept if each is not None]

    def wait(self, seconds: float) -> None:
        """See :class:`~aegis.rounds.transport.Carrier`."""
        self._came.wait(seconds)
        self._go_on()

    def struck(self, site: str, why: str) -> None:
        """Take what the gate refused of ``site`` for its answer, now or to the next message; from any thread."""
        with self._lock:
            standing = self._standing.get(site)
            if standing is None or standing.answered:
                self._offences.setdefault(site, why)
                return
            self._offend(site, standing, why)

    def _go_on(self) -> None:
        if self._aborted():
            raise RunAborted("NVIDIA FLARE ended the job: the same command again goes on where the run was")

    def _push(self, outbound: OutboundMessage) -> str:
        message_id = f"flare-{next(self._numbers)}"
        self._expect(sum(map(len, outbound.message.to_fields().values())))
        task = Task(
            name=outbound.request_kind.value,
            data=to_shareable(outbound.message),
            timeout=max(1, math.ceil(outbound.ttl_s)),  # FLARE counts whole seconds, and zero is for ever
            result_received_cb=self._receiver(message_id, outbound.ttl_s),
        )
        before = self._standing.get(outbound.site)
        if before is not None:  # it would be given out first, and what it asked for is over
            self._controller.cancel_task(before.task)
        self._controller.send(task, self._fl_ctx, targets=[outbound.site])
        with self._lock:
            self._standing[outbound.site] = standing = _Standing(task, message_id, outbound.ttl_s)
            why = self._offences.pop(outbound.site, None)
            if why is not None:
                self._offend(outbound.site, standing, why)
        return message_id

    def _offend(self, site: str, standing: _Standing, why: str) -> None:
        """Called with the lock held. The task stands until the next one takes its place: FLARE's lock is busy here."""
        standing.answered = True
        content = EnvelopeError(f"FLARE's client of {site} {why}")
        self._keep(InboundMessage(standing.message_id, self._nodes.get(site, _STRANGER), content), standing.ttl_s)

    def _receiver(self, message_id: str, ttl_s: float) -> Callable[..., None]:
        def receive(client_task: ClientTask, fl_ctx: FLContext) -> None:
            del fl_ctx
            self._receive(message_id, client_task.client.name, client_task.result, ttl_s)
            client_task.result = None  # FLARE would hold it until the task is cleared away

        return receive

    def _receive(self, message_id: str, client: str, result: Any, ttl_s: float) -> None:
        inbound = InboundMessage(message_id, self._nodes.get(client, _STRANGER), content_of(result))
        with self._lock:
            standing = self._standing.get(client)
            if standing is not None and standing.message_id == message_id:
                standing.answered = True
            self._keep(inbound, ttl_s)

    def _keep(self, inbound: InboundMessage, ttl_s: float) -> None:
        """Called with the lock held; the first answer to a message is the one that counts."""
        self._mailbox.setdefault(inbound.message_id, _StoredReply(inbound, self._clock() + ttl_s))
        self._came.set()

    def _forget(self) -> None:
        now = self._clock()
        with self._lock:
            self._mailbox = {key: kept for key, kept in self._mailbox.items() if kept.forgotten_at > now}
