"""Updates that a hostile site sends: six attacks, five of them pure functions on updates.

Updates are model deltas (new weights minus base weights): float32 arrays by name. Sums use float64.

===========  ====================================================================  ===========================
attack       update sent                                                           knowledge of other sites
===========  ====================================================================  ===========================
sign_flip    minus its own honest update                                           not needed
scaled       -20 times its own honest update                                       not needed
nan          NaN everywhere                                                        not needed
label_flip   an honest update, trained on rows with flipped labels                 not needed
alie         the honest updates' mean less ``z`` of their standard deviations      all honest updates
ipm          minus half of the honest updates' mean                                all honest updates
===========  ====================================================================  ===========================

Sources:

- *A little is enough* (alie): G. Baruch, M. Baruch, Y. Goldberg, NeurIPS 2019.
- *Inner product manipulation* (ipm): C. Xie, O. Koyejo, I. Gupta, "Fall of Empires", UAI 2019.

As in both papers, the strongest attacker here knows everything: it sees this round's honest updates before replying,
which a real site does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np
from scipy.stats import norm

from coreason_enclave.wire import Array, Arrays

Forge = Callable[[Arrays, Sequence[Arrays]], dict[str, Array]]
"""Maps the attacker's own honest update and the other sites' updates to the update that the attacker sends."""

ALIE_DEVIATIONS = 1.5
"""Lower bound for :func:`alie_largest_z`, which returns 0, no attack at all, for one hostile site of five."""


class Attack(StrEnum):
    """The attacks, under their command line names."""

    SIGN_FLIP = "sign_flip"
    SCALED = "scaled"
    NAN = "nan"
    LABEL_FLIP = "label_flip"
    ALIE = "alie"
    IPM = "ipm"

    @property
    def is_omniscient(self) -> bool:
        """Return True if the attacker needs every honest update of the round."""
        return self in (Attack.ALIE, Attack.IPM)


def forge_of(attack: Attack) -> Forge | None:
    """Return the forging function of ``attack``.

    None for label_flip: its update results from honest work on dishonest rows.
    """
    forges: dict[Attack, Forge] = {
        Attack.SIGN_FLIP: lambda own, _: sign_flip(own),
        Attack.SCALED: lambda own, _: scaled(own),
        Attack.NAN: lambda own, _: not_a_number(own),
        Attack.ALIE: lambda _, honest: alie(honest),
        Attack.IPM: lambda _, honest: ipm(honest),
    }
    return forges.get(attack)


def sign_flip(own: Arrays) -> dict[str, Array]:
    """Return minus the honest update: the same length, the opposite direction."""
    return scaled(own, -1.0)


def scaled(own: Arrays, factor: float = -20.0) -> dict[str, Array]:
    """Return ``factor`` times the honest update. A few such updates outvote all sites under plain averaging.

    >>> scaled({"w": np.array([1.0, -0.5], np.float32)}, factor=-10.0)
    {'w': array([-10.,   5.], dtype=float32)}
    """
    return {name: (factor * array.astype(np.float64)).astype(np.float32) for name, array in own.items()}


def not_a_number(own: Arrays) -> dict[str, Array]:
    """Return NaN in every place. A single NaN turns a mean into NaN for good."""
    return {name: np.full_like(array, np.nan) for name, array in own.items()}


def alie(honest: Sequence[Arrays], *, deviations: float | None = None) -> dict[str, Array]:
    """Return the honest mean less ``deviations`` times the honest standard deviation (population), per coordinate.

    Args:
        honest: at least one update.
        deviations: default: the larger of :func:`alie_largest_z` for a single attacker next to these sites, and
            :data:`ALIE_DEVIATIONS`.

    >>> alie([{"w": np.array([1.0], np.float32)}, {"w": np.array([3.0], np.float32)}], deviations=0.5)
    {'w': array([1.5], dtype=float32)}
    """
    z = max(alie_largest_z(len(honest) + 1, 1), ALIE_DEVIATIONS) if deviations is None else deviations
    return {
        name: (values.mean(axis=0) - z * values.std(axis=0)).astype(np.float32)
        for name, values in _stacked(honest).items()
    }


def alie_largest_z(sites: int, hostile: int) -> float:
    """Return how many deviations stay, in expectation, within the honest majority's own spread (the paper's z max).

    With ``s = floor(sites / 2 + 1) - hostile`` honest supporters needed, the result is the quantile of the standard
    normal at ``(sites - hostile - s) / (sites - hostile)``; 0 where no such deviation exists.

    >>> round(alie_largest_z(50, 24), 3)
    1.426
    """
    honest = sites - hostile
    supporters = math.floor(sites / 2 + 1) - hostile
    share = (honest - supporters) / honest
    return max(float(norm.ppf(share)), 0.0) if 0 < share < 1 else 0.0


def ipm(honest: Sequence[Arrays], *, strength: float = 0.5) -> dict[str, Array]:
    """Return minus ``strength`` times the honest mean.

    Small enough to hide, with a negative inner product with the mean.

    >>> ipm([{"w": np.array([1.0], np.float32)}, {"w": np.array([3.0], np.float32)}])
    {'w': array([-1.], dtype=float32)}
    """
    return {name: (-strength * values.mean(axis=0)).astype(np.float32) for name, values in _stacked(honest).items()}


def _stacked(updates: Sequence[Arrays]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    if not updates:
        raise ValueError("an omniscient attacker needs at least one honest update")
    return {name: np.stack([update[name] for update in updates]).astype(np.float64) for name in updates[0]}
