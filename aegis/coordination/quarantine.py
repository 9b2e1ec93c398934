"""Quarantine: which sites sit out, for how many turns, and how they come back.

A *turn* is one round completed or paused; counting in turns lets a resumed run decide the same. A *strike* records a
fault in a site's answer, or silence. A site's own refusal costs no strike, unless the site cannot attest.

- The n-th strike costs ``2^(n-1)`` turns, from the next turn on, at most :data:`MAX_TURNS`.
- Several strikes within one turn count once.
- An admitted update removes one strike.
- A site with strikes for silence alone comes back at once when its node rejoins.

A site that earns a strike at every request is asked in turns 0, 2, 5, 10, 19, 36, and then every 17th:

>>> quarantine, asked = None, []
>>> for turn in range(40):
...     if not is_quarantined(quarantine, turn):
...         asked.append(turn)
...         quarantine = record_strike(quarantine, "malformed", turn)
>>> asked
[0, 2, 5, 10, 19, 36]
"""

from __future__ import annotations

from typing import Annotated

from coreason_enclave.errors import Reason
from coreason_enclave.schemas import Flag, SafeId, StrictModel, in_range

MAX_TURNS = 16
SILENCE = frozenset({Reason.NO_REPLY.value, Reason.LATE.value})
"""Strikes that a power cut causes as well as ill will: a site whose node has rejoined since is asked again at once."""

Turn = Annotated[int, *in_range(0, 1 << 53)]


class QuarantineRecord(StrictModel):
    """The strikes of one site that still count. A site without strikes has no record.

    Attributes:
        strikes: number of strikes.
        reason, turn: reason code and turn of the last strike.
        quarantined_until: first turn in which the site is asked again.
        silent: True if every strike was for silence.
        activations: how often the site's node had joined at the last strike (``SiteHealth.activations``).
    """

    strikes: Annotated[int, *in_range(1, 1 << 53)]
    reason: SafeId
    turn: Turn
    quarantined_until: Turn
    silent: Flag
    activations: Annotated[int, *in_range(0, 1 << 53)] = 0


def record_strike(
    quarantine: QuarantineRecord | None, reason: str, turn: int, activations: int = 0
) -> QuarantineRecord:
    """Return the record after a strike in ``turn``. A second strike in the same turn adds none to the count."""
    again = quarantine is not None and quarantine.turn == turn
    strikes = (0 if quarantine is None else quarantine.strikes) + (0 if again else 1)
    return QuarantineRecord(
        strikes=strikes,
        reason=reason,
        turn=turn,
        quarantined_until=turn + 1 + min(1 << min(strikes - 1, 60), MAX_TURNS),
        silent=reason in SILENCE and (quarantine is None or quarantine.silent),
        activations=activations,
    )


def mark_late(quarantine: QuarantineRecord) -> QuarantineRecord:
    """Return the record with silence changed to lateness, after a late answer. One order costs one strike."""
    return quarantine.model_copy(update={"reason": Reason.LATE.value}) if quarantine.silent else quarantine


def remove_strike(quarantine: QuarantineRecord, turn: int) -> QuarantineRecord | None:
    """Return the record after an admitted update in ``turn``: one strike less, or None, and no further quarantine."""
    if quarantine.strikes == 1:
        return None
    return quarantine.model_copy(
        update={"strikes": quarantine.strikes - 1, "quarantined_until": min(quarantine.quarantined_until, turn + 1)}
    )


def is_quarantined(quarantine: QuarantineRecord | None, turn: int, activations: int = 0) -> bool:
    """Return True if a site is not asked in ``turn``, its node having joined ``activations`` times.

    Each turn chooses its sites once, at the beginning. A strike therefore takes effect from the next turn on.
    """
    if quarantine is None or turn >= quarantine.quarantined_until:
        return False
    return not (quarantine.silent and activations > quarantine.activations)
