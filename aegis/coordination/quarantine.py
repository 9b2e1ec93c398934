"""Who sits out, for how long, and the ways back; counted in turns, so that a resumed run decides the same.

A *turn* is one round completed or paused. An offence is what a coordinator found wrong with an answer, or silence; a
site's own refusal is its right and none. The n-th offence costs ``2^(n-1)`` turns from the next one on, at most
:data:`MOST_TURNS`; what happens twice within one turn counts once, and an admitted update takes one offence off.

A site that offends whenever it is asked is asked in turns 0, 2, 5, 10, 19, 36, and then every 17th:

>>> conduct, asked = None, []
>>> for turn in range(40):
...     if not sits_out(conduct, turn):
...         asked.append(turn)
...         conduct = offend(conduct, "malformed", turn)
>>> asked
[0, 2, 5, 10, 19, 36]
"""

from __future__ import annotations

from typing import Annotated

from coreason_enclave.errors import Reason
from coreason_enclave.schemas import Flag, SafeId, StrictModel, in_range

__all__ = ["MOST_TURNS", "SILENCE", "Conduct", "forgive", "note_late", "offend", "sits_out"]

MOST_TURNS = 16
SILENCE = frozenset({Reason.NO_REPLY.value, Reason.LATE.value})
"""Offences that a power cut causes as well as ill will: whoever has joined anew since is asked again at once."""

Turn = Annotated[int, *in_range(0, 1 << 53)]


class Conduct(StrictModel):
    """The offences of one site that still count. A site without any has no such record.

    Attributes:
        offences: how many. reason: the last one's code. turn: the last one's turn.
        asked_again: the first turn in which it is asked again.
        silent: whether all of them were silence.
        activations: how often its node had joined when it was last silent (``SiteHealth.activations``).
    """

    offences: Annotated[int, *in_range(1, 1 << 53)]
    reason: SafeId
    turn: Turn
    asked_again: Turn
    silent: Flag
    activations: Annotated[int, *in_range(0, 1 << 53)] = 0


def offend(conduct: Conduct | None, reason: str, turn: int, activations: int = 0) -> Conduct:
    """The record after an offence in ``turn``; the same offence twice changes nothing."""
    again = conduct is not None and conduct.turn == turn
    offences = (0 if conduct is None else conduct.offences) + (0 if again else 1)
    return Conduct(
        offences=offences,
        reason=reason,
        turn=turn,
        asked_again=turn + 1 + min(1 << min(offences - 1, 60), MOST_TURNS),
        silent=reason in SILENCE and (conduct is None or conduct.silent),
        activations=activations,
    )


def note_late(conduct: Conduct) -> Conduct:
    """An answer came after its round was closed: the silence was lateness. One order is one offence."""
    return conduct.model_copy(update={"reason": Reason.LATE.value}) if conduct.silent else conduct


def forgive(conduct: Conduct, turn: int) -> Conduct | None:
    """The record after an admitted update in ``turn``: one offence less, or none left, and nothing to sit out."""
    if conduct.offences == 1:
        return None
    return conduct.model_copy(
        update={"offences": conduct.offences - 1, "asked_again": min(conduct.asked_again, turn + 1)}
    )


def sits_out(conduct: Conduct | None, turn: int, activations: int = 0) -> bool:
    """Whether a site is not asked in ``turn``, its node having joined ``activations`` times.

    Who is asked is decided once, when a turn begins: an offence takes effect from the next one.
    """
    if conduct is None or turn >= conduct.asked_again:
        return False
    return not (conduct.silent and activations > conduct.activations)
