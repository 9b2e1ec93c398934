"""A run's durable state: what a coordinator needs to go on after it was killed at any instruction.

One document, which names models and sealed updates by their digests; :mod:`aegis.stores.run_store` keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aegis.coordination.quarantine import QuarantineRecord
from coreason_enclave.schemas import Flag, HexDigest, Provenance, SafeId, StrictModel, UnixSeconds, in_range

__all__ = [
    "AdmittedEnvelope",
    "LogPosition",
    "RoundRecord",
    "RunState",
    "SampledCohort",
    "StrategyState",
    "content_changes",
]


class RoundRecord(StrictModel):
    """One completed round. ``epsilon`` is each site's job so far, recomputed from the events that were admitted.

    ``content_changed``: the sites whose rows were other ones than at their draw before.
    ``enrolled`` are the sites of the roll-call when the round was completed: SCAFFOLD's denominator. ``envelopes`` are
    the admitted updates' own, by SHA-256, beside which their arrays are kept.
    """

    round_number: Annotated[int, *in_range(1, 1 << 53)]
    enrolled: tuple[SafeId, ...] = ()
    admitted: tuple[SafeId, ...]
    envelopes: dict[SafeId, HexDigest] = Field(default_factory=dict)
    refused: dict[SafeId, str]
    used: tuple[SafeId, ...]
    provenance: dict[SafeId, Provenance]
    steps: dict[SafeId, int]
    epsilon: dict[SafeId, float | None]
    content_changed: tuple[SafeId, ...] = ()
    model_digest: HexDigest
    metrics: dict[str, float]
    seconds: Annotated[float, *in_range(0, 1e9)]


class AdmittedEnvelope(StrictModel):
    """An update that was admitted to the open attempt: where it is kept, and when it was admitted."""

    envelope: HexDigest
    admitted_at: UnixSeconds


class SampledCohort(StrictModel):
    """Where the draws of a job with client-level privacy stand.

    Attributes:
        round_number, number: the last draw: of which round, and 1 or one more for each time it was drawn anew.
        population: the sites that were enrolled when the job first drew: the fixed part of the denominator.
        is_open: whether that round is open; it may have asked nobody.
    """

    round_number: Annotated[int, *in_range(1, 1 << 53)]
    number: Annotated[int, *in_range(1, 1 << 53)]
    population: Annotated[int, *in_range(1, 1 << 53)]
    is_open: Flag


class StrategyState(StrictModel):
    """What a strategy and a server optimizer remember between rounds: documents by digest; empty where they need none.

    Attributes:
        control: SCAFFOLD's ``c``; None: zero. variates: the sites' ``c_i``; zero for a site that is not named.
        moments: ``m`` and ``v`` of an adaptive server optimizer; None before the first round.
    """

    control: HexDigest | None = None
    variates: dict[SafeId, HexDigest] = Field(default_factory=dict)
    moments: HexDigest | None = None

    def digests(self) -> frozenset[str]:
        """The documents that are needed."""
        return frozenset(each for each in (self.control, self.moments, *self.variates.values()) if each is not None)


class LogPosition(StrictModel):
    """Where the audit log stood: its number of lines, and the SHA-256 of the last; 64 zeros where there is none."""

    size: Annotated[int, *in_range(0, 1 << 53)] = 0
    head: HexDigest = "0" * 64


class RunState(StrictModel):
    """Everything that must not be forgotten.

    Attributes:
        log: where the audit log stood when this state was saved. Every line that is written later names this state.
        turn: rounds completed or paused so far; quarantine is counted in these.
        enrolments: the envelope of each site that enrolled: the roll-call.
        conduct: the sites whose offences still count.
        attempt: of the open round. nonces: the sites it asks, each with its order's; empty where no round is open.
        left_out: the sites that the open round does not ask, each with its reason code.
        received: what the open attempt admitted so far. refused: its refusals so far, by reason code.
        offended: the sites that offended in the open attempt.
        strategy: what the strategy remembers of the completed rounds.
        client_draw: of a job with client-level privacy, from its first draw on.
    """

    version: Annotated[int, *in_range(3, 3)] = 3
    job_digest: HexDigest
    log: LogPosition = LogPosition()
    turn: Annotated[int, *in_range(0, 1 << 53)] = 0
    enrolments: dict[SafeId, str] = Field(default_factory=dict)
    quarantine: dict[SafeId, QuarantineRecord] = Field(default_factory=dict)
    attempt: Annotated[int, *in_range(1, 1 << 53)] = 1
    nonces: dict[SafeId, HexDigest] = Field(default_factory=dict)
    left_out: dict[SafeId, SafeId] = Field(default_factory=dict)
    received: dict[SafeId, AdmittedEnvelope] = Field(default_factory=dict)
    refused: dict[SafeId, SafeId] = Field(default_factory=dict)
    struck: tuple[SafeId, ...] = ()
    models: tuple[HexDigest, ...]
    history: tuple[RoundRecord, ...] = ()
    strategy: StrategyState = StrategyState()
    client_draw: SampledCohort | None = None

    @property
    def completed_rounds(self) -> int:
        """Rounds whose model is in :attr:`models`."""
        return len(self.history)

    @property
    def open_round(self) -> int:
        """The number of the round that is open, or opened next."""
        return len(self.history) + 1

    @property
    def is_open(self) -> bool:
        """Whether a round is open, even if it asks nobody."""
        return bool(self.nonces) or (self.client_draw is not None and self.client_draw.is_open)

    def repeated(self, nonces: dict[str, str]) -> RunState:
        """With the same round opened once more for the same sites; none of the attempt before it counts."""
        fresh: dict[str, object] = {"nonces": nonces, "received": {}, "refused": {}, "struck": ()}
        return self.model_copy(update={**fresh, "attempt": self.attempt + 1})

    def closed(self) -> RunState:
        """With no round open, one turn later."""
        state = self.repeated({})
        draw = None if self.client_draw is None else self.client_draw.model_copy(update={"is_open": False})
        return state.model_copy(update={"left_out": {}, "attempt": 1, "turn": self.turn + 1, "client_draw": draw})


def content_changes(history: Sequence[RoundRecord]) -> dict[str, list[int]]:
    """By site, the rounds that drew from other rows than the site's draw before them."""
    sites = sorted({site for record in history for site in record.content_changed})
    return {site: [each.round_number for each in history if site in each.content_changed] for site in sites}
