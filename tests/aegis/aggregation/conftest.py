from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from aegis.aggregation import Aggregate, Contribution, aggregate
from coreason_enclave.schemas import Aggregator

ANY_FINITE_NORM = 1e300


def _updates(rows: Iterable[ArrayLike]) -> list[Contribution]:
    """One contribution for each row, from sites whose names sort like the rows, cut into two tensors."""
    matrix = np.asarray(list(rows), dtype=np.float32)
    cut = matrix.shape[1] // 2
    return [
        Contribution(f"site-{i:03}", {"weight": row[cut:].copy(), "bias": row[:cut].copy()})
        for i, row in enumerate(matrix)
    ]


def _combine(updates: list[Contribution], rule: Aggregator, num_byzantine: int = 0, **options: Any) -> Aggregate:
    layout = {name: array.shape for name, array in updates[0].arrays.items()}
    settings = {"layout": layout, "max_norm": ANY_FINITE_NORM} | options
    return aggregate(updates, rule=rule, num_byzantine=num_byzantine, **settings)


@pytest.fixture(scope="session")
def updates_of() -> Callable[[Iterable[ArrayLike]], list[Contribution]]:
    return _updates


@pytest.fixture(scope="session")
def combine() -> Callable[..., Aggregate]:
    return _combine


@pytest.fixture(scope="session")
def flat() -> Callable[[Aggregate], np.ndarray]:
    """The delta as one row, in the order in which ``updates_of`` cut it."""
    return lambda result: np.concatenate([result.delta["bias"].ravel(), result.delta["weight"].ravel()])
