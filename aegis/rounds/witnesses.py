"""The sites as witnesses of this run's log: what each said it has seen, and what it is shown next.

A site says in every attestation and with every update which checkpoint it accepted last. So nothing has to be kept
here: a coordinator that was started anew attests with every site before it sends an order.
"""

from __future__ import annotations

from aegis.security.audit import HashLog
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.wire.checkpoints import LogProof, LogSeen, had_log, origin_of_run, show_log

__all__ = ["Witnesses"]


class Witnesses:
    """Checkpoints of one run's log for its sites.

    Args:
        log: the run's own. job_digest: names it to the sites. signer: the coordinator's.
    """

    def __init__(self, log: HashLog, job_digest: str, signer: Signer) -> None:
        self._log, self._origin, self._signer = log, origin_of_run(job_digest), signer
        self._seen: dict[str, LogSeen] = {}
        self._unanswered: set[str] = set()

    def record_seen(self, site: str, seen: LogSeen | None) -> bool:
        """Note what ``site`` says it has seen; returns False if this log never was like that."""
        self._unanswered.discard(site)
        if seen is None:
            self._seen.pop(site, None)
            return True
        self._seen[site] = seen
        return self.agrees(seen)

    def agrees(self, seen: LogSeen) -> bool:
        """Whether this log once was what ``seen`` says."""
        return had_log(self._log, seen)

    def is_known(self, site: str) -> bool:
        """Whether it is known what ``site`` saw: not where it was shown something since, and has not said so."""
        return site not in self._unanswered

    def withdraw(self, site: str) -> None:
        """What was made for ``site`` by :meth:`show` is not sent."""
        self._unanswered.discard(site)

    def show(self, site: str) -> tuple[str, LogProof]:
        """A checkpoint of the log as it is now (an envelope), and the proof that it continues what ``site`` saw."""
        self._unanswered.add(site)
        envelope, proof = show_log(self._log, self._seen.get(site), self._signer, self._origin)
        return envelope.decode(), proof
