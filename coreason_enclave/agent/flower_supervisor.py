"""What brings a coordinator's orders to the agent over Flower, and is tended by the agent's main loop.

========== =============================================================================================
thread      what it does
========== =============================================================================================
main        starts the SuperNode, and again when it died or fell silent (the kernel ties a child to this thread)
worker      answers the SuperNode's tasks
tunnel      carries the SuperNode's requests over the agent's own mTLS sessions
health      signs of life to the gateway
========== =============================================================================================
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
from coreason_enclave.federation.flower import client_app
from coreason_enclave.federation.flower.worker import Worker
from coreason_enclave.site.opening import Site

__all__ = ["OverFlower"]

_END_S = 15.0


class OverFlower:
    """Use :meth:`connected` as a context from the main thread; it sets ``stop`` when it ends."""

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
        """Signs of life, and a worker for the SuperNode's tasks; ends them in the reverse order."""
        _quieten_flower()
        with ExitStack() as opened:
            opened.enter_context(self._thread("health", self._health.run))
            opened.enter_context(self._thread("worker", self._worker().run))
            opened.callback(self._link.supervision.end)
            opened.callback(self._link.arrived.set)  # wakes an idle worker, which then sees that it shall end
            opened.callback(self._stop.set)
            yield

    @property
    def gateway(self) -> str:
        """The gateway's name."""
        return self._link.connection.server_name

    def ensure_running(self) -> None:
        """Start the SuperNode where it does not run, or says nothing; keep its log small."""
        self._link.supervision.ensure_running()
        self._link.supernode.trim_log()

    def status(self) -> dict[str, Any]:
        """What of ``coreason-enclave status`` is about this way in."""
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
        if outcome != "answered":  # what was answered has its own line
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
    """Flower and its HTTP client log every request to the console; the agent's own lines say what matters."""
    for name in ("flwr", "httpx", "httpcore"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.ERROR)
        logger.propagate = False
