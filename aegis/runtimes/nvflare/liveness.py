"""Signs of life, as FLARE's server sees its clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext

from aegis.coordination.liveness import SiteHealth

__all__ = ["FlareLiveness"]


class FlareLiveness:
    """Which clients the job has, and which FLARE deems disconnected; see :class:`aegis.coordination.liveness.Liveness`.

    FLARE deems a client disconnected a minute after its job process was reported dead, and connected again as soon as
    it hears of it. A client's ``activations`` are the second in which it was first seen, or seen again: so they rise
    from one FLARE job of a run to the next, and who was silent in the one is asked again in the other.

    Args:
        clients: names of the job's clients. disconnected: when a client was deemed so (Unix seconds), or None.
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
        """By site id."""
        return {name: self._of(name) for name in sorted(self._clients())}

    def pushing(self) -> AbstractContextManager[None]:
        """FLARE's clients ask for tasks one by one: nothing has to be held."""
        return nullcontext()

    def _of(self, name: str) -> SiteHealth:
        if self._disconnected(name) is not None:
            self._away.add(name)
            return SiteHealth(activations=self._joined.get(name, 0))
        if name in self._away or name not in self._joined:
            self._joined[name] = int(self._clock())
            self._away.discard(name)
        return SiteHealth(connected=True, activations=self._joined[name])
