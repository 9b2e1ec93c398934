"""What is known of sites beside their answers: when they were last heard, and whether they came back.

A site's ``activations`` count how often its node joined; a rise means that a message sent before may never be read,
and that a site which was silent can be asked again. Whatever stands here comes from the carrier and is no proof: it
decides whom to ask again, never whose update counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from coreason_enclave.wire.documents import FreeBudget

__all__ = ["Liveness", "NoLiveness", "SiteHealth"]


@dataclass(frozen=True)
class SiteHealth:
    """The last that was heard of one site.

    Attributes:
        last_seen: Unix seconds of its last sign of life; None if there was none.
        activations: how often its node has joined, counted from any beginning.
        connected: whether the carrier holds a connection of its node now.
        round_trip_s: seconds, as the site measured it.
        version: of its agent.
        budgets: what its lineages' caps leave, by its own word.
    """

    last_seen: float | None = None
    activations: int = 0
    connected: bool = False
    round_trip_s: float | None = None
    version: str | None = None
    budgets: tuple[FreeBudget, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "budgets": [budget.model_dump(mode="json") for budget in self.budgets]}


class Liveness(Protocol):
    """Where a coordinator looks for signs of life, and tells the carrier that it is about to send."""

    def health(self) -> Mapping[str, SiteHealth]:
        """By site id. Never raises: a site of which nothing is known is left out."""
        ...

    def pushing(self) -> AbstractContextManager[None]:
        """Entered while orders are sent, so that a carrier may hold deliveries until all of them are there.

        Never raises: a carrier that cannot hold delivers at once.
        """
        ...


class NoLiveness:
    """For runtimes whose sites cannot come and go."""

    def health(self) -> Mapping[str, SiteHealth]:
        """Nothing is known of any site."""
        return {}

    def pushing(self) -> AbstractContextManager[None]:
        """Nothing has to be held."""
        return nullcontext()
