"""The gateway's audit log, and what a refusal looks like from outside.

Whoever is refused learns a reason code. The status is one of two, since Flower's node ends its loop on most others
while its process stays: 401 ends it, so that its agent starts it anew; 503 lets it try the same again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from aegis.errors import RequestRefused
from aegis.security.audit import HashLog
from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.errors import Reason

__all__ = ["GatewayAudit", "refusal_body", "refusal_status"]

_TRY_AGAIN = frozenset({Reason.CONFIGURATION, Reason.INTERNAL, Reason.LATE, Reason.TRANSPORT})
_REPEAT_S = 60.0
_MOST_KEYS = 1024

Key = tuple[str, str, str]


def refusal_status(reason: Reason) -> int:
    """503 for what may pass by itself, 401 for everything else."""
    return 503 if reason in _TRY_AGAIN else 401


def refusal_body(reason: Reason) -> bytes:
    """All that the other end is told."""
    return canonical_json({"reason": reason.value})


@dataclass
class _Repeats:
    since: float
    count: int = 0


class GatewayAudit:
    """What the gateway did, hash-chained. Identical refusals are written once, then as one count a minute.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, log: HashLog, *, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock
        self._repeats: dict[Key, _Repeats] = {}

    def accepted(self, actor: str, action: str, **details: str | int) -> None:
        """Something that happens rarely enough to be written each time."""
        self._log.append(actor=actor, action=action, outcome="accepted", details=details)

    def refused(self, actor: str, action: str, refusal: RequestRefused) -> None:
        """A refusal."""
        now, key = self._clock(), (actor, action, refusal.reason.value)
        known = self._repeats.get(key)
        if known is not None and now - known.since < _REPEAT_S:
            known.count += 1
            return
        if known is not None:
            self._write_count(key, known)
        if len(self._repeats) >= _MOST_KEYS:
            self.flush()
        self._repeats[key] = _Repeats(now)
        self._log.append(
            actor=actor,
            action=action,
            outcome="refused",
            reason=refusal.reason.value,
            details={"message": str(refusal)[:300]},
        )

    def flush(self) -> None:
        """Write the counts that are open, and forget them."""
        for key, repeats in self._repeats.items():
            self._write_count(key, repeats)
        self._repeats.clear()

    def close(self) -> None:
        """Write what is open and release the file."""
        self.flush()
        self._log.close()

    def _write_count(self, key: Key, repeats: _Repeats) -> None:
        if repeats.count:
            actor, action, reason = key
            details = {"times": repeats.count, "since": round(repeats.since, 3)}
            self._log.append(actor=actor, action=action, outcome="refused_again", reason=reason, details=details)
