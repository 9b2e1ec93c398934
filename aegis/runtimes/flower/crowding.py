"""Saying that the gateway is full, where that is why sites do not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aegis.errors import BudgetRefused, GatewayUnreachable, RunPaused
from aegis.gateway.control import GatewayControl

__all__ = ["naming_a_full_gateway"]

_LATELY_S = 900.0


@contextmanager
def naming_a_full_gateway(gateway: GatewayControl, clock: Callable[[], float] = time.time) -> Iterator[None]:
    """Where the body pauses a run and the gateway was full lately, the pause says so: honest sites were kept out.

    Args:
        clock: Unix seconds.
    """
    began = clock()
    try:
        yield
    except BudgetRefused:
        raise  # for a reason of the sites' own
    except RunPaused as paused:
        if said := _crowded(gateway, max(began, clock() - _LATELY_S)):
            paused.args = (f"{paused}\n{said}", *paused.args[1:])
        raise


def _crowded(gateway: GatewayControl, since: float) -> str:
    try:
        load = gateway.report().gateway
    except GatewayUnreachable:
        return ""
    if not load.crowded_since(since):
        return ""
    return (
        "the gateway was full meanwhile, so that sites may not have been able to answer: "
        f"{load.in_words()} (aegis federation status shows it; limits: docs/OPERATIONS.md)"
    )
