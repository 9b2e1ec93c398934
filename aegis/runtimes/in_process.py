"""The in-process runtime: coordinator and sites in one process, over Flower's own interfaces.

Serves tests, demonstrations and fast experiments. :class:`InProcessGrid` implements :class:`~flwr.serverapp.Grid` and
calls one Flower ``ClientApp`` per site. Strategy, client app and session are the same classes as in a deployment; only
the transport differs.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp as ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from aegis.coordination import NoLiveness, Participant
from aegis.evaluation import utility
from aegis.runtimes.lanes import PATIENCE_S, Lanes
from coreason_enclave.crypto import JobKeys, unsafe_seeded_keys
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.federation.flower import client_app as client_app
from coreason_enclave.models import initial_weights, predict, task_of
from coreason_enclave.schemas import FederationJob
from coreason_enclave.site import Site as Site
from coreason_enclave.site import create_site as create_site
from coreason_enclave.site import open_site
from coreason_enclave.wire import Array, Arrays

_COORDINATOR_NODE = 0
_RUN_ID = 1


class InProcessGrid(Grid):
    """A grid that delivers each message to the ``ClientApp`` of its destination node.

    - Each site has a lane (:class:`~aegis.runtimes.lanes.Lanes`) and handles one message at a time, as on a network.
    - Sites run in parallel; a slow site does not block the others.
    - Flower stamps messages with a process-wide task identity, so use one coordinator per process at a time.

    Args:
        threads: number of sites that compute in parallel; default: the processor count.
        patience_s: seconds after which a computing site no longer counts against ``threads``.
    """

    def __init__(
        self, apps: Mapping[int, ClientApp], *, threads: int | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        self._apps = dict(apps)
        self._lanes = Lanes(threads or os.cpu_count() or 1, patience_s=patience_s)
        self._pending: dict[str, Future[Message]] = {}
        self._answered = threading.Event()
        self._numbers = itertools.count(1)
        self._run = Run.create_empty(_RUN_ID)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, _RUN_ID, _COORDINATOR_NODE

    def set_run(self, run: Run) -> None:
        """Store Flower's description of the run. The grid never reads the description."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to one node."""
        return Message(content=content, message_type=message_type, dst_node_id=dst_node_id, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids of all sites."""
        return list(self._apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start delivery; return one id per message."""
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        message_id = f"in-process-{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = message_id  # Flower offers no public setter
        node = message.metadata.dst_node_id
        context = Context(run_id=_RUN_ID, node_id=node, node_config={}, state=RecordDict(), run_config={})
        self._pending[message_id] = self._lanes.submit(node, lambda: _deliver(self._apps.get(node), message, context))
        self._pending[message_id].add_done_callback(lambda _: self._answered.set())
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived, each once."""
        self._answered.clear()  # before the scan, so a reply that arrives during the scan sets the event again
        finished = [
            message_id for message_id in message_ids if message_id in self._pending and self._pending[message_id].done()
        ]
        return [self._pending.pop(message_id).result() for message_id in finished]

    def wait_for_reply(self, seconds: float) -> None:
        """Block until a new reply arrives, for at most ``seconds``."""
        self._answered.wait(seconds)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Deliver, wait for all replies or for ``timeout`` seconds, and return the replies that have arrived."""
        message_ids = list(self.push_messages(messages))
        wait([self._pending[message_id] for message_id in message_ids], timeout=timeout)
        return self.pull_messages(message_ids)

    def close(self) -> None:
        """Close the sites' lanes. A computing site gets some seconds to finish."""
        self._lanes.close()


def _deliver(app: ClientApp | None, message: Message, context: Context) -> Message:
    if app is None:
        return Message(error=Error(code=ErrorCode.NODE_UNAVAILABLE, reason="no such node"), reply_to=message)
    try:
        return app(message, context)
    except Exception as error:  # noqa: BLE001 - a broken site costs one refusal, never the round
        logging.getLogger(__name__).warning("site app failed: %s", type(error).__name__)
        return Message(error=Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="internal"), reply_to=message)


@dataclass(frozen=True)
class InProcessSites:
    """Open sites, the grid to reach them, and their entries as the coordinator's participants."""

    sites: Mapping[str, Site]
    grid: InProcessGrid
    participants: tuple[Participant, ...]
    liveness: NoLiveness = field(default_factory=NoLiveness)


@contextmanager
def open_sites(
    folders: Sequence[Path],
    public_keys: Mapping[str, str],
    *,
    job_keys: Callable[[str], JobKeys | None] = lambda _: None,
    adapt: Callable[[Site], ClientApp] = lambda site: client_app(site.session),
) -> Iterator[InProcessSites]:
    """Open the site folders for the duration of a run.

    Args:
        folders: site folders.
        public_keys: registered key of each site, by name. The function skips unregistered sites.
        job_keys: injected keys by site name, for reproducible runs; None selects the site's own secret keys.
        adapt: builds the ``ClientApp`` of a site; replace to simulate a Byzantine site.
    """
    torch.set_num_threads(1)  # sites already run in parallel, and sums must not depend on the thread count
    with ExitStack() as stack:
        sites: dict[str, Site] = {}
        for folder in folders:
            if folder.name not in public_keys:
                continue
            site = open_site(folder, job_keys=job_keys(folder.name))
            stack.callback(site.close)
            if site.config.site_id != folder.name:
                raise ConfigurationError(f"{folder} holds site {site.config.site_id!r}: name the folder after its site")
            sites[site.config.site_id] = site
        names = sorted(sites)
        nodes = {name: index for index, name in enumerate(names, start=1)}
        grid = InProcessGrid({nodes[name]: adapt(sites[name]) for name in names})
        stack.callback(grid.close)
        participants = tuple(Participant(name, public_keys[name], nodes[name]) for name in names)
        yield InProcessSites(sites, grid, participants)


def seeded_keys(seed: int | None, site_id: str) -> JobKeys | None:
    """Return injected, reproducible job keys for one site; None selects the site's own secret keys."""
    if seed is None:
        return None
    return unsafe_seeded_keys(seed, site_id)


def initial_model(job: FederationJob) -> dict[str, Array]:
    """Return the job's public initial weights."""
    return initial_weights(job.model_arch, job.model_args)


def public_evaluator(
    job: FederationJob, features: npt.NDArray[np.float32], labels: npt.NDArray[Any]
) -> Callable[[Arrays], dict[str, float]]:
    """Return an evaluator of models on a public set: features of shape (n, ...), labels as the task has them."""

    kind = task_of(job.model_arch, job.task).kind

    def evaluate(arrays: Arrays) -> dict[str, float]:
        made = predict(job.model_arch, job.model_args, arrays, features, task=job.task)
        return utility(made, labels, kind)

    return evaluate
