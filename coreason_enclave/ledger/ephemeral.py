"""A ledger in memory with the same rules and hash chain; its claims carry ``durable=False``."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from coreason_enclave.errors import LedgerError
from coreason_enclave.ledger.chain import Link
from coreason_enclave.ledger.operations import Clock, Decision, EventSourcedLedger, next_link, system_clock
from coreason_enclave.ledger.state import LedgerState


class EphemeralLedger(EventSourcedLedger):
    """A ledger for experiments and notebooks. Its entries vanish with the process, so spend no real budget on it."""

    def __init__(self, *, clock: Clock = system_clock) -> None:
        super().__init__(clock)
        self._mutex = threading.RLock()
        self._held: set[str] = set()
        link, self._state = next_link(LedgerState(), self._founding())
        self._chain = [link]
        self._closed = False

    @property
    def durable(self) -> bool:
        """Return False."""
        return False

    @contextmanager
    def hold(self, lineage: str) -> Iterator[None]:
        """See :meth:`.PrivacyLedger.hold`."""
        self._verified().lineage(lineage)
        with self._mutex:
            if lineage in self._held:
                raise LedgerError(f"lineage {lineage!r} is in use by another session: wait until that session ends")
            self._held.add(lineage)
        try:
            yield
        finally:
            self._held.discard(lineage)

    def close(self) -> None:
        """See :meth:`.PrivacyLedger.close`."""
        self._closed = True

    def _verified(self) -> LedgerState:
        if self._closed:
            raise LedgerError("the ledger is closed")
        return self._state

    def _append(self, decide: Decision) -> tuple[LedgerState, bool]:
        with self._mutex:
            entry = decide(self._verified())
            if entry is None:
                return self._state, False
            link, self._state = next_link(self._state, entry)
            self._chain.append(link)
            return self._state, True

    def _links(self) -> Sequence[Link]:
        with self._mutex:
            self._verified()
            return tuple(self._chain)

    def _hash_at(self, seq: int) -> str | None:
        links = self._links()
        return links[seq].hash if 0 <= seq < len(links) else None
