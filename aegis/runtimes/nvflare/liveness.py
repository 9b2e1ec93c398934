"""Reports client liveness from FLARE's server."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext

from aegis.coordination import SiteHealth


class FlareLiveness:
    """The job's clients and their connection state in FLARE's view; see :class:`aegis.coordination.liveness.Liveness`.

    FLARE marks a client as disconnected one minute after a report that its job process died, and as connected at the
    next sign of life. A client's ``activations`` are the second of its first contact or latest return (Unix seconds).
    The value therefore rises from one FLARE job of a run to the next, and the coordinator retries a site that was
    silent in the earlier job.

    Args:
        clients: returns the names of the job's clients.
        disconnected: returns a client's disconnect time (Unix seconds), or None.
        clock: Unix seconds.
    """

    def __init__(
        self,
        clients: Callable[[], Collection[str]],
        disconnected: Callable[[str], float | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clients, self._disconnected, self._clock = clients, disconnected, clock
        self._joined: dict[str, int] = {}
        self._away: set[str] = set()

    def health(self) -> Mapping[str, SiteHealth]:
        """Return health by site id."""
        return {name: self._of(name) for name in sorted(self._clients())}

    def pushing(self) -> AbstractContextManager[None]:
        """Hold no deliveries: FLARE's clients fetch tasks one by one."""
        return nullcontext()

    def _of(self, name: str) -> SiteHealth:
        if self._disconnected(name) is not None:
            self._away.add(name)
            return SiteHealth(activations=self._joined.get(name, 0))
        if name in self._away or name not in self._joined:
            self._joined[name] = int(self._clock())
            self._away.discard(name)
        return SiteHealth(connected=True, activations=self._joined[name])
