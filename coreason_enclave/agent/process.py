"""The agent process: composes everything at a site once, and supervises it in one loop in the main thread.

Orders come in two ways: over Flower (:mod:`coreason_enclave.agent.flower_supervisor`), and over the site's own socket,
which serves other transports and ``coreason-enclave status``. An agent may also use the socket alone. Both ways lead to
one :class:`~coreason_enclave.agent.order_queue.SerialHandler`, which lets one message in at a time.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coreason_enclave import __version__
from coreason_enclave.agent.health import Budgets
from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.order_queue import OverridingHandler, SerialHandler, StoppableHandler
from coreason_enclave.agent.unix_socket import serving_socket
from coreason_enclave.crypto import JobKeys
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.policy import SiteConfig, load_site_config
from coreason_enclave.site import load_connection
from coreason_enclave.system import file_lock
from coreason_enclave.wire import Handler

if TYPE_CHECKING:
    from coreason_enclave.agent.flower_supervisor import OverFlower
    from coreason_enclave.agent.link import FlowerLink
    from coreason_enclave.site import Site

Adapt = Callable[["Site"], Handler]
"""Makes the handler that answers rounds instead of the site's own session, to simulate a hostile site."""

_TICK_S = 0.2


def run_agent(
    folder: Path,
    *,
    adapt: Adapt | None = None,
    job_keys: JobKeys | None = None,
    stop: threading.Event | None = None,
    log: AgentLog | None = None,
    socket_only: bool = False,
) -> None:
    """Run the agent of the site in ``folder`` until ``stop``; call from the main thread.

    Args:
        adapt: default: the site's session, which gives up between two steps once ``stop`` is set.
        job_keys: injected keys of a reproducible run; default: the site's own secret keys.
        socket_only: answer on the site's socket alone; the site need not have joined a federation over Flower.

    Raises:
        ConfigurationError: the site has not joined, its folder is unusable, or an agent already runs.
        LedgerError: the ledger does not verify, or cannot be used.
    """
    stop = stop or threading.Event()
    with ExitStack() as opened:
        opened.enter_context(_only_agent(folder))
        config = load_site_config(folder / "site.toml")
        log = log or AgentLog({"site": config.site_id, **config.profile.label()})
        loading = _loading_frameworks()
        link = None if socket_only else opened.enter_context(_linked(folder, config, log))
        loading.join()
        site = _opened_site(folder, job_keys)
        opened.callback(site.close)
        own = StoppableHandler(site.session, stop)
        handler: Handler = own if adapt is None else OverridingHandler(own, adapt(site))
        _Agent(folder, site, SerialHandler(handler, log), log, stop, link).run()


def _loading_frameworks() -> threading.Thread:
    """Import the training frameworks in a thread while the main thread starts the SuperNode: both take seconds."""
    thread = threading.Thread(target=importlib.import_module, args=("coreason_enclave.site.opening",), daemon=True)
    thread.start()
    return thread


def _opened_site(folder: Path, job_keys: JobKeys | None) -> Site:
    from coreason_enclave.privacy import train_on_one_thread
    from coreason_enclave.site import open_site

    train_on_one_thread()
    return open_site(folder, job_keys=job_keys)


def _linked(folder: Path, config: SiteConfig, log: AgentLog) -> AbstractContextManager[FlowerLink]:
    from coreason_enclave.agent.link import opened_link  # imported here: a socket-only site may lack Flower

    return opened_link(folder, folder / config.keys, load_connection(folder), log)


class _Agent:
    """The composed agent, for the duration of :meth:`run`."""

    def __init__(
        self,
        folder: Path,
        site: Site,
        answering: SerialHandler,
        log: AgentLog,
        stop: threading.Event,
        link: FlowerLink | None,
    ) -> None:
        self._folder, self._site, self._answering, self._log, self._stop = folder, site, answering, log, stop
        self._started = time.time()
        self._budgets = Budgets(site.config, site.ledger)
        self._flower = None if link is None else self._over_flower(link)

    def run(self) -> None:
        """Serve until ``stop``; end all started parts in reverse order."""
        flower = self._flower
        with ExitStack() as opened:
            if flower is not None:
                opened.enter_context(flower.connected())
            opened.enter_context(serving_socket(self._folder, self._answering, self.status))
            gateway = None if flower is None else flower.gateway
            self._log.say("started", version=__version__, pid=os.getpid(), gateway=gateway)
            opened.callback(self._stop.set)
            while not self._stop.wait(_TICK_S):
                if flower is not None:
                    flower.ensure_running()
        self._log.say("stopped")

    def status(self) -> dict[str, Any]:
        """Return the content of ``coreason-enclave status``, independent of any row."""
        return {
            "site_id": self._site.config.site_id,
            **self._site.config.profile.label(),
            "version": __version__,
            "pid": os.getpid(),
            "started": int(self._started),
            "busy": self._answering.busy,
            "answered": self._answering.answered,
            "refused": self._answering.refused,
            "unsafe_seeded_noise": self._site.session.job_keys.unsafe_seeded,
            "trainer": self._site.config.trainer,
            "socket_only": self._flower is None,
            **({} if self._flower is None else self._flower.status()),
            "budgets": [entry.model_dump(mode="json") for entry in self._budgets.now()],
        }

    def _over_flower(self, link: FlowerLink) -> OverFlower:
        from coreason_enclave.agent.flower_supervisor import (
            OverFlower,  # imported here: a socket-only site may lack Flower
        )

        return OverFlower(self._site, link, self._answering, self._budgets, self._log, self._stop)


@contextmanager
def _only_agent(folder: Path) -> Iterator[None]:
    """Hold the site's lock: a second agent would take the socket, the SuperNode and the orders of the first."""
    with file_lock(folder / "agent.lock", wait=False) as held:
        if not held:
            raise ConfigurationError(f"an agent already runs for {folder}: coreason-enclave status shows it")
        yield
