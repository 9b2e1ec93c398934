"""Drives one Flower run from this process: starts the run, holds its server task, and replaces a run that was lost.

The run's token stays in memory. A restarted coordinator therefore starts a new run and ends the previous run:

- partly delivered orders vanish with the previous run;
- sites answer from their store if they have already released the update.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from flwr.app import Message, RecordDict
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.serverapp import Grid
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient

from aegis.errors import RunEnded, TransportUnavailable
from aegis.runtimes.flower.control import SuperLinkControl
from aegis.runtimes.flower.grid import FlowerRun, RunGrid, cut_off, unavailable
from aegis.runtimes.flower.superlink import SuperLinkEndpoint
from coreason_enclave.system import file_lock, replace_file

SERVER_TASK = "flwr-serverapp"
ACQUIRE_METHOD = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT_S = 15.0
_START_S = 20.0
_POLL_S = 0.05
_RETRY_S = 0.5


@contextmanager
def driving(
    endpoint: SuperLinkEndpoint, note: Path, oversized: Callable[[], Collection[str]] = tuple
) -> Iterator[DrivenGrid]:
    """Yield a grid whose Flower run lives as long as the body.

    Args:
        note: file that stores the run's id (no secret). The next coordinator of the same job reads the note and ends a
            run that this coordinator left behind.
        oversized: returns the ids of messages whose answers the gateway cut off.

    Raises:
        TransportUnavailable: SuperLink does not serve.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)  # Flower logs every connection to the console
    grid = DrivenGrid(endpoint, note, oversized)
    try:
        grid.start()
        yield grid
    finally:
        grid.close()


class DrivenGrid(Grid):
    """A grid that reaches the nodes through one Flower run at a time.

    Flower stamps messages with a process-wide task identity, so use one coordinator per process at a time.
    """

    def __init__(
        self, endpoint: SuperLinkEndpoint, note: Path, oversized: Callable[[], Collection[str]] = tuple
    ) -> None:
        self._endpoint, self._note, self._oversized = endpoint, note, oversized
        self._grid: RunGrid | None = None
        self._run_id = 0
        self._pushed: dict[str, int] = {}
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="flower-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the run and keep it alive. Waits for a SuperLink that is restarting."""
        end = time.monotonic() + _START_S
        while self._grid is None:
            try:
                self._renew()
            except TransportUnavailable:
                if time.monotonic() > end:
                    raise
                time.sleep(_RETRY_S)
        self._beating.start()

    def close(self) -> None:
        """End the run, if SuperLink can be reached."""
        self._closed.set()
        if self._beating.is_alive():
            self._beating.join()
        if self._grid is not None:
            self._grid.close()
        with contextlib.suppress(TransportUnavailable), SuperLinkControl(self._endpoint) as control:
            _end_noted(control, self._note)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages.

        Returns:
            one id per message; an empty id means that SuperLink did not take the message.

        Raises:
            TransportUnavailable: SuperLink cannot be reached or refuses.
        """
        grid = self._current()
        messages = [self._stamped(message) for message in messages]
        with self._noticing():
            message_ids = list(grid.push_messages(messages))
        sent = zip(message_ids, messages, strict=True)
        self._pushed.update({message_id: message.metadata.dst_node_id for message_id, message in sent if message_id})
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived, each once. Raises :class:`TransportUnavailable`."""
        grid, open_ids = self._current(), set(message_ids)
        with self._noticing():
            replies = list(grid.pull_messages(open_ids & self._pushed.keys()))
        lost = [unavailable(self._run_id, message_id) for message_id in sorted(open_ids - self._pushed.keys())]
        for reply in replies:
            self._pushed.pop(reply.metadata.reply_to_message_id, None)
        return [*replies, *lost, *self._cut_off(grid, open_ids)]

    def _cut_off(self, grid: RunGrid, open_ids: set[str]) -> list[Message]:
        """Return an error, in the site's name, for each answer that the gateway cut off and that will never arrive."""
        message_ids = sorted(open_ids & self._pushed.keys() & set(self._oversized()))
        grid.forget(message_ids)
        return [cut_off(self._run_id, message_id, self._pushed.pop(message_id)) for message_id in message_ids]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, wait for all replies or for ``timeout`` seconds, and return the replies that have arrived."""
        end = None if timeout is None else time.monotonic() + timeout
        waiting = set(filter(None, self.push_messages(messages)))
        replies: list[Message] = []
        while waiting and (end is None or time.monotonic() < end):
            arrived = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
            if waiting:
                time.sleep(_POLL_S)
        return replies

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes connected now. Raises :class:`TransportUnavailable`."""
        grid = self._current()
        with self._noticing():
            return list(grid.get_node_ids())

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to one node."""
        return Message(content=content, message_type=message_type, dst_node_id=dst_node_id, group_id=group_id, ttl=ttl)

    def set_run(self, run: Run) -> None:
        """Ignore Flower's hook: this grid already knows its run."""
        del run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return Run.create_empty(self._run_id)

    def _current(self) -> RunGrid:
        """Return the present run's grid. Starts a new run if SuperLink has ended the last run."""
        if self._lost.is_set() or self._grid is None:
            self._renew()
        if self._grid is None:
            raise TransportUnavailable("no run was started")
        return self._grid

    def _renew(self) -> None:
        old, self._grid = self._grid, None
        if old is not None:
            old.close()
        self._grid = acquire_run(self._endpoint, self._note)
        self._run_id, self._pushed = self._grid.run.run_id, {}
        self._lost.clear()

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except RunEnded:
            self._lost.set()
            raise

    def _beat(self) -> None:
        while not self._closed.wait(_HEARTBEAT_S):
            grid = self._grid
            if grid is None or self._lost.is_set():
                continue
            try:
                grid.heartbeat()
            except RunEnded:
                self._lost.set()
            except TransportUnavailable as error:
                logging.getLogger(__name__).warning("heartbeat: %s", error)

    def _stamped(self, message: Message) -> Message:
        """Stamp the message with this run and the current time. SuperLink treats a resent message as a new message."""
        message.metadata.__dict__["_run_id"] = self._run_id
        message.metadata.created_at = time.time()
        return message


