"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_background", "until"]

Result = TypeVar("Result")
_PAUSE = threading.Event()  # never set: a wait on it is a pause that ends with the condition's next look


def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Look until the condition holds; fail when it does not within the time."""
    for _ in range(int(within_s / 0.01)):
        if condition():
            return
        _PAUSE.wait(0.01)
    raise AssertionError("the condition did not come true in time")


def in_background(call: Callable[[], Result]) -> Future[Result]:
    """Run in a thread; the future has the result."""
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        return pool.submit(call)
    finally:
        pool.shutdown(wait=False)
