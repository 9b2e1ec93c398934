"""Screens updates before any computation with them, and sets unfit updates aside by site name.

An accepted update has exactly the model's tensors (names, shapes and dtype), only finite values, and a Euclidean norm
within the declared bound. A hostile or broken site costs the round its own update and no more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aegis.aggregation.columns import Arrays, Layout, sweep
from aegis.errors import InvalidAggregation


class Quarantine(StrEnum):
    """Reasons for setting an update aside. Stable codes, in the order of the checks."""

    DUPLICATE_SITE = "duplicate_site"
    MALFORMED = "malformed"
    WRONG_NAMES = "wrong_names"
    WRONG_DTYPE = "wrong_dtype"
    WRONG_SHAPE = "wrong_shape"
    NO_WEIGHT = "no_weight"
    NON_FINITE = "non_finite"
    OUTSIZED = "outsized"


class SiteUpdate(Protocol):
    """The fields of an update that aggregation needs; an admitted update satisfies this protocol unchanged."""

    @property
    def site_id(self) -> str: ...
    @property
    def arrays(self) -> Arrays: ...
    @property
    def num_examples(self) -> int | None: ...


@dataclass(frozen=True, eq=False)
class Contribution:
    """One site's model delta.

    Args:
        site_id: the coordinator's name for the site, not a name that the site chose.
        arrays: float32 tensors by name. Callers must not write to them during aggregation.
        num_examples: number of examples by the site's own statement; used only if a job declares a cap.
    """

    site_id: str
    arrays: Arrays
    num_examples: int | None = None


@dataclass(frozen=True, eq=False)
class Screened:
    """Accepted updates, ordered by site name, and the reason for every site set aside."""

    accepted: tuple[Contribution, ...]
    quarantined: Mapping[str, Quarantine]


def screen(contributions: Iterable[SiteUpdate], layout: Layout, max_norm: float, *, weighted: bool = False) -> Screened:
    """Separate updates fit for aggregation from unfit ones.

    The checks, in order, cheap ones first:

    1. The site sent a single update. Of two, neither can be preferred.
    2. The content is a mapping of plain NumPy arrays.
    3. The names match ``layout``.
    4. The dtype is native float32.
    5. The shapes match ``layout``.
    6. If ``weighted``, ``num_examples`` is positive.
    7. Every value is finite.
    8. The norm over all tensors is at most ``max_norm``.

    Checks 1 to 6 read no value and allocate no memory of the update's own size.

    Args:
        contributions: updates in any order, with content of any kind.
        layout: names and shapes of the model that the updates are for.
        max_norm: largest Euclidean norm of a whole update, in the model's units.
        weighted: whether ``num_examples`` will be used.

    Raises:
        InvalidAggregation: the call itself is wrong: an empty or malformed layout, a ``max_norm`` that is not a
            positive finite number, or an update without a site name to report a reason for.
    """
    _check_request(layout, max_norm)
    received = list(contributions)
    times = Counter(_site_of(update) for update in received)
    verdicts: dict[str, Contribution | Quarantine] = {
        site: Quarantine.DUPLICATE_SITE for site, count in times.items() if count > 1
    }
    for update in received:
        if times[update.site_id] == 1:
            verdicts[update.site_id] = _well_formed(update, layout, weighted)
    accepted = [verdict for _, verdict in sorted(verdicts.items()) if isinstance(verdict, Contribution)]
    verdicts.update(_out_of_bounds(accepted, max_norm))
    return Screened(
        tuple(update for update in accepted if verdicts[update.site_id] is update),
        MappingProxyType({s: v for s, v in sorted(verdicts.items()) if isinstance(v, Quarantine)}),
    )


def _check_request(layout: Layout, max_norm: float) -> None:
    if not layout or not all(_is_shape(shape) for shape in layout.values()):
        raise InvalidAggregation("layout must map at least one tensor name to its sizes: use the model's layout")
    if type(max_norm) not in (int, float) or not 0 < max_norm < math.inf:
        raise InvalidAggregation(f"max_norm must be a positive, finite number, got {max_norm!r:.80}")


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)


def _site_of(update: object) -> str:
    site = getattr(update, "site_id", None)
    if not isinstance(site, str) or not site:
        raise InvalidAggregation(f"every update needs its site's name: got {type(update).__name__} without one")
    return site


def _well_formed(update: SiteUpdate, layout: Layout, weighted: bool) -> Contribution | Quarantine:
    """Run checks 2 to 6. Return an accepted update contiguous and aligned, copied only if necessary."""
    arrays = _plain_arrays(getattr(update, "arrays", None))
    if arrays is None:
        return Quarantine.MALFORMED
    if arrays.keys() != layout.keys():
        return Quarantine.WRONG_NAMES
    if any(array.dtype != np.float32 for array in arrays.values()):
        return Quarantine.WRONG_DTYPE
    if any(array.shape != layout[name] for name, array in arrays.items()):
        return Quarantine.WRONG_SHAPE
    num_examples = getattr(update, "num_examples", None)
    if weighted and not (type(num_examples) is int and num_examples >= 1):
        return Quarantine.NO_WEIGHT
    contiguous = {name: np.require(array, requirements=("C", "A")) for name, array in arrays.items()}
    return Contribution(update.site_id, contiguous, num_examples)


def _plain_arrays(arrays: object) -> dict[str, NDArray[np.float32]] | None:
    """Return a copy of the mapping, or None. Subclasses of ndarray are refused: they can redefine arithmetic."""
    if not isinstance(arrays, Mapping):
        return None
    try:
        copy = dict(arrays.items())
    except Exception:  # noqa: BLE001 - a foreign mapping runs its own code; whatever it raises says the same
        return None
    plain = all(type(name) is str and type(array) is np.ndarray for name, array in copy.items())
    return copy if plain else None


def _out_of_bounds(updates: list[Contribution], max_norm: float) -> dict[str, Quarantine]:
    """Run checks 7 and 8 in one pass: a float64 sum of squares is finite exactly if every value is."""
    quarantined: dict[str, Quarantine] = {}

    def work(share: Iterator[Contribution]) -> None:
        for update in share:
            norm = _norm(update.arrays)
            if not math.isfinite(norm):
                quarantined[update.site_id] = Quarantine.NON_FINITE
            elif norm > max_norm:
                quarantined[update.site_id] = Quarantine.OUTSIZED

    sweep(updates, sum(array.size for update in updates for array in update.arrays.values()), work)
    return quarantined


def _norm(arrays: Arrays) -> float:
    """Return the Euclidean norm over all tensors, added up in the order of their names."""
    from aegis.aggregation import _kernels

    return math.sqrt(sum(_kernels.sum_of_squares(arrays[name].reshape(-1)) for name in sorted(arrays)))
