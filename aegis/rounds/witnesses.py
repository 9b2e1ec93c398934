"""The sites as witnesses of this run's log: each site's last seen checkpoint, and the next checkpoint to show.

Every attestation and every update states the checkpoint that the site last accepted. The coordinator therefore stores
nothing here: after a restart, it attests with every site before sending an order.
"""

from __future__ import annotations

from aegis.security import HashLog
from coreason_enclave.crypto import Signer
from coreason_enclave.wire import LogProof, LogSeen, had_log, origin_of_run, show_log


class Witnesses:
    """Checkpoints of one run's log for its sites.

    Args:
        log: the run's own log. job_digest: names the log to the sites. signer: the coordinator's key.
    """

    def __init__(self, log: HashLog, job_digest: str, signer: Signer) -> None:
        self._log, self._origin, self._signer = log, origin_of_run(job_digest), signer
        self._seen: dict[str, LogSeen] = {}
        self._unanswered: set[str] = set()

    def record_seen(self, site: str, seen: LogSeen | None) -> bool:
        """Record the checkpoint that ``site`` last accepted; return False if this log never had that checkpoint."""
        self._unanswered.discard(site)
        if seen is None:
            self._seen.pop(site, None)
            return True
        self._seen[site] = seen
        return self.agrees(seen)

    def agrees(self, seen: LogSeen) -> bool:
        """Return True if this log once matched the checkpoint ``seen``."""
        return had_log(self._log, seen)

    def is_known(self, site: str) -> bool:
        """Return False if ``site`` was shown a checkpoint and has not answered since."""
        return site not in self._unanswered

    def withdraw(self, site: str) -> None:
        """Undo :meth:`show` for ``site``, because its checkpoint stays unsent."""
        self._unanswered.discard(site)

    def show(self, site: str) -> tuple[str, LogProof]:
        """Return a checkpoint of the current log (an envelope), and a proof that the log extends what ``site`` saw."""
        self._unanswered.add(site)
        envelope, proof = show_log(self._log, self._seen.get(site), self._signer, self._origin)
        return envelope.decode(), proof