def acquire_run(endpoint: SuperLinkEndpoint, note: Path) -> RunGrid:
    """Start a run and take its server task. First end the run that ``note`` names, if any.

    Raises:
        TransportUnavailable: SuperLink does not serve, or offers no task for the run.
    """
    with file_lock(endpoint.secret.with_suffix(".lock")), SuperLinkControl(endpoint) as control:
        _end_noted(control, note)
        run_id = control.start_run()
        replace_file(note, json.dumps({"run_id": run_id}).encode())
        with _executor(endpoint) as executor:
            grid = RunGrid(endpoint, _take_task(executor, control, run_id))
    grid.begin()
    return grid


def _take_task(executor: RuntimeHttpClient, control: SuperLinkControl, run_id: int) -> FlowerRun:
    """Acquire the run's server task.

    SuperLink offers the oldest task first. :func:`_alone` makes starting exclusive, so a task of another run belongs to
    a starter that was killed, and the function stops that run.
    """
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        try:
            answer = executor.AcquireTask(AcquireTaskRequest(supported_task_types=[SERVER_TASK]))
        except httpx.HTTPError as error:
            raise TransportUnavailable(f"no task from SuperLink: {type(error).__name__}") from error
        if answer.token and answer.task.run_id == run_id:
            return FlowerRun(run_id, answer.task.task_id, answer.token)
        if answer.token:
            control.stop_run(answer.task.run_id)
        else:
            time.sleep(_POLL_S)
    raise TransportUnavailable("SuperLink returns no task for the run that it started")


def _executor(endpoint: SuperLinkEndpoint) -> RuntimeHttpClient:
    """Return a client that may acquire tasks: the client signs with the shared secret."""
    return RuntimeHttpClient.from_server_address(
        endpoint.address,
        insecure=False,
        root_certificates=endpoint.ca_certificate.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
            SuperExecAuthHttpInterceptor(
                master_secret=endpoint.secret.read_bytes(), protected_methods={ACQUIRE_METHOD}
            ),
        ],
    )


def _end_noted(control: SuperLinkControl, note: Path) -> None:
    """End the run that ``note`` names, unless the run has ended, and delete the note."""
    if not note.exists():
        return
    with contextlib.suppress(ValueError, KeyError, TypeError):
        run_id = int(json.loads(note.read_bytes())["run_id"])
        if run_id in control.unfinished_runs():
            control.stop_run(run_id)
    note.unlink()
