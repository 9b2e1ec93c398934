"""Who sits out, for how long, and the ways back; counted in turns, so that a resumed run decides the same.

A *turn* is one round completed or paused. An offence is what a coordinator found wrong with an answer, or silence; a
site's own refusal is its right and none. The n-th offence costs ``2^(n-1)`` turns from the next one on, at most
:data:`MAX_TURNS`; what happens twice within one turn counts once, and an admitted update takes one offence off.

A site that offends whenever it is asked is asked in turns 0, 2, 5, 10, 19, 36, and then every 17th:

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

__all__ = ["MAX_TURNS", "SILENCE", "QuarantineRecord", "is_quarantined", "mark_late", "record_strike", "remove_strike"]

MAX_TURNS = 16
SILENCE = frozenset({Reason.NO_REPLY.value, Reason.LATE.value})
"""Offences that a power cut causes as well as ill will: whoever has joined anew since is asked again at once."""

Turn = Annotated[int, *in_range(0, 1 << 53)]


class QuarantineRecord(StrictModel):
    """The offences of one site that still count. A site without any has no such record.

    Attributes:
        offences: how many. reason: the last one's code. turn: the last one's turn.
        asked_again: the first turn in which it is asked again.
        silent: whether all of them were silence.
        activations: how often its node had joined when it was last silent (``SiteHealth.activations``).
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
    """The record after an offence in ``turn``; the same offence twice changes nothing."""
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
    """An answer came after its round was closed: the silence was lateness. One order is one offence."""
    return quarantine.model_copy(update={"reason": Reason.LATE.value}) if quarantine.silent else quarantine


def remove_strike(quarantine: QuarantineRecord, turn: int) -> QuarantineRecord | None:
    """The record after an admitted update in ``turn``: one offence less, or none left, and nothing to sit out."""
    if quarantine.strikes == 1:
        return None
    return quarantine.model_copy(
        update={"strikes": quarantine.strikes - 1, "quarantined_until": min(quarantine.quarantined_until, turn + 1)}
    )


def is_quarantined(quarantine: QuarantineRecord | None, turn: int, activations: int = 0) -> bool:
    """Whether a site is not asked in ``turn``, its node having joined ``activations`` times.

    Who is asked is decided once, when a turn begins: an offence takes effect from the next one.
    """
    if quarantine is None or turn >= quarantine.quarantined_until:
        return False
    return not (quarantine.silent and activations > quarantine.activations)
