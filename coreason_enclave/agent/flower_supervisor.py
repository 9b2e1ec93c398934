"""The agent's intake of orders over Flower: SuperNode, worker, tunnel and health sender.

========== =============================================================================================
thread      task
========== =============================================================================================
main        starts the SuperNode, and restarts a dead or silent SuperNode (the kernel ties a child to this thread)
worker      answers the SuperNode's tasks
tunnel      forwards the SuperNode's requests over the agent's own mTLS sessions
health      sends health statements to the gateway
========== =============================================================================================

The agent's main loop calls :meth:`OverFlower.ensure_running`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from coreason_enclave.agent.health import Budgets, HealthSender
from coreason_enclave.agent.link import FlowerLink
from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.order_queue import SerialHandler
from coreason_enclave.federation.flower import Worker, client_app
from coreason_enclave.site import Site

_END_S = 15.0


class OverFlower:
    """The Flower side of the agent. Enter :meth:`connected` in the main thread; leaving it sets ``stop``."""

    def __init__(
        self,
        site: Site,
        link: FlowerLink,
        answering: SerialHandler,
        budgets: Budgets,
        log: AgentLog,
        stop: threading.Event,
    ) -> None:
        self._link, self._answering, self._log, self._stop = link, answering, log, stop
        link.supervision.watch(answering)
        self._health = HealthSender(
            connection=link.connection,
            signer=site.signer,
            site_id=site.config.site_id,
            budgets=budgets.now,
            busy=lambda: answering.busy,
            stop=stop,
        )

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Run the health sender and the worker for the SuperNode's tasks; end them in reverse order."""
        _quieten_flower()
        with ExitStack() as opened:
            opened.enter_context(self._thread("health", self._health.run))
            opened.enter_context(self._thread("worker", self._worker().run))
            opened.callback(self._link.supervision.end)
            opened.callback(self._link.arrived.set)  # wakes an idle worker, so that it sees ``stop``
            opened.callback(self._stop.set)
            yield

    @property
    def gateway(self) -> str:
        """The gateway's name."""
        return self._link.connection.server_name

    def ensure_running(self) -> None:
        """Start a stopped SuperNode, restart a silent SuperNode, and keep its log small."""
        self._link.supervision.ensure_running()
        self._link.supernode.trim_log()

    def status(self) -> dict[str, Any]:
        """Return the Flower part of ``coreason-enclave status``."""
        return {
            "gateway": f"{self._link.connection.host}:{self._link.connection.port}",
            "round_trip_s": self._health.round_trip_s,
            **self._link.supervision.status(),
        }

    def _worker(self) -> Worker:
        return Worker(
            app=client_app(self._answering),
            address=lambda: self._link.supernode.runtime_address,
            secret=self._link.secret,
            stop=self._stop,
            arrived=self._link.arrived,
            report=self._report,
        )

    def _report(self, outcome: str) -> None:
        if outcome != "answered":  # SerialHandler has logged answered orders
            self._log.say("task", outcome=outcome)

    @contextmanager
    def _thread(self, name: str, work: Callable[[], None]) -> Iterator[None]:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(_END_S)


def _quieten_flower() -> None:
    """Silence Flower and its HTTP client, which log every request to the console; the agent's own lines suffice."""
    for name in ("flwr", "httpx", "httpcore"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.ERROR)
        logger.propagate = False
