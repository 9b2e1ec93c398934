"""Families of the experiment: people to keep together on one side of the split, and in the bootstrap.

The source file names no family. People of one site and one plan with the same family income, to the cent, count as one
family. Imputed incomes merge families; merging can only make the test harder. Education is a person's own, and the
family's size changes over the years, so neither identifies a family.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_Positions = npt.NDArray[np.int64]

FAMILY_COLUMNS = ("site", "plan", "income")
EVALUATION_SHARE = 0.25
SPLIT_SEED = 0


def families_of(source: Mapping[str, npt.NDArray[np.float64]]) -> _Positions:
    """Return a code for each row's family, (n,)."""
    shared = np.column_stack([source[name] for name in FAMILY_COLUMNS])
    return np.unique(shared, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def split_families(
    source: Mapping[str, npt.NDArray[np.float64]], persons: npt.NDArray[np.float64]
) -> tuple[_Positions, _Positions]:
    """Return row positions for training and for public evaluation; no family has rows on both sides.

    At each site, families drawn in the order of a fixed seed are held out until they hold a quarter of its people.
    """
    families, first = families_of(source), np.unique(persons, return_index=True)[1]
    random = np.random.default_rng(SPLIT_SEED)
    held_out = np.zeros(len(families), np.bool_)
    for site in np.unique(source["site"]):
        people = families[first[source["site"][first] == site]]
        names, sizes = np.unique(people, return_counts=True)
        drawn = random.permutation(len(names))
        enough = int(np.searchsorted(np.cumsum(sizes[drawn]), EVALUATION_SHARE * len(people))) + 1
        held_out |= np.isin(families, names[drawn[:enough]])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
