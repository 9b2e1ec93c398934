"""Quarantine: which sites are not asked, for how many rounds, and how they come back.

A round *ends* when it is completed or paused. Quarantine counts ended rounds, so that a resumed run decides the same. A
*strike* records a fault in a site's answer, or silence. A site's own refusal costs no strike, unless the site cannot
attest.

- The n-th strike costs ``2^(n-1)`` rounds, from the next round on, at most :data:`MAX_ROUNDS`.
- Several strikes within one round count once.
- An admitted update removes one strike.
- A site with strikes for silence alone comes back at once when its node rejoins.

A site that earns a strike at every request is asked after 0, 2, 5, 10, 19, 36 ended rounds, and then after every 17th:

>>> quarantine, asked = None, []
>>> for ended in range(40):
...     if not is_quarantined(quarantine, ended):
...         asked.append(ended)
...         quarantine = record_strike(quarantine, "malformed", ended)
>>> asked
[0, 2, 5, 10, 19, 36]
"""

from __future__ import annotations

from typing import Annotated

from coreason_enclave.errors import Reason
from coreason_enclave.schemas import Flag, SafeId, StrictModel, in_range

MAX_ROUNDS = 16
SILENCE = frozenset({Reason.NO_REPLY.value, Reason.LATE.value})
"""Strikes that a power cut causes as well as ill will: a site whose node has rejoined since is asked again at once."""

RoundCount = Annotated[int, *in_range(0, 1 << 53)]


class QuarantineRecord(StrictModel):
    """The strikes of one site that still count. A site without strikes has no record.

    Attributes:
        strikes: number of strikes.
        reason, rounds_ended: reason code of the last strike, and the rounds ended before its round.
        quarantined_until: the number of ended rounds after which the site is asked again.
        silent: True if every strike was for silence.
        activations: how often the site's node had joined at the last strike (``SiteHealth.activations``).
    """

    strikes: Annotated[int, *in_range(1, 1 << 53)]
    reason: SafeId
    rounds_ended: RoundCount
    quarantined_until: RoundCount
    silent: Flag
    activations: Annotated[int, *in_range(0, 1 << 53)] = 0


def record_strike(
    quarantine: QuarantineRecord | None, reason: str, rounds_ended: int, activations: int = 0
) -> QuarantineRecord:
    """Return the record after a strike in the next round. A second strike in one round adds none to the count."""
    again = quarantine is not None and quarantine.rounds_ended == rounds_ended
    strikes = (0 if quarantine is None else quarantine.strikes) + (0 if again else 1)
    return QuarantineRecord(
        strikes=strikes,
        reason=reason,
        rounds_ended=rounds_ended,
        quarantined_until=rounds_ended + 1 + min(1 << min(strikes - 1, 60), MAX_ROUNDS),
        silent=reason in SILENCE and (quarantine is None or quarantine.silent),
        activations=activations,
    )


def mark_late(quarantine: QuarantineRecord) -> QuarantineRecord:
    """Return the record with silence changed to lateness, after a late answer. One order costs one strike."""
    return quarantine.model_copy(update={"reason": Reason.LATE.value}) if quarantine.silent else quarantine


def remove_strike(quarantine: QuarantineRecord, rounds_ended: int) -> QuarantineRecord | None:
    """Return the record after an admitted update: one strike less, or None, and no quarantine beyond this round."""
    if quarantine.strikes == 1:
        return None
    return quarantine.model_copy(
        update={
            "strikes": quarantine.strikes - 1,
            "quarantined_until": min(quarantine.quarantined_until, rounds_ended + 1),
        }
    )


def is_quarantined(quarantine: QuarantineRecord | None, rounds_ended: int, activations: int = 0) -> bool:
    """Return True if a site is not asked in the next round, its node having joined ``activations`` times.

    Each round chooses its sites once, at the beginning. A strike therefore takes effect from the next round on.
    """
    if quarantine is None or rounds_ended >= quarantine.quarantined_until:
        return False
    return not (quarantine.silent and activations > quarantine.activations)
