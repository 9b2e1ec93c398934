"""A run's strategy: the bytes that each site is sent as the base model, and the step that ends a round.

:mod:`aegis.strategies` computes; here is what it is computed from, which the run's store keeps. A document is on disk
before the state that names it, so a run that is resumed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aegis.rounds.context import RunContext
from aegis.stores.run_state import StrategyState
from aegis.strategies import Moments, correction, next_server_control, next_site_control, server_step
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.schemas import AggregationStrategy
from coreason_enclave.wire.updates import Array, Arrays, encode_arrays, layout_of, with_correction

__all__ = ["BaseModels", "ServerStep"]


class BaseModels:
    """The open round's global model, as each site is sent it: under SCAFFOLD with that site's correction.

    The bytes are made when they are asked for: a correction is as large as the model, and there is one for each site.
    """

    def __init__(self, run: RunContext) -> None:
        state = run.journal.state
        self._memory = _Memory(run)
        self._shared: tuple[bytes, str] | None = None
        self.arrays = run.journal.store.load_model(state.models[-1])
        self.layout = layout_of(self.arrays)
        if run.job.strategy is AggregationStrategy.SCAFFOLD:
            self._control = self._memory.control(self.arrays)
        else:
            self._shared = encode_arrays(self.arrays), state.models[-1]

    def encoded(self, site: str) -> bytes:
        """What ``site``'s order is sent with."""
        if self._shared is not None:
            return self._shared[0]
        own = self._memory.variate(site, self.arrays)
        return encode_arrays(with_correction(self.arrays, correction(self._control, own)))

    def digest(self, site: str) -> str:
        """The SHA-256 of these bytes, which the order names."""
        return sha256_hex(self.encoded(site)) if self._shared is None else self._shared[1]


@dataclass(frozen=True)
class ServerStep:
    """From a round's updates to the next global model and to what the strategy remembers.

    Attributes:
        base: the round's global model. updates: of the sites whose updates the aggregator was given, by site.
        combined: what it made of them.
    """

    run: RunContext
    base: Arrays
    updates: Mapping[str, Arrays]
    combined: Arrays

    def apply(self) -> tuple[dict[str, Array], StrategyState]:
        """The next model, and the state to save with it, whose documents are durable when this returns."""
        memory, before = _Memory(self.run), self.run.journal.state.strategy
        model, moments = server_step(self.base, self.combined, self.run.job.server_optimizer, memory.moments())
        changes: dict[str, object] = {}
        if moments is not None:
            changes["moments"] = self.run.journal.store.save_strategy(moments.to_arrays())
        if self.run.job.strategy is AggregationStrategy.SCAFFOLD:
            changes |= self._variates(memory)
        return model, before.model_copy(update=changes)

    def _variates(self, memory: _Memory) -> dict[str, object]:
        """``c``, and ``c_i`` of every site whose update counted; those of the others stay as they are."""
        job, store, control = self.run.job, self.run.journal.store, memory.control(self.base)
        steps_times_lr = job.local_steps * job.learning_rate
        variates = dict(self.run.journal.state.strategy.variates)
        for site, update in sorted(self.updates.items()):
            own = memory.variate(site, self.base)
            variates[site] = store.save_strategy(next_site_control(own, control, update, steps_times_lr=steps_times_lr))
        share = len(self.updates) / len(self.run.enrolments().keys() | self.updates.keys())
        following = next_server_control(control, self.combined, share=share, steps_times_lr=steps_times_lr)
        return {"control": store.save_strategy(following), "variates": variates}


class _Memory:
    """What the run's store holds of the strategy, and zeros for what it does not."""

    def __init__(self, run: RunContext) -> None:
        self._state, self._store = run.journal.state.strategy, run.journal.store

    def control(self, like: Arrays) -> dict[str, Array]:
        return self._load(self._state.control, like)

    def variate(self, site: str, like: Arrays) -> dict[str, Array]:
        return self._load(self._state.variates.get(site), like)

    def moments(self) -> Moments | None:
        digest = self._state.moments
        return None if digest is None else Moments.from_arrays(self._store.load_strategy(digest))

    def _load(self, digest: str | None, like: Arrays) -> dict[str, Array]:
        if digest is None:
            return {name: np.zeros_like(array) for name, array in like.items()}
        return self._store.load_strategy(digest)
