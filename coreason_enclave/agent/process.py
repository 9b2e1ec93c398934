"""The agent as a process: everything at a site, composed once, tended by one loop.

========== =============================================================================================
thread      what it does
========== =============================================================================================
main        starts the SuperNode, and again when it died or fell silent (the kernel ties a child to this thread)
worker      answers the SuperNode's tasks
tunnel      carries the SuperNode's requests over the agent's own mTLS sessions
health      signs of life to the gateway
socket      other carriers, and ``coreason-enclave status``
========== =============================================================================================

All of them hand orders to one :class:`~coreason_enclave.agent.answering.Answering`, which lets one in at a time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from coreason_enclave import __version__
from coreason_enclave.agent.answering import Answering, Handler, Stoppable
from coreason_enclave.agent.health import Budgets, HealthSender
from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.sockets import serving_socket
from coreason_enclave.agent.supervision import Supervision
from coreason_enclave.agent.tunnel import Tunnel, opened_tunnel
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.federation.flower import client_app
from coreason_enclave.federation.flower.supernode import SuperNode
from coreason_enclave.federation.flower.worker import Worker
from coreason_enclave.keys import load_or_create_secret
from coreason_enclave.privacy.keystream import JobKeys
from coreason_enclave.privacy.threads import train_on_one_thread
from coreason_enclave.processes import Backoff, Child
from coreason_enclave.site import Site, open_site
from coreason_enclave.transport.connection import Connection, load_connection
from coreason_enclave.transport.keys import load_node_key

__all__ = ["Adapt", "run_agent"]

Adapt = Callable[[Site], Handler]
"""What answers instead of the site's own session; replaced to simulate a hostile site."""

_TICK_S = 0.2
_END_S = 15.0


def run_agent(
    folder: Path,
    *,
    adapt: Adapt | None = None,
    job_keys: JobKeys | None = None,
    stop: threading.Event | None = None,
    log: AgentLog | None = None,
) -> None:
    """Run the agent of the site in ``folder`` until ``stop``; call it from the main thread.

    Args:
        adapt: default: the site's session, which gives up between two steps once ``stop`` is set.
        job_keys: injected keys of a reproducible run; default: the site's own secret ones.

    Raises:
        ConfigurationError: the site has not joined, something in its folder is unusable, or an agent runs already.
        LedgerError: the ledger does not verify, or cannot be used.
    """
    stop = stop or threading.Event()
    with ExitStack() as opened:
        opened.enter_context(_only_agent(folder))
        connection = load_connection(folder)
        site = open_site(folder, job_keys=job_keys)
        opened.callback(site.close)
        log = log or AgentLog({"site": site.config.site_id, **site.config.profile.label()})
        handler = Stoppable(site.session, stop) if adapt is None else adapt(site)
        agent = _Agent(folder, site, connection, Answering(handler, log), log, stop)
        agent.run()


class _Agent:
    """The composition; lives as long as :meth:`run`."""

    def __init__(
        self,
        folder: Path,
        site: Site,
        connection: Connection,
        answering: Answering,
        log: AgentLog,
        stop: threading.Event,
    ) -> None:
        self._folder, self._site, self._connection = folder, site, connection
        self._answering, self._log, self._stop = answering, log, stop
        self._started = time.time()
        self._secret_file = folder / "flower" / "superexec.secret"
        self._arrived = threading.Event()
        self._budgets = Budgets(site.config, site.ledger)
        self._health = HealthSender(
            connection=connection,
            signer=site.signer,
            site_id=site.config.site_id,
            budgets=self._budgets.now,
            busy=lambda: answering.busy,
            stop=stop,
        )

    def run(self) -> None:
        """Until ``stop``; ends what it started in the reverse order."""
        train_on_one_thread()
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
            opened.enter_context(serving_socket(self._folder, self._answering, self.status))
            opened.enter_context(self._thread("health", self._health.run))
            opened.enter_context(self._thread("worker", self._worker(supernode).run))
            opened.callback(self._supervision.end)
            self._log.say("started", version=__version__, pid=os.getpid(), gateway=self._connection.server_name)
            opened.callback(self._arrived.set)  # wakes an idle worker, which then sees that it shall end
            opened.callback(self._stop.set)
            while not self._stop.wait(_TICK_S):
                self._supervision.tend()
        self._log.say("stopped")

    def status(self) -> dict[str, Any]:
        """What ``coreason-enclave status`` shows: nothing that depends on a row."""
        return {
            "site_id": self._site.config.site_id,
            **self._site.config.profile.label(),
            "version": __version__,
            "pid": os.getpid(),
            "started": int(self._started),
            "gateway": f"{self._connection.host}:{self._connection.port}",
            "round_trip_s": self._health.round_trip_s,
            "busy": self._answering.busy,
            "answered": self._answering.answered,
            "refused": self._answering.refused,
            "unsafe_seeded_noise": self._site.session.job_keys.unsafe_seeded,
            **self._supervision.status(),
            "budgets": [entry.model_dump(mode="json") for entry in self._budgets.now()],
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


@contextmanager
def _only_agent(folder: Path) -> Iterator[None]:
    """One agent per site: a second one would take the socket, the SuperNode and the orders of the first."""
    descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(f"an agent runs for {folder} already: coreason-enclave status shows it") from error
        yield
    finally:
        os.close(descriptor)


def _quieten_flower() -> None:
    """Flower and its HTTP client log every request to the console; the agent's own lines say what matters."""
    for name in ("flwr", "httpx", "httpcore"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.ERROR)
        logger.propagate = False
