"""Health statements: signed reports to the gateway every few seconds, with the measured round-trip time."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from coreason_enclave import __version__
from coreason_enclave.crypto import Signer, seal
from coreason_enclave.errors import EnclaveError
from coreason_enclave.ledger import LedgerHead, PrivacyLedger
from coreason_enclave.policy import SiteConfig
from coreason_enclave.site import Connection, GatewayHttp
from coreason_enclave.wire import HEALTH_TYPE, FreeBudget, HealthStatement

HEALTH_PATH = "/v1/agent/health"
INTERVAL_S = 5.0
_TIMEOUT_S = 10.0


class Budgets:
    """The remaining budget of each lineage, recomputed only after the ledger has grown."""

    def __init__(self, config: SiteConfig, ledger: PrivacyLedger) -> None:
        self._config, self._ledger = config, ledger
        self._at: LedgerHead | None = None
        self._known: tuple[FreeBudget, ...] = ()

    def now(self) -> tuple[FreeBudget, ...]:
        """Return the remaining budgets; raise :class:`LedgerError` if the ledger cannot be read."""
        head = self._ledger.head()
        if head != self._at:
            self._known = tuple(self._of(entry.lineage, entry.dataset_id) for entry in self._config.lineages)
            self._at = head
        return self._known

    def _of(self, lineage: str, dataset_id: str) -> FreeBudget:
        claim = self._ledger.lineage_claim(lineage)
        return FreeBudget(
            dataset_id=dataset_id,
            epsilon_cap=claim.caps.epsilon,
            epsilon_spent=min(claim.spent_epsilon, 1e6),
            delta=claim.caps.delta,
        )


@dataclass
class HealthSender:
    """Sends health statements; run :meth:`run` in its own thread. The next beat retries an unreachable gateway.

    Attributes:
        round_trip_s: of the last statement, if the gateway accepted the statement; otherwise None.
    """

    connection: Connection
    signer: Signer
    site_id: str
    budgets: Callable[[], tuple[FreeBudget, ...]]
    busy: Callable[[], bool]
    stop: threading.Event
    wall: Callable[[], float] = time.time
    round_trip_s: float | None = field(default=None, init=False)
    _session: GatewayHttp | None = field(default=None, init=False)

    def run(self) -> None:
        """Send statements until ``stop``."""
        while not self.stop.is_set():
            self.beat()
            self.stop.wait(INTERVAL_S)
        self._hang_up()

    def beat(self) -> bool:
        """Send one statement; return True if the gateway accepted the statement."""
        try:
            self.round_trip_s = self._post(seal(HEALTH_TYPE, self.statement().canonical(), self.signer))
        except (OSError, http.client.HTTPException, EnclaveError):
            self._hang_up()
            self.round_trip_s = None
        return self.round_trip_s is not None

    def statement(self) -> HealthStatement:
        """Return the current health statement, unsigned."""
        return HealthStatement(
            site_id=self.site_id,
            agent_version=__version__,
            sent_at=int(self.wall()),
            round_trip_s=None if self.round_trip_s is None else min(self.round_trip_s, 3600.0),
            busy=self.busy(),
            budgets=self.budgets(),
        )

    def _post(self, envelope: bytes) -> float | None:
        """Return the seconds from sending to the complete answer, or None after a refusal."""
        if self._session is None:
            self._session = self.connection.http(timeout_s=_TIMEOUT_S)
            self._session.connect()  # separately, to keep the handshake out of the round-trip time
        started = time.perf_counter()
        self._session.request("POST", HEALTH_PATH, envelope, {"Content-Type": "application/json"})
        response = self._session.getresponse()
        response.read(1 << 16)
        if response.status // 100 != 2 or response.will_close:
            self._hang_up()
        return time.perf_counter() - started if response.status // 100 == 2 else None

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None
