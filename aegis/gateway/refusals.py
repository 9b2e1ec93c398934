"""The gateway's audit log, and the responses for refused requests.

A refused client learns only a reason code. Flower's node stops its loop on most statuses while its process stays alive,
so the gateway uses two:

- 401 ends the node's process, and the site's agent starts a new process;
- 503 lets the node retry the same request later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from aegis.errors import RequestRefused
from aegis.security import HashLog
from coreason_enclave.crypto import canonical_json
from coreason_enclave.errors import Reason

_TRY_AGAIN = frozenset({Reason.CONFIGURATION, Reason.INTERNAL, Reason.LATE, Reason.TRANSPORT})
_REPEAT_S = 60.0
_MAX_KEYS = 1024

Key = tuple[str, str, str]


def refusal_status(reason: Reason) -> int:
    """Return 503 for reasons that may pass by themselves, 401 for all others."""
    return 503 if reason in _TRY_AGAIN else 401


def refusal_body(reason: Reason) -> bytes:
    """Return the response body: the reason code alone."""
    return canonical_json({"reason": reason.value})


@dataclass
class _Repeats:
    since: float
    count: int = 0


class GatewayAudit:
    """The gateway's hash-chained audit log. Logs an identical refusal once, then one count a minute.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, log: HashLog, *, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock
        self._repeats: dict[Key, _Repeats] = {}

    def accepted(self, actor: str, action: str, **details: str | int) -> None:
        """Log an accepted action. Only for rare actions: every call writes an entry."""
        self._log.append(actor=actor, action=action, outcome="accepted", details=details)

    def refused(self, actor: str, action: str, refusal: RequestRefused) -> None:
        """Log a refusal, or count a repetition within the minute."""
        now, key = self._clock(), (actor, action, refusal.reason.value)
        known = self._repeats.get(key)
        if known is not None and now - known.since < _REPEAT_S:
            known.count += 1
            return
        if known is not None:
            self._write_count(key, known)
        if len(self._repeats) >= _MAX_KEYS:
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
        """Write all open counts and forget them."""
        for key, repeats in self._repeats.items():
            self._write_count(key, repeats)
        self._repeats.clear()

    def close(self) -> None:
        """Write all open counts and close the file."""
        self.flush()
        self._log.close()

    def _write_count(self, key: Key, repeats: _Repeats) -> None:
        if repeats.count:
            actor, action, reason = key
            details = {"times": repeats.count, "since": round(repeats.since, 3)}
            self._log.append(actor=actor, action=action, outcome="refused_again", reason=reason, details=details)
