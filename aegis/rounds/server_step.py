"""A run's strategy: builds the base model for each site, and applies the server step that ends a round.

:mod:`aegis.strategies` computes; this module loads its inputs from the run's store and saves its results. A document is
on disk before the state that names it, so a resumed run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aegis.rounds.context import RunContext
from aegis.stores import StrategyState
from aegis.strategies import Moments, correction, next_server_control, next_site_control, server_step
from coreason_enclave.crypto import sha256_hex
from coreason_enclave.schemas import AggregationStrategy
from coreason_enclave.wire import Array, Arrays, encode_arrays, layout_of, with_correction


class BaseModels:
    """The open round's global model as each site receives it; under SCAFFOLD with the site's own correction.

    The bytes are built on request, because every site's correction is as large as the model.
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
        """Return the model bytes to send with ``site``'s order."""
        if self._shared is not None:
            return self._shared[0]
        own = self._memory.variate(site, self.arrays)
        return encode_arrays(with_correction(self.arrays, correction(self._control, own)))

    def digest(self, site: str) -> str:
        """Return the SHA-256 (hex) of these bytes, which the order names."""
        return sha256_hex(self.encoded(site)) if self._shared is None else self._shared[1]


@dataclass(frozen=True)
class ServerStep:
    """Computes the next global model and the strategy's state from a round's updates.

    Attributes:
        base: the round's global model. updates: the updates that counted, by site.
        combined: the aggregator's result.
    """

    run: RunContext
    base: Arrays
    updates: Mapping[str, Arrays]
    combined: Arrays

    def apply(self) -> tuple[dict[str, Array], StrategyState]:
        """Return the next model and the strategy state to save with it; the state's documents are durable on return."""
        memory, before = _Memory(self.run), self.run.journal.state.strategy
        model, moments = server_step(self.base, self.combined, self.run.job.server_optimizer, memory.moments())
        changes: dict[str, object] = {}
        if moments is not None:
            changes["moments"] = self.run.journal.store.save_strategy(moments.to_arrays())
        if self.run.job.strategy is AggregationStrategy.SCAFFOLD:
            changes |= self._variates(memory)
        return model, before.model_copy(update=changes)

    def _variates(self, memory: _Memory) -> dict[str, object]:
        """Return ``c``, and ``c_i`` with new values for the sites whose updates counted. Other sites keep theirs."""
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
    """Loads the strategy's documents from the run's store; a missing document reads as zeros."""

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
