"""A run's durable state: all that a coordinator needs to continue after a kill at any instruction.

The state is one document, which names models and sealed updates by their digests. :mod:`aegis.stores.run_store` stores
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aegis.coordination import QuarantineRecord
from coreason_enclave.schemas import Flag, HexDigest, Provenance, SafeId, StrictModel, UnixSeconds, in_range


class RoundRecord(StrictModel):
    """The record of one completed round.

    Attributes:
        enrolled: the roll-call's sites at completion: SCAFFOLD's denominator.
        envelopes: SHA-256 of each admitted update's envelope, by site; the arrays are stored next to the envelopes.
        epsilon: each site's spend in the job so far, recomputed from the admitted events.
        content_changed: the sites whose rows differed from those of their previous draw.
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
    """An update admitted to the open attempt: the digest of its envelope, and the time of admission."""

    envelope: HexDigest
    admitted_at: UnixSeconds


class SampledCohort(StrictModel):
    """The sampling state of a job with client-level privacy.

    Attributes:
        round_number: round of the last draw. number: 1 for the round's first draw, one more for each resampling.
        population: number of sites enrolled at the job's first draw: the fixed part of the denominator.
        is_open: True while that round is open, even if no site was drawn.
    """

    round_number: Annotated[int, *in_range(1, 1 << 53)]
    number: Annotated[int, *in_range(1, 1 << 53)]
    population: Annotated[int, *in_range(1, 1 << 53)]
    is_open: Flag


class StrategyState(StrictModel):
    """The memory of a strategy and a server optimizer between rounds: documents by digest, empty if none are needed.

    Attributes:
        control: SCAFFOLD's ``c``; None: zero. variates: the sites' ``c_i``; zero for a site without an entry.
        moments: ``m`` and ``v`` of an adaptive server optimizer; None before the first round.
    """

    control: HexDigest | None = None
    variates: dict[SafeId, HexDigest] = Field(default_factory=dict)
    moments: HexDigest | None = None

    def digests(self) -> frozenset[str]:
        """Return the digests of all documents in use."""
        return frozenset(each for each in (self.control, self.moments, *self.variates.values()) if each is not None)


class LogPosition(StrictModel):
    """A position of the audit log: its number of lines, and the last line's SHA-256 (64 zeros if empty)."""

    size: Annotated[int, *in_range(0, 1 << 53)] = 0
    head: HexDigest = "0" * 64


class RunState(StrictModel):
    """Everything about a run that a coordinator must remember.

    Attributes:
        log: position of the audit log at the time of saving. Every line up to the next save names this state.
        rounds_ended: number of rounds completed or paused so far, the unit of quarantine.
        enrolments: envelope of each enrolled site: the roll-call.
        quarantine: records of the sites whose strikes still count.
        attempt: number of the open round's attempt. nonces: each asked site's order nonce; empty while no round is
            open.
        left_out: reason codes of the sites that the open round does not ask.
        received: updates admitted to the open attempt so far. refused: its refusals so far, by reason code.
        struck: sites with a strike in the open attempt.
        strategy: the strategy's memory of the completed rounds.
        client_draw: sampling state of a job with client-level privacy, from its first draw on.
    """

    version: Annotated[int, *in_range(3, 3)] = 3
    job_digest: HexDigest
    log: LogPosition = LogPosition()
    rounds_ended: Annotated[int, *in_range(0, 1 << 53)] = 0
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
        """Number of completed rounds, whose models :attr:`models` lists."""
        return len(self.history)

    @property
    def open_round(self) -> int:
        """Number of the open round, or of the next round to open."""
        return len(self.history) + 1

    @property
    def is_open(self) -> bool:
        """True if a round is open, even a round that asks no site."""
        return bool(self.nonces) or (self.client_draw is not None and self.client_draw.is_open)

    def repeated(self, nonces: dict[str, str]) -> RunState:
        """Return the state with the same round open again for the same sites; the previous attempt no longer counts."""
        fresh: dict[str, object] = {"nonces": nonces, "received": {}, "refused": {}, "struck": ()}
        return self.model_copy(update={**fresh, "attempt": self.attempt + 1})

    def closed(self) -> RunState:
        """Return the state with no round open, one ended round later."""
        state = self.repeated({})
        draw = None if self.client_draw is None else self.client_draw.model_copy(update={"is_open": False})
        return state.model_copy(
            update={"left_out": {}, "attempt": 1, "rounds_ended": self.rounds_ended + 1, "client_draw": draw}
        )


def content_changes(history: Sequence[RoundRecord]) -> dict[str, list[int]]:
    """Return, by site, the rounds whose rows differed from those of the site's previous draw."""
    sites = sorted({site for record in history for site in record.content_changed})
    return {site: [each.round_number for each in history if site in each.content_changed] for site in sites}
