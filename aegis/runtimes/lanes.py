"""Lanes: one ordered task queue per site of a process, so that a slow site does not block the others.

Lanes share the processor through permits. A task that has held a permit for :data:`PATIENCE_S` no longer counts,
because no one can distinguish long training from a hang; a waiting task gets the permit instead.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

PATIENCE_S = 2.0
_END_S = 10.0

_Result = TypeVar("_Result")
_Task = tuple["Future[Any]", Callable[[], Any]]


class Lanes:
    """Runs tasks one at a time per lane, with at most ``permits`` tasks in parallel while each task stays quick.

    The threads are daemons: a task that never ends does not keep the process alive.

    Args:
        permits: maximum number of parallel tasks, at least 1.
        patience_s: seconds for which a running task counts against ``permits``.
    """

    def __init__(self, permits: int, *, patience_s: float = PATIENCE_S) -> None:
        self._permits, self._patience_s = permits, patience_s
        self._turn = threading.Condition()
        self._running: dict[object, float] = {}
        self._waiting: dict[int, deque[_Task]] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._closed = False

    def submit(self, lane: int, work: Callable[[], _Result]) -> Future[_Result]:
        """Queue ``work`` behind the earlier tasks of ``lane``."""
        future: Future[_Result] = Future()
        with self._turn:
            if self._closed:
                raise RuntimeError("the pool of lanes is closed")
            if lane in self._waiting:
                self._waiting[lane].append((future, work))
                return future
            self._waiting[lane] = deque([(future, work)])
        thread = threading.Thread(target=self._drive, args=(lane,), name=f"site-{lane}", daemon=True)
        self._threads[lane] = thread
        thread.start()
        return future

    def close(self, *, within_s: float = _END_S) -> None:
        """Cancel waiting tasks; wait at most ``within_s`` seconds in all for running tasks."""
        with self._turn:
            self._closed = True
            for tasks in self._waiting.values():
                for future, _ in tasks:
                    future.cancel()
            self._turn.notify_all()
        deadline = time.monotonic() + within_s
        for thread in list(self._threads.values()):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _drive(self, lane: int) -> None:
        """Run the lane's tasks until the queue empties. A later task starts a new thread."""
        while True:
            with self._turn:
                if not self._waiting[lane]:
                    del self._waiting[lane]
                    return
                future, work = self._waiting[lane].popleft()
            if future.set_running_or_notify_cancel():
                self._run(future, work)

    def _run(self, future: Future[Any], work: Callable[[], Any]) -> None:
        permit = self._take_permit()
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the future re-raises the error to its caller
            self._return_lane(permit)
            future.set_exception(error)
        else:
            self._return_lane(permit)
            future.set_result(result)

    def _take_permit(self) -> object:
        permit = object()
        with self._turn:
            while (until_free := self._until_free()) > 0:
                self._turn.wait(until_free)
            self._running[permit] = time.monotonic()
        return permit

    def _until_free(self) -> float:
        """Return the seconds until a permit expires if no task ends earlier; 0 if a permit is free now."""
        counting = sorted(since for since in self._running.values() if time.monotonic() - since < self._patience_s)
        if len(counting) < self._permits:
            return 0.0
        return max(1e-3, counting[len(counting) - self._permits] + self._patience_s - time.monotonic())

    def _return_lane(self, permit: object) -> None:
        with self._turn:
            with suppress(KeyError):
                del self._running[permit]
            self._turn.notify_all()
