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
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from coreason_enclave.agent.answering import Answering
from coreason_enclave.agent.health import Budgets, HealthSender
from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.supervision import Supervision
from coreason_enclave.agent.tunnel import Tunnel, opened_tunnel
from coreason_enclave.federation.flower import client_app
from coreason_enclave.federation.flower.supernode import SuperNode
from coreason_enclave.federation.flower.worker import Worker
from coreason_enclave.keys import load_or_create_secret
from coreason_enclave.processes import Backoff, Child
from coreason_enclave.site import Site
from coreason_enclave.transport.connection import Connection
from coreason_enclave.transport.keys import load_node_key

__all__ = ["OverFlower"]

_END_S = 15.0


class OverFlower:
    """Use :meth:`connected` as a context from the main thread; it sets ``stop`` when it ends."""

    def __init__(
        self,
        folder: Path,
        site: Site,
        connection: Connection,
        answering: Answering,
        budgets: Budgets,
        log: AgentLog,
        stop: threading.Event,
    ) -> None:
        self._folder, self._site, self._connection = folder, site, connection
        self._answering, self._log, self._stop = answering, log, stop
        self._secret_file = folder / "flower" / "superexec.secret"
        self._arrived = threading.Event()
        self._health = HealthSender(
            connection=connection,
            signer=site.signer,
            site_id=site.config.site_id,
            budgets=budgets.now,
            busy=lambda: answering.busy,
            stop=stop,
        )

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Tunnel, threads, and a SuperNode from the first :meth:`tend` on; ends them in the reverse order."""
        _quieten_flower()
        load_node_key(self._folder / self._site.config.keys)
        with ExitStack() as opened:
            flower = self._folder / "flower"
            tunnel = opened.enter_context(opened_tunnel(self._connection, flower, on_received=self._arrived.set))
            supernode = self._supernode(tunnel)
            self._supervision = Supervision(
                Child("supernode", supernode.start, Backoff(1.0, 30.0, random.random)),
                tunnel,
                self._answering,
                self._log,
            )
            opened.enter_context(self._thread("health", self._health.run))
            opened.enter_context(self._thread("worker", self._worker(supernode).run))
            opened.callback(self._supervision.end)
            opened.callback(self._arrived.set)  # wakes an idle worker, which then sees that it shall end
            opened.callback(self._stop.set)
            yield

    @property
    def gateway(self) -> str:
        """The gateway's name."""
        return self._connection.server_name

    def tend(self) -> None:
        """Start the SuperNode where it does not run, or says nothing."""
        self._supervision.tend()

    def status(self) -> dict[str, Any]:
        """What of ``coreason-enclave status`` is about this way in."""
        return {
            "gateway": f"{self._connection.host}:{self._connection.port}",
            "round_trip_s": self._health.round_trip_s,
            **self._supervision.status(),
        }

    def _supernode(self, tunnel: Tunnel) -> SuperNode:
        load_or_create_secret(self._secret_file)
        return SuperNode(
            home=self._folder / "flower",
            keys=self._folder / self._site.config.keys,
            superlink=tunnel.address,
            root_certificate=tunnel.certificate.path,
            secret_file=self._secret_file,
            log=self._folder / "logs" / "supernode.log",
        )

    def _worker(self, supernode: SuperNode) -> Worker:
        return Worker(
            app=client_app(self._answering),
            address=lambda: supernode.runtime_address,
            secret=load_or_create_secret(self._secret_file),
            stop=self._stop,
            arrived=self._arrived,
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
