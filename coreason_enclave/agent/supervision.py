"""Keeping the SuperNode at work: by its last request for messages, not by its process, which may outlive its loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.order_queue import SerialHandler
from coreason_enclave.agent.tunnel import Tunnel
from coreason_enclave.system.processes import SupervisedProcess

__all__ = ["SILENCE_S", "Supervision"]

SILENCE_S = 60.0
"""Above the longest pause that a working SuperNode makes: a held request for messages, and its own retries."""


class Supervision:
    """Used by the agent's main loop alone, :meth:`status` apart.

    Args:
        answering: what answers the orders that the SuperNode brings; None while the site is being opened.
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
        """The site is open: from now on, a SuperNode that waits for an answer is not silent."""
        self._answering = answering

    def ensure_running(self) -> None:
        """Start it where it does not run; end it where it runs and says nothing."""
        if self._child.running and self.silent():
            self._log.say("supernode", outcome="silent", seconds=SILENCE_S)
            self._child.stop()
        before = self._child.restarts
        self._child.ensure_running()
        if self._child.restarts != before:
            self._started = self._clock()
            self._log.say("supernode", outcome="started", restarts=self._child.restarts)

    def silent(self) -> bool:
        """It asked for no message for a minute, although no order is being answered: then it waits for the answer."""
        answering = self._answering
        if answering is None or answering.busy:
            return False
        signs = [self._started, self._tunnel.last_poll, answering.last_active]
        last = max((sign for sign in signs if sign is not None), default=None)
        return last is not None and self._clock() - last > SILENCE_S

    def end(self) -> None:
        """End it and its group; it takes its leave of the SuperLink itself."""
        self._child.stop()

    def status(self) -> dict[str, Any]:
        """Whether it runs, how often it had to be started again, and when it asked last (Unix seconds)."""
        last = self._tunnel.last_poll
        return {
            "supernode_running": self._child.running,
            "supernode_restarts": max(self._child.restarts, 0),
            "last_poll": None if last is None else int(self._wall() - (self._clock() - last)),
        }
