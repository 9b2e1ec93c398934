"""Site liveness as the transport reports it: last contact and reconnects. A hint, never proof.

``activations`` counts how often a site's node has joined. After a rise:

- the node may never read earlier messages;
- the coordinator can ask a site again that was silent.

Liveness decides which sites to ask again, never whose update counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from coreason_enclave.wire import FreeBudget


@dataclass(frozen=True)
class SiteHealth:
    """The last known signs of life of one site.

    Attributes:
        last_seen: Unix seconds of the last sign of life; None before the first.
        activations: number of times the node has joined, counted from any starting value.
        connected: True if the transport holds a connection to the node now.
        round_trip_s: seconds, as measured by the site.
        version: version of the site's agent.
        budgets: remaining budget under the caps of the site's lineages, by the site's own statement.
    """

    last_seen: float | None = None
    activations: int = 0
    connected: bool = False
    round_trip_s: float | None = None
    version: str | None = None
    budgets: tuple[FreeBudget, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {**asdict(self), "budgets": [budget.model_dump(mode="json") for budget in self.budgets]}


class Liveness(Protocol):
    """Port to sites' signs of life, through which a coordinator also announces that it is about to send."""

    def health(self) -> Mapping[str, SiteHealth]:
        """Return signs of life by site id. Never raises: unknown sites are left out."""
        ...

    def pushing(self) -> AbstractContextManager[None]:
        """Return a context to hold while sending orders, so that a transport can delay deliveries until all are in.

        Never raises: a transport unable to delay delivers at once.
        """
        ...


class NoLiveness:
    """Liveness for runtimes whose sites cannot come and go."""

    def health(self) -> Mapping[str, SiteHealth]:
        """Return no signs of life."""
        return {}

    def pushing(self) -> AbstractContextManager[None]:
        """Return a context without effect."""
        return nullcontext()
