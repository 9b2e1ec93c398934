"""The fast runtime: coordinator and sites in one process, over Flower's own interfaces.

A :class:`~flwr.serverapp.Grid` that calls one Flower ``ClientApp`` per site. Strategy, client app and session are the
very ones that a deployment runs; only the carrier differs.
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

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from aegis.coordination.liveness import NoLiveness
from aegis.evaluation import utility
from aegis.federated_coordinator import Participant
from aegis.runtimes.lanes import PATIENCE_S, Lanes
from coreason_enclave.crypto.job_keys import unsafe_seeded_keys
from coreason_enclave.crypto.keystream import JobKeys
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.federation.flower import client_app
from coreason_enclave.models import initial_weights, predict_probabilities
from coreason_enclave.schemas import FederationJob
from coreason_enclave.site.opening import Site, create_site, open_site
from coreason_enclave.wire.updates import Array, Arrays

__all__ = [
    "ClientApp",
    "InProcessGrid",
    "InProcessSites",
    "JobKeys",
    "Site",
    "client_app",
    "create_site",
    "initial_model",
    "open_sites",
    "public_evaluator",
    "seeded_keys",
]

_COORDINATOR_NODE = 0
_RUN_ID = 1


class InProcessGrid(Grid):
    """Delivers each message to the ``ClientApp`` of its destination node; sites run side by side, each in its lane.

    As on a network, a site handles one message at a time, and a late one does not hold the others up. Flower stamps
    messages with a process-wide task identity; one coordinator at a time uses a process.

    Args:
        threads: sites that compute side by side; default: the processors.
        patience_s: seconds after which a site that is still computing no longer counts as one of them.
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
        """Flower's own description of the run; carried, not used."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's own description of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to one node."""
        return Message(content=content, message_type=message_type, dst_node_id=dst_node_id, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes of all sites."""
        return list(self._apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start delivering; returns one id a message."""
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        message_id = f"in-process-{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = message_id  # Flower's setter is its transport's own
        node = message.metadata.dst_node_id
        context = Context(run_id=_RUN_ID, node_id=node, node_config={}, state=RecordDict(), run_config={})
        self._pending[message_id] = self._lanes.submit(node, lambda: _deliver(self._apps.get(node), message, context))
        self._pending[message_id].add_done_callback(lambda _: self._answered.set())
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are in, each once."""
        self._answered.clear()  # before looking: what comes in now is looked for again
        done = [
            message_id for message_id in message_ids if message_id in self._pending and self._pending[message_id].done()
        ]
        return [self._pending.pop(message_id).result() for message_id in done]

    def wait_for_reply(self, seconds: float) -> None:
        """Return when a reply that was not looked for yet is in, after ``seconds`` at the latest."""
        self._answered.wait(seconds)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Deliver, wait until all have answered or ``timeout`` seconds have passed, return what is in."""
        message_ids = list(self.push_messages(messages))
        wait([self._pending[message_id] for message_id in message_ids], timeout=timeout)
        return self.pull_messages(message_ids)

    def close(self) -> None:
        """End the sites' lanes: a site that is still computing has some seconds to come to an end."""
        self._lanes.close()


def _deliver(app: ClientApp | None, message: Message, context: Context) -> Message:
    if app is None:
        return Message(error=Error(code=ErrorCode.NODE_UNAVAILABLE, reason="no such node"), reply_to=message)
    try:
        return app(message, context)
    except Exception as error:  # noqa: BLE001 - a broken site is one refusal, not the end of the round
        logging.getLogger(__name__).warning("site app failed: %s", type(error).__name__)
        return Message(error=Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="internal"), reply_to=message)


@dataclass(frozen=True)
class InProcessSites:
    """Opened sites, the grid that reaches them, and how a coordinator knows them."""

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
    """Open every site folder for the duration of a run.

    Args:
        folders: site folders.
        public_keys: the registered key of each site, by name; an unregistered site is not opened.
        job_keys: injected keys by site name, for reproducible runs; None means the site's own secret ones.
        adapt: what answers for a site; replaced to simulate a hostile one.
    """
    torch.set_num_threads(1)  # sites run side by side; and sums must not depend on how they were split
    with ExitStack() as stack:
        sites: dict[str, Site] = {}
        for folder in folders:
            if folder.name not in public_keys:
                continue
            site = open_site(folder, job_keys=job_keys(folder.name))
            stack.callback(site.close)
            if site.config.site_id != folder.name:
                raise ConfigurationError(f"{folder} holds site {site.config.site_id!r}: a site's folder bears its name")
            sites[site.config.site_id] = site
        names = sorted(sites)
        nodes = {name: index for index, name in enumerate(names, start=1)}
        grid = InProcessGrid({nodes[name]: adapt(sites[name]) for name in names})
        stack.callback(grid.close)
        participants = tuple(Participant(name, public_keys[name], nodes[name]) for name in names)
        yield InProcessSites(sites, grid, participants)


def seeded_keys(seed: int | None, site_id: str) -> JobKeys | None:
    """Injected, reproducible job keys for one site, or None for the site's own secret ones."""
    if seed is None:
        return None
    return unsafe_seeded_keys(seed, site_id)


def initial_model(job: FederationJob) -> dict[str, Array]:
    """The job's public initial weights."""
    return initial_weights(job.model_arch, job.model_args)


def public_evaluator(
    job: FederationJob, features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> Callable[[Arrays], dict[str, float]]:
    """Utility of a model on a declared public set: features of shape (n, ...), integer labels of shape (n,)."""

    def evaluate(arrays: Arrays) -> dict[str, float]:
        return utility(predict_probabilities(job.model_arch, job.model_args, arrays, features), labels)

    return evaluate
