"""Adds "the gateway was full" to a paused run's error, if a full gateway may have silenced the sites.

Without the hint an operator would suspect the sites.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aegis.errors import GatewayUnreachable, RunPaused, RunRefused
from aegis.gateway import GatewayControl

_LATELY_S = 900.0


@contextmanager
def naming_a_full_gateway(gateway: GatewayControl, clock: Callable[[], float] = time.time) -> Iterator[None]:
    """Amend a :class:`RunPaused` from the body if the gateway was full during the last 15 minutes of the body.

    The gateway may have kept honest sites out. :class:`RunRefused` passes unchanged.

    Args:
        clock: Unix seconds.
    """
    began = clock()
    try:
        yield
    except RunRefused:
        raise  # the sites refused for a reason of their own
    except RunPaused as paused:
        if notice := _crowded(gateway, max(began, clock() - _LATELY_S)):
            paused.args = (f"{paused}\n{notice}", *paused.args[1:])
        raise


def _crowded(gateway: GatewayControl, since: float) -> str:
    try:
        load = gateway.report().gateway
    except GatewayUnreachable:
        return ""
    if not load.crowded_since(since):
        return ""
    return (
        f"the gateway was full during the round, so that replies of sites may have been refused: {load.in_words()} "
        "(aegis federation status shows it; limits: docs/OPERATIONS.md)"
    )
