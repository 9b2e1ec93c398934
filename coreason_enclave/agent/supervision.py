"""Supervision of the SuperNode, by its last request for messages: its process may outlive its working loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.order_queue import SerialHandler
from coreason_enclave.agent.tunnel import Tunnel
from coreason_enclave.system import SupervisedProcess

SILENCE_S = 60.0
"""Longer than the longest pause of a working SuperNode: a held request for messages, and its own retries."""


class Supervision:
    """Keeps one SuperNode running. Only the agent's main loop uses it, except for :meth:`status`.

    Args:
        answering: handler of the SuperNode's orders; None before the site has opened, when no SuperNode counts as
            silent.
    """

    def __init__(
        self,
        child: SupervisedProcess,
        tunnel: Tunnel,
        answering: SerialHandler | None,
        log: AgentLog,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._child, self._tunnel, self._answering, self._log = child, tunnel, answering, log
        self._clock, self._wall = clock, wall
        self._started: float | None = None

    def watch(self, answering: SerialHandler) -> None:
        """Set the handler once the site has opened, and from now on check the SuperNode for silence."""
        self._answering = answering

    def ensure_running(self) -> None:
        """Start a stopped SuperNode; end a silent SuperNode and start a new process."""
        if self._child.running and self.silent():
            self._log.say("supernode", outcome="silent", seconds=SILENCE_S)
            self._child.stop()
        before = self._child.restarts
        self._child.ensure_running()
        if self._child.restarts != before:
            self._started = self._clock()
            self._log.say("supernode", outcome="started", restarts=self._child.restarts)

    def silent(self) -> bool:
        """Return True if the SuperNode requested no message for a minute although the agent is idle.

        While the agent answers an order, the SuperNode waits for the answer and does not count as silent. Before
        :meth:`watch`, the method returns False.
        """
        answering = self._answering
        if answering is None or answering.busy:
            return False
        signs = [self._started, self._tunnel.last_poll, answering.last_active]
        last = max((sign for sign in signs if sign is not None), default=None)
        return last is not None and self._clock() - last > SILENCE_S

    def end(self) -> None:
        """End the SuperNode and its process group; the SuperNode itself signs off from the SuperLink."""
        self._child.stop()

    def status(self) -> dict[str, Any]:
        """Return the SuperNode's state, its number of restarts, and the time of its last request (Unix seconds)."""
        last = self._tunnel.last_poll
        return {
            "supernode_running": self._child.running,
            "supernode_restarts": max(self._child.restarts, 0),
            "last_poll": None if last is None else int(self._wall() - (self._clock() - last)),
        }
